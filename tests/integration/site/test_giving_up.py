"""A drop whose import is not complete and whose bundle is lost: given up by name, and then nothing waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.errors import PartialDeliveryError, UsageError
from airlift.progress import Silent
from airlift.site import drops, recovery, repair, retention
from airlift.site.config import Site
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.settings import HttpSettings
from tests.support.cli import airlift
from tests.support.registry import refuse, running_front, running_registry
from tests.support.site_bundles import Cargo, make_site, month, ship, take


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site that was recovered without its second month, whose tool is damaged."""
    made = make_site(tmp_path / "site")
    for number in (1, 2, 3):
        take(made, month(tmp_path, number))
    made.store.path(digest_of(b"tool of month 2")).write_bytes(b"tool of month X")
    for path in made.root.glob("state.db*"):
        path.unlink()
    recovery.recover(made, {"stable": 3}, Silent())
    drops.activate(made, "stable/3")
    return made


def test_a_left_out_drop_whose_bundle_is_lost_is_given_up(site: Site, tmp_path: Path) -> None:
    release = drops.find(site, "stable/2").release

    def run(*verb: str, code: int = 0) -> str:
        ran = airlift(*verb, "--site", site.root, home=tmp_path)
        assert ran.code == code, ran.err
        return ran.out

    assert "stable/2: not complete (staging)" in run("check", code=12)
    # By itself it stays: the bundle may still come.
    assert retention.plan(site, 1).given_up == ()
    planned = run("drops", "prune", "--keep", "2", "--give-up", "stable/2", "-o", "plan.json")
    assert f"would prune stable/2, which is not complete  {release}\nwould prune 1 drop and " in planned
    assert (site.drops_dir / release).is_dir()
    done = run("drops", "prune", "--execute", "plan.json")
    assert f"pruned stable/2, which is not complete  {release}\npruned 1 drop and " in done
    assert not (site.drops_dir / release).exists()
    assert not site.store.has(digest_of(b"tool of month 2"))
    assert [drop.sequence for drop in drops.list_drops(site)] == [1, 3]
    assert run("check") == "clean: everything is as the drops say\n"
    assert run("drops", "prune", "--execute", "plan.json") == "pruned 0 drops and 0 blobs, 0 B\n"
    # What it was is not accepted any more: nothing tells it from an older bundle.
    ran = airlift("import", tmp_path / "2.airlift", "--site", site.root, home=tmp_path)
    assert (ran.code, "is too old: 3 was accepted before" in ran.err) == (14, True)


def test_a_kill_between_the_files_and_the_journal_is_finished_by_the_same_plan(site: Site) -> None:
    plan = retention.plan(site, 2, [drops.find(site, "stable/2")])
    for path in (site.drops_dir / plan.given_up[0]).iterdir():
        path.unlink()
    (site.drops_dir / plan.given_up[0]).rmdir()
    assert retention.execute(site, plan, Silent()).given_up == plan.given_up
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []


def test_a_complete_drop_is_not_given_up(site: Site, tmp_path: Path) -> None:
    complete = "is complete and is not given up"
    with pytest.raises(UsageError, match=f"stable/1 {complete}"):
        retention.plan(site, 2, [drops.find(site, "stable/1")])
    plan = retention.plan(site, 2, [drops.find(site, "stable/2")])
    take(site, tmp_path / "2.airlift")
    with pytest.raises(UsageError, match=f"stable/2 {complete}"):
        retention.execute(site, plan, Silent())
    assert [drop.state for drop in drops.list_drops(site)] == ["ready"] * 3


def test_give_up_belongs_to_the_plan(site: Site, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{}")
    ran = airlift(
        "drops", "prune", "--site", site.root, "--execute", "plan.json", "--give-up", "stable/2", home=tmp_path
    )
    assert (ran.code, ran.err.splitlines()[0]) == (2, "airlift: error: --give-up is for the plan")


def test_a_registry_waits_no_more_once_the_import_was_given_up(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as front:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))
        for number in (1, 2):
            cargo = Cargo()
            cargo.image("docker.io/library/app:1", b"layer %d" % number)
            take(site, ship(cargo, tmp_path / f"{number}.airlift", sequence=number))
        lost = Cargo()
        lost.image("docker.io/library/app:1", b"layer 3")
        front.faults.append(refuse(403, b"", method="PUT", match="/manifests/"))
        with pytest.raises(PartialDeliveryError):
            take(site, ship(lost, tmp_path / "3.airlift", sequence=3))
        front.faults.clear()
        waiting = retention.plan(site, 1)
        assert (len(waiting.manifests), len(waiting.waits_for)) == (1, 1)
        assert retention.execute(site, waiting, Silent()).manifests == ()
        retention.execute(site, retention.plan(site, 2, [drops.find(site, "stable/3")]), Silent())
        assert retention.execute(site, waiting, Silent()).manifests == waiting.manifests
        assert repair.check(site, progress=Silent(), http=HttpSettings()) == []
        # Its sequence was accepted, so that nothing older than it comes after it.
        again = Cargo()
        again.file("tool", b"another third month")
        ran = airlift("import", ship(again, tmp_path / "other.airlift", sequence=3), "--site", site.root, home=tmp_path)
        assert ran.code == 14, ran.err
