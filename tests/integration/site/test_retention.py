"""Drops over months: shown, compared, taken back, and pruned in two steps, also on a full disk."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from airlift import canonical
from airlift.cli.exit import code_of
from airlift.digest import Digest
from airlift.digest import of as digest_of
from airlift.errors import UsageError
from airlift.progress import Silent
from airlift.site import drops, prune_plan, retention
from airlift.site.catalog import Catalog
from airlift.site.config import Site
from airlift.site.listing import Service
from tests.components import require, require_root
from tests.support.cli import airlift, ok
from tests.support.site_bundles import Cargo, make_site, ship, take

APP = "docker.io/library/app"


def month(number: int, size: int = 1000) -> Cargo:
    cargo = Cargo()
    cargo.image(f"{APP}:1", bytes([number]) * size, b"the same every month")
    cargo.file("tool", b"tool of month %d" % number)
    return cargo


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    for number in (1, 2, 3):
        take(made, ship(month(number), tmp_path / f"{number}.airlift", sequence=number))
    return made


def tag(site: Site) -> str:
    catalog = Catalog(site.journal_path, site.store)
    try:
        (value,) = catalog.names(Service.OCI, f"{APP}:1")
        return str(value["digest"])
    finally:
        catalog.close()


def root(number: int) -> str:
    return month(number).artifacts[0].root.digest


def is_served(site: Site, digest: str) -> bool:
    catalog = Catalog(site.journal_path, site.store)
    try:
        held = catalog.held(Service.OCI, APP, digest)  # type: ignore[arg-type]
        return held is not None and catalog.path(held.digest).is_file()
    finally:
        catalog.close()


def test_two_are_taken_back_and_digests_stay(site: Site) -> None:
    assert tag(site) == root(3)
    assert drops.rollback(site, None).drop.sequence == 2
    assert tag(site) == root(2)
    assert drops.rollback(site, "stable").drop.sequence == 1
    assert tag(site) == root(1)
    assert all(is_served(site, root(number)) for number in (1, 2, 3))
    with pytest.raises(UsageError, match=r"stable/1 is the first kept drop; there is none to go back to"):
        drops.rollback(site, None)
    drops.activate(site, "stable/3")
    assert tag(site) == root(3)


def test_an_unknown_channel_has_nothing_to_take_back(site: Site) -> None:
    with pytest.raises(UsageError, match="no drop of channel edge is active") as caught:
        drops.rollback(site, "edge")
    assert caught.value.hint == "choose one with airlift drops activate; channels with drops are: stable"


def test_a_plan_changes_nothing_and_names_what_only_old_drops_need(site: Site) -> None:
    before = set(site.store.digests())
    plan = retention.plan(site, 1)
    assert set(site.store.digests()) == before
    assert len(plan.releases) == 2
    going = {digest for digest, _ in plan.blobs}
    assert {digest_of(bytes([number]) * 1000) for number in (1, 2)} <= going
    assert digest_of(b"the same every month") not in going
    assert digest_of(bytes([3]) * 1000) not in going


def test_pruning_forgets_old_drops_and_keeps_what_the_kept_ones_need(site: Site) -> None:
    plan = retention.plan(site, 1)
    done = retention.execute(site, plan, Silent())
    assert done == plan
    assert [drop.sequence for drop in drops.list_drops(site)] == [3]
    assert is_served(site, root(3))
    assert not is_served(site, root(1))
    assert not any(site.store.has(digest) for digest, _ in plan.blobs)
    assert all(site.store.verify(digest) for digest in site.store.digests())
    assert sorted(path.name for path in site.drops_dir.iterdir()) == [drops.list_drops(site)[0].release]
    assert retention.plan(site, 1) == prune_plan.Plan((), ())


def test_a_rolled_back_drop_is_active_and_stays_whatever_is_kept(site: Site) -> None:
    drops.rollback(site, None)
    drops.rollback(site, None)
    plan = retention.plan(site, 1)
    assert plan.releases == (drops.find(site, "stable/2").release,)
    retention.execute(site, plan, Silent())
    assert tag(site) == root(1)
    assert drops.activate(site, "stable/3").drop.active
    assert tag(site) == root(3)


def test_what_became_active_after_the_plan_is_never_touched(site: Site) -> None:
    plan = retention.plan(site, 1)
    drops.activate(site, "stable/1")
    with pytest.raises(UsageError, match="is active now and stays") as caught:
        retention.execute(site, plan, Silent())
    assert code_of(caught.value) == 2
    assert [drop.sequence for drop in drops.list_drops(site)] == [1, 2, 3]
    assert is_served(site, root(1))


def test_what_a_later_import_needs_is_kept_though_the_plan_names_it(site: Site, tmp_path: Path) -> None:
    plan = retention.plan(site, 1)
    cargo = month(4)
    cargo.file("again", bytes([1]) * 1000)
    take(site, ship(cargo, tmp_path / "4.airlift", sequence=4))
    retention.execute(site, plan, Silent())
    assert site.store.has(digest_of(bytes([1]) * 1000))
    assert [drop.sequence for drop in drops.list_drops(site)] == [3, 4]


def test_a_strange_file_among_the_blobs_stays_and_check_names_it(site: Site, tmp_path: Path) -> None:
    strange = site.store.path(digest_of(b"x")).with_name("foo")
    strange.write_bytes(b"x")
    ran = airlift("check", "--site", site.root, home=tmp_path)
    assert (ran.code, ran.out.splitlines()[0]) == (12, f"store    {strange}: not a blob")
    retention.execute(site, retention.plan(site, 1), Silent())
    assert strange.read_bytes() == b"x"
    strange.unlink()
    assert ok("check", "--site", site.root, home=tmp_path).out.startswith("clean")


def test_a_pruned_sequence_is_not_accepted_again(site: Site, tmp_path: Path) -> None:
    retention.execute(site, retention.plan(site, 1), Silent())
    home = tmp_path
    ran = airlift("import", tmp_path / "2.airlift", "--site", site.root, home=home)
    assert ran.code == 14, ran.err


def test_the_verbs_show_compare_and_prune(site: Site, tmp_path: Path) -> None:
    at = ["--site", str(site.root)]
    shown = ok("drops", "show", "stable/2", *at, "--json", home=tmp_path).json
    assert shown["sequence"] == 2
    assert shown["contents"][0]["name"] == f"{APP}:1"
    found = ok("drops", "diff", "stable/1", "stable/3", *at, "--json", home=tmp_path).json["changes"]
    assert {(item["name"], item["change"]) for item in found} == {(f"v2/{APP}:1", "changed"), ("files/tool", "changed")}
    back = ok("drops", "rollback", *at, "--json", home=tmp_path).json["drops"]
    assert [item["active"] for item in back] == [False, True, False]
    plan = tmp_path / "plan.json"
    planned = ok("drops", "prune", "--keep", "1", "-o", plan, *at, home=tmp_path)
    assert "would prune 1 drop and" in planned.out
    assert len(drops.list_drops(site)) == 3
    done = ok("drops", "prune", "--execute", plan, *at, "--json", home=tmp_path).json
    assert done["releases"] == json.loads(plan.read_text())["releases"]
    assert len(drops.list_drops(site)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "not a plan"),
        (b'{"format":"x"}', "plan of format 'x', expected 'airlift.prune/v1'"),
        (b"{ }", "not canonical JSON"),
    ],
)
def test_what_is_no_plan_is_refused(site: Site, tmp_path: Path, content: bytes, message: str) -> None:
    plan = tmp_path / "plan.json"
    plan.write_bytes(content)
    ran = airlift("drops", "prune", "--execute", plan, "--site", site.root, home=tmp_path)
    assert ran.code == 2, ran.err
    assert message in ran.err
    assert len(drops.list_drops(site)) == 3


@pytest.mark.parametrize("key", ["releases", "given_up"])
@pytest.mark.parametrize("name", ["../../victim", "sha256:../../../victim", "", "."])
def test_a_plan_leads_nowhere_but_to_drops(site: Site, tmp_path: Path, key: str, name: str) -> None:
    victim = site.root.parent / "victim"
    victim.mkdir()
    (victim / "file").touch()
    plan = tmp_path / "plan.json"
    plan.write_bytes(canonical.encode({"format": prune_plan.PLAN, "blobs": [], "releases": [], key: [name]}))
    ran = airlift("drops", "prune", "--execute", plan, "--site", site.root, home=tmp_path)
    assert (ran.code, "is no release" in ran.err) == (2, True), ran.err
    assert (victim / "file").exists()
    assert len(list(site.drops_dir.iterdir())) == 3


@pytest.mark.parametrize(
    "name", ["../../api/v2.0/projects", "mirror/../other", "mirror/app?x=", "/app", "mirror//app", ""]
)
def test_a_plan_leads_nowhere_but_to_repositories(site: Site, tmp_path: Path, name: str) -> None:
    plan = tmp_path / "plan.json"
    doomed = {"repository": name, "digest": f"sha256:{'0' * 64}", "tags": []}
    plan.write_bytes(canonical.encode({"format": prune_plan.PLAN, "blobs": [], "releases": [], "registry": [doomed]}))
    ran = airlift("drops", "prune", "--execute", plan, "--site", site.root, home=tmp_path)
    assert (ran.code, "is no repository" in ran.err) == (2, True), ran.err


def fill(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        with contextlib.suppress(OSError):
            while True:
                os.write(handle, bytes(4096))
    finally:
        os.close(handle)


def test_pruning_works_on_a_full_disk(tmp_path: Path) -> None:
    require_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run([require("mount"), "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
    try:
        site = make_site(disk / "site")
        for number in (1, 2):
            take(site, ship(month(number, 3_000_000), tmp_path / f"{number}.airlift", sequence=number))
        fill(disk / "filler")
        assert os.statvfs(disk).f_bavail == 0
        done = retention.execute(site, retention.plan(site, 1), Silent())
        assert done.size > 3_000_000
        assert [drop.sequence for drop in drops.list_drops(site)] == [2]
        assert os.statvfs(disk).f_bavail > 0
    finally:
        subprocess.run(["umount", disk], check=True)


def own_manifest(site: Site, number: int) -> Path:
    release = drops.find(site, f"stable/{number}").release
    index = json.loads(site.index_path(release).read_bytes())
    return site.store.path(index["manifests"][0]["digest"])


@pytest.mark.parametrize("lost", ["drops", "index"])
def test_what_kept_drops_need_stays_although_their_index_is_lost(site: Site, tmp_path: Path, lost: str) -> None:
    own = {number: own_manifest(site, number) for number in (1, 2, 3)}
    assert all(path.is_file() for path in own.values())
    kept = drops.find(site, "stable/3").release
    if lost == "drops":
        shutil.rmtree(site.drops_dir)
    else:
        # As if it were that of another drop.
        site.index_path(kept).write_bytes(site.index_path(drops.find(site, "stable/1").release).read_bytes())
    plan, stale = tmp_path / "plan", tmp_path / "stale"
    planned = airlift("drops", "prune", "--site", site.root, "--keep", "1", "-o", plan, "--json", home=tmp_path)
    assert (planned.code, planned.json["unsure_of"]) == (0, [kept])
    assert "the index of stable/3 in drops/ is missing or damaged, so nothing is deleted but what" in planned.err
    assert "check --site DIR --repair BUNDLE" in planned.err
    # One that another release made, and took the manifest for nobody's.
    doomed = json.loads(plan.read_bytes())
    doomed["blobs"].append({"digest": f"sha256:{own[3].name}", "size": own[3].stat().st_size})
    stale.write_bytes(canonical.encode(doomed))
    ok("drops", "prune", "--site", site.root, "--execute", stale, home=tmp_path)
    assert [drop.sequence for drop in drops.list_drops(site)] == [3]
    assert own[3].is_file()
    assert is_served(site, root(3))
    assert not site.store.has(digest_of(b"tool of month 1"))
    assert airlift("check", "--site", site.root, "--repair", tmp_path / "3.airlift", home=tmp_path).code == 0
    # What was left is found once it is known what is needed.
    retention.execute(site, retention.plan(site, 1), Silent())
    assert [path.is_file() for path in own.values()] == [False, False, True]
    assert ok("check", "--site", site.root, home=tmp_path).out.startswith("clean")


@pytest.mark.parametrize("what", ["config", "manifest"])
def test_nothing_is_pruned_while_what_a_kept_drop_needs_cannot_be_read(site: Site, tmp_path: Path, what: str) -> None:
    drop = drops.find(site, "stable/3")
    site.store.path(Digest(root(3)) if what == "manifest" else drop.config).unlink()
    ran = airlift("drops", "prune", "--site", site.root, "--keep", "1", home=tmp_path)
    assert (ran.code, "stable/3 stays, and what it needs cannot be read: reading " in ran.err) == (16, True), ran.err
    assert "airlift check --site DIR --repair BUNDLE with the bundle of that drop, then prune" in ran.err
    ok("check", "--site", site.root, "--repair", tmp_path / "3.airlift", home=tmp_path)
    ok("drops", "prune", "--site", site.root, "--keep", "1", home=tmp_path)


@pytest.mark.parametrize("lost", ["drops", "envelope", "sbom", "manifest", "config"])
def test_importing_a_bundle_again_brings_back_all_that_its_drop_lost(site: Site, tmp_path: Path, lost: str) -> None:
    drop = drops.find(site, "stable/3")
    folder = site.drops_dir / drop.release
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    if lost == "drops":
        shutil.rmtree(site.drops_dir)
    elif lost == "envelope":
        (folder / "airlift.json").unlink()
    elif lost == "sbom":
        (folder / "sbom.cdx.json").write_bytes(b"{}")
    elif lost == "manifest":
        own_manifest(site, 3).unlink()
    else:
        path = site.store.path(drop.config)
        path.write_bytes(path.read_bytes().replace(b"stable", b"stabil"))
    again = ("import", "--site", site.root, tmp_path / "3.airlift")
    assert "would be imported" in ok(*again, "--dry-run", home=tmp_path).out
    assert "is here already" not in ok(*again, home=tmp_path).out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert "is here already and complete, nothing was written" in ok(*again, home=tmp_path).out
    if lost != "drops":
        assert ok("check", "--site", site.root, home=tmp_path).out.startswith("clean")
