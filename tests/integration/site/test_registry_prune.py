"""Prune in an external registry: by digest, never what somebody needs, and finished by a second run."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift import canonical
from airlift.artifact import Kind
from airlift.digest import Digest
from airlift.errors import DeliveryError, PartialDeliveryError
from airlift.progress import Silent
from airlift.site import drops, prune_plan, repair, retention
from airlift.site.config import Site
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient, fallback_tag
from airlift.transport.settings import HttpSettings
from tests.integration.site.test_referrers import referrer
from tests.support.cli import Ran, airlift, environment
from tests.support.listener import Listener
from tests.support.registry import Fault, FrontHandler, Registry, refuse, running_front, running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

APP = "docker.io/library/app"
ONCE = HttpSettings(retries=0)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


def client_of(registry: Registry) -> RegistryClient:
    return RegistryClient(registry.host, http=HttpClient(ONCE, Silent()), plain_http=True)


def month(number: int) -> tuple[Cargo, dict[str, Digest]]:
    """An index with a child that is there every month and one of its own, and an image of its own tag."""
    cargo = Cargo()
    same = cargo.image_manifest(b"the same every month")
    own = cargo.image_manifest(b"layer of %d" % number)
    index = cargo.index(f"{APP}:1", same, own)
    image = cargo.image(f"docker.io/library/tool:{number}", b"tool of %d" % number)
    return cargo, {"same": same.digest, "own": own.digest, "index": index.root.digest, "tool": image.root.digest}


def filled(tmp_path: Path, url: str, months: int = 3) -> tuple[Site, dict[int, dict[str, Digest]]]:
    site = make_site(tmp_path / "site", registry=RegistryConfig(url=url))
    digests = {}
    for number in range(1, months + 1):
        cargo, digests[number] = month(number)
        take(site, ship(cargo, tmp_path / f"{number}.airlift", sequence=number))
    return site, digests


def is_there(registry: Registry, repository: str, reference: str) -> bool:
    return client_of(registry).head(f"docker.io/library/{repository}", reference) is not None


def test_manifests_that_only_pruned_drops_need_are_gone_and_all_others_answer(
    tmp_path: Path, registry: Registry
) -> None:
    site, digests = filled(tmp_path, registry.url)
    plan = retention.plan(site, 1)
    told = {(item.repository.rpartition("/")[2], item.digest) for item in plan.manifests}
    assert told == {("app", digests[n][k]) for n in (1, 2) for k in ("own", "index")} | {
        ("tool", digests[n]["tool"]) for n in (1, 2)
    }
    # Through the file, as people do it.
    (tmp_path / "plan.json").write_bytes(canonical_of(plan))
    listener = Listener()
    done = retention.execute(site, prune_plan.read_plan(tmp_path / "plan.json"), listener)
    assert len(done.manifests) == 6
    assert listener.warnings == []
    for number, of in digests.items():
        assert is_there(registry, "app", of["index"]) is (number == 3)
        assert is_there(registry, "app", of["own"]) is (number == 3)
        assert is_there(registry, "tool", of["tool"]) is (number == 3)
        assert is_there(registry, "tool", str(number)) is (number == 3)
    assert is_there(registry, "app", digests[1]["same"])
    assert is_there(registry, "app", "1")
    assert repair.check(site, progress=Silent(), http=ONCE, is_deep=True) == []


def canonical_of(plan: prune_plan.Plan) -> bytes:
    return canonical.encode(plan.to_json())


def test_what_a_tag_of_somebody_else_leads_to_stays_with_its_children(tmp_path: Path, registry: Registry) -> None:
    site, digests = filled(tmp_path, registry.url, months=2)
    client = client_of(registry)
    index = client.manifest(APP, digests[1]["index"])
    client.push_manifest(APP, "theirs", index.data, index.media_type)
    listener = Listener()
    done = retention.execute(site, retention.plan(site, 1), listener)
    assert [item.digest for item in done.manifests] == [digests[1]["tool"]]
    assert is_there(registry, "app", "theirs")
    assert is_there(registry, "app", digests[1]["own"])
    assert len(listener.warnings) == 2
    assert all("stays: the tag theirs leads there and is of no pruned drop" in text for text in listener.warnings)
    assert [drop.sequence for drop in drops.list_drops(site)] == [2]


def test_a_registry_that_goes_away_is_pruned_by_executing_the_plan_again(tmp_path: Path, registry: Registry) -> None:
    with running_front(registry) as front:
        site, digests = filled(tmp_path, front.url, months=2)
        plan = retention.plan(site, 1)
        front.faults.append(refuse(503, b"", method="DELETE"))
        with pytest.raises(DeliveryError, match="503"):
            retention.execute(site, plan, Silent(), ONCE)
        assert [drop.sequence for drop in drops.list_drops(site)] == [2]
        front.faults.clear()
        done = retention.execute(site, plan, Silent(), ONCE)
        assert len(done.manifests) == 3
        assert retention.execute(site, plan, Silent(), ONCE).manifests == done.manifests
    assert not is_there(registry, "app", digests[1]["index"])
    assert is_there(registry, "app", digests[2]["index"])


def test_a_new_plan_has_what_a_prune_that_was_cut_short_left_and_nothing_is_orphaned(
    tmp_path: Path, registry: Registry
) -> None:
    with running_front(registry) as front:
        site, digests = filled(tmp_path, front.url, months=3)
        first = drops.find(site, "stable/1").release
        at = ("--site", site.root)
        prune = ("drops", "prune", "--keep", "1", "-o", tmp_path / "plan", "--json")
        planned = airlift(*prune, *at, home=tmp_path).json
        assert len(planned["registry"]) == 6
        front.faults.append(refuse(503, b"", method="DELETE", match="/tool/"))
        ran = airlift("drops", "prune", "--execute", tmp_path / "plan", *at, home=tmp_path)
        assert (ran.code, "execute the plan again; a new one has what is left there too" in ran.err) == (17, True)
        # What a kill in between leaves of a pruned drop goes with the next one.
        (site.drops_dir / first).mkdir()
        with site.journal() as journal, journal.transaction():
            journal.elsewhere.forget([first], front.host, ())
        front.faults.clear()
        take(site, ship(month(4)[0], tmp_path / "4.airlift", sequence=4))
        again = airlift(*prune, *at, home=tmp_path).json
        assert {item["digest"] for item in again["registry"]} >= {digests[n]["tool"] for n in (1, 2, 3)}
        done = airlift("drops", "prune", "--execute", tmp_path / "plan", "--json", *at, home=tmp_path)
        assert (done.code, len(done.json["releases"])) == (0, 1), done.err
        assert [path.name for path in site.drops_dir.iterdir()] == [drops.find(site, "stable/4").release]
        assert airlift(*prune, *at, home=tmp_path).json["registry"] == []
    for number in (1, 2, 3):
        assert not is_there(registry, "app", digests[number]["index"])
        assert not is_there(registry, "tool", digests[number]["tool"])


@pytest.mark.parametrize("request_number", [1, 4, 7, 10, 13])
def test_nothing_is_orphaned_by_a_kill_whose_plan_is_lost(
    tmp_path: Path, registry: Registry, request_number: int
) -> None:
    with running_front(registry) as front:
        site, digests = filled(tmp_path, front.url, months=3)
        (tmp_path / "plan").write_bytes(canonical_of(retention.plan(site, 1)))
        asked = len(front.asked)
        words = ["drops", "prune", "--site", site.root, "--execute", tmp_path / "plan"]
        command = [sys.executable, "-m", "airlift", *map(str, words)]
        # Told of itself only after it has begun: the fault waits for that.
        begun: queue.Queue[int] = queue.Queue()

        def kill(_: FrontHandler) -> bool:
            if len(front.asked) - asked >= request_number:
                pid = begun.get(timeout=60)
                begun.put(pid)
                os.kill(pid, signal.SIGKILL)
            return False

        front.faults.append(Fault(kill))
        process = subprocess.Popen(command, env=environment(tmp_path), stderr=subprocess.DEVNULL)
        begun.put(process.pid)
        assert process.wait(timeout=120) == -signal.SIGKILL
        front.faults.clear()
        take(site, ship(month(4)[0], tmp_path / "4.airlift", sequence=4))
        retention.execute(site, retention.plan(site, 1), Silent(), ONCE)
        assert retention.plan(site, 1) == prune_plan.Plan((), ())
        assert repair.check(site, progress=Silent(), http=ONCE) == []
        assert [path.name for path in site.drops_dir.iterdir()] == [drops.find(site, "stable/4").release]
    for number in (1, 2, 3):
        assert not is_there(registry, "app", digests[number]["index"])
        assert not is_there(registry, "app", digests[number]["own"])
        assert not is_there(registry, "tool", digests[number]["tool"])


def test_a_plan_has_nothing_of_a_prune_that_was_cut_short_and_is_needed_again(
    tmp_path: Path, registry: Registry
) -> None:
    with running_front(registry) as front:
        site, digests = filled(tmp_path, front.url, months=2)
        front.faults.append(refuse(503, b"", method="DELETE"))
        with pytest.raises(DeliveryError, match="503"):
            retention.execute(site, retention.plan(site, 1), Silent(), ONCE)
        front.faults.clear()
        take(site, ship(month(1)[0], tmp_path / "again.airlift", sequence=3))
        plan = retention.plan(site, 2)
        assert plan.manifests == ()
        retention.execute(site, plan, Silent(), ONCE)
        # Now the later drop goes, and what of the first one nobody needs.
        take(site, ship(month(4)[0], tmp_path / "4.airlift", sequence=4))
        retention.execute(site, retention.plan(site, 1), Silent(), ONCE)
    assert not is_there(registry, "app", digests[1]["index"])
    assert not is_there(registry, "tool", digests[1]["tool"])


def test_what_a_registry_keeps_that_was_taken_out_of_site_yaml_is_told_by_the_prune(
    tmp_path: Path, registry: Registry
) -> None:
    site, digests = filled(tmp_path, registry.url, months=2)
    document = site.root / "site.yaml"
    text = document.read_text()
    document.write_text(text.partition("registry:")[0])
    at = ("--site", site.root)
    assert airlift("check", "--repair", *at, home=tmp_path).code == 0
    said = (
        f"airlift: warning: {registry.host} got these drops, and site.yaml does not name it any more: nothing is deleted"
        " there, and once they are pruned nobody here knows what it has; it may still show docker.io/library/app:1,"
        " docker.io/library/tool:1\n"
    )
    planned = airlift("drops", "prune", "--keep", "1", "-o", tmp_path / "plan", *at, "--json", home=tmp_path)
    assert planned.err == said
    assert planned.json["mirrors_left"] == {registry.host: ["docker.io/library/app:1", "docker.io/library/tool:1"]}
    assert airlift("drops", "prune", "--execute", tmp_path / "plan", *at, home=tmp_path).err.endswith(said)
    assert is_there(registry, "tool", digests[1]["tool"])
    # A registry that is still there says nothing, nor does one of which nothing goes.
    document.write_text(text)
    assert airlift("drops", "prune", "--keep", "1", "-o", tmp_path / "plan", *at, home=tmp_path).err == ""


def test_while_an_import_is_not_complete_the_registry_waits_and_it_is_said_how_to_go_on(
    tmp_path: Path, registry: Registry
) -> None:
    with running_front(registry) as front:
        site, digests = filled(tmp_path, front.url, months=2)
        # The third month has all of the first one once more, and is cut short before that is known.
        cargo, _ = month(1)
        cargo.image("docker.io/library/new:1", b"new")
        third = ship(cargo, tmp_path / "3.airlift", sequence=3)
        front.faults.append(refuse(403, b"", method="PUT", match="/manifests/"))

        def run(*verb: str | Path, code: int = 0) -> Ran:
            ran = airlift(*verb, "--site", site.root, home=tmp_path)
            assert ran.code == code, ran.err
            return ran

        run("import", third, code=3)
        incomplete = next(drop.release for drop in drops.list_drops(site) if drop.sequence == 3)
        why = f"nothing is deleted in the registry while the import of {incomplete} is not complete"
        planned = run("drops", "prune", "--keep", "1", "-o", "plan.json", "--json")
        way_out = "import its bundle again, or, where that is lost, make and execute a plan with --give-up RELEASE"
        assert planned.err == f"airlift: warning: {why}: {way_out}; then execute this same plan\n"
        assert planned.json["registry_waits_for"] == [incomplete]
        assert len(planned.json["registry"]) == 3
        executed = run("drops", "prune", "--execute", "plan.json", "--json")
        assert f"warning: {why}: {way_out}; then execute this same plan once more\n" in executed.err
        assert (executed.json["registry"], executed.json["registry_waits_for"]) == ([], [incomplete])
        assert len(executed.json["releases"]) == 1
        assert "DELETE" not in {item.method for item in front.asked}
        front.faults.clear()
        run("import", third)
        finished = run("drops", "prune", "--execute", "plan.json", "--json")
        assert "warning" not in finished.err
        # The third drop needs all that the first one had.
        assert (finished.json["registry"], finished.json["registry_waits_for"]) == ([], [])
        assert is_there(registry, "tool", digests[1]["tool"])
        assert run("check").out == "clean: everything is as the drops say\n"


def test_the_same_plan_deletes_after_the_import_what_that_does_not_need(tmp_path: Path, registry: Registry) -> None:
    with running_front(registry) as front:
        site, digests = filled(tmp_path, front.url, months=2)
        third = ship(month(3)[0], tmp_path / "3.airlift", sequence=3)
        front.faults.append(refuse(403, b"", method="PUT", match="/manifests/"))
        with pytest.raises(PartialDeliveryError):
            take(site, third)
        plan = retention.plan(site, 1)
        assert retention.execute(site, plan, Silent()).manifests == ()
        front.faults.clear()
        take(site, third)
        assert set(retention.execute(site, plan, Silent()).manifests) == set(plan.manifests)
    assert not is_there(registry, "tool", digests[1]["tool"])
    assert is_there(registry, "tool", digests[2]["tool"])


def test_an_index_that_the_registry_does_not_delete_keeps_what_it_lists(tmp_path: Path, registry: Registry) -> None:
    with running_front(registry) as front:
        site, digests = filled(tmp_path, front.url, months=2)
        plan = retention.plan(site, 1)
        front.faults.append(refuse(403, b"", method="DELETE", match=f"/manifests/{digests[1]['index']}"))
        listener = Listener()
        with pytest.raises(DeliveryError, match="403"):
            retention.execute(site, plan, listener, ONCE)
        assert len(listener.warnings) == 2
        assert listener.warnings[1] == (
            f"{front.host}/{APP}@{digests[1]['own']} stays: {digests[1]['index']} stays, which lists it"
        )
        assert all(is_there(registry, "app", digests[1][name]) for name in ("index", "own", "same"))
        assert not is_there(registry, "tool", digests[1]["tool"])
        front.faults.clear()
        assert set(retention.execute(site, plan, Silent(), ONCE).manifests) == set(plan.manifests)


def test_a_plan_that_has_become_wrong_touches_nothing_that_is_needed_again(tmp_path: Path, registry: Registry) -> None:
    site, digests = filled(tmp_path, registry.url, months=2)
    plan = retention.plan(site, 1)
    retention.execute(site, plan, Silent())
    # The same content comes again, under a later sequence.
    take(site, ship(month(1)[0], tmp_path / "again.airlift", sequence=3))
    assert retention.execute(site, plan, Silent()).manifests == ()
    assert is_there(registry, "app", digests[1]["index"])
    assert is_there(registry, "tool", "1")


def test_a_registry_that_deletes_nothing_is_said_and_the_site_is_pruned(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", deletes=False) as registry:
        site, digests = filled(tmp_path, registry.url, months=2)
        listener = Listener()
        assert retention.execute(site, retention.plan(site, 1), listener).manifests == ()
        assert is_there(registry, "app", digests[1]["index"])
    (warning,) = listener.warnings
    assert "does not let manifests be deleted" in warning
    assert [drop.sequence for drop in drops.list_drops(site)] == [2]


def test_a_pruned_referrer_is_no_longer_listed(tmp_path: Path, registry: Registry) -> None:
    site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
    listed = []
    for number in (1, 2):
        cargo = Cargo()
        image = cargo.image(f"{APP}:1", b"layer")
        listed.append(referrer(cargo, image, b"word of %d" % number))
        take(site, ship(cargo, tmp_path / f"{number}", sequence=number))
    client = client_of(registry)
    assert {item.digest for item in client.referrers(APP, image.root.digest)} == set(listed)
    retention.execute(site, retention.plan(site, 1), Silent())
    assert [item.digest for item in client.referrers(APP, image.root.digest)] == [listed[1]]
    assert client.head(APP, fallback_tag(image.root.digest)) is not None
    assert repair.check(site, progress=Silent(), http=ONCE) == []


def test_a_repository_that_is_gone_is_no_obstacle(tmp_path: Path, registry: Registry) -> None:
    site, digests = filled(tmp_path, registry.url, months=2)
    shutil.rmtree(registry.root / "data/docker/registry/v2/repositories/docker.io/library/tool")
    listener = Listener()
    plan = retention.plan(site, 1)
    assert set(retention.execute(site, plan, listener).manifests) == set(plan.manifests)
    assert listener.warnings == []
    assert not is_there(registry, "app", digests[1]["index"])
    assert [drop.sequence for drop in drops.list_drops(site)] == [2]


def test_a_repository_without_a_tag_is_pruned(tmp_path: Path, registry: Registry) -> None:
    site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
    digests = []
    for number in (1, 2):
        cargo = Cargo()
        manifest = cargo.image_manifest(b"layer of %d" % number)
        cargo.add(Kind.IMAGE, f"{APP}@{manifest.digest}", manifest)
        take(site, ship(cargo, tmp_path / f"{number}", sequence=number))
        digests.append(manifest.digest)
    retention.execute(site, retention.plan(site, 1), Silent())
    assert [is_there(registry, "app", digest) for digest in digests] == [False, True]


def test_an_answer_that_cannot_be_used_leaves_one_repository_and_the_same_plan_finishes_it(
    tmp_path: Path, registry: Registry
) -> None:
    with running_front(registry) as front:
        site, digests = filled(tmp_path, front.url, months=2)
        plan = retention.plan(site, 1)
        front.faults.append(refuse(200, b'{"tags":"x"}', match="/app/tags/list"))
        listener = Listener()
        said = f"tags of {front.host}/{APP}: expected a list of tags, got 'x'"
        with pytest.raises(DeliveryError) as caught:
            retention.execute(site, plan, listener, ONCE)
        assert caught.value.message.startswith(f"{said}; the site has forgotten the pruned drops, ")
        assert listener.warnings == [f"{front.host}/{APP} is left as it is: {said}"]
        assert is_there(registry, "app", digests[1]["index"])
        assert not is_there(registry, "tool", digests[1]["tool"])
        front.faults.clear()
        assert set(retention.execute(site, plan, Silent(), ONCE).manifests) == set(plan.manifests)
        assert not is_there(registry, "app", digests[1]["index"])
