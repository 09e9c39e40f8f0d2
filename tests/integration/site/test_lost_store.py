"""A site whose store is gone, or has something else in its place: what is said, and how bundles make it again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.site import drops
from airlift.site.config import Site
from tests.support.cli import airlift, ok
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, make_site, ship, take

WAY = (
    "see whether its disk is mounted; if it is lost, airlift check --site DIR --repair BUNDLE makes it again, with the"
    " bundle of each drop"
)

IN_THE_WAY = "something else is there: look at it, move it away, and run the same command again"


def month(number: int) -> Cargo:
    cargo = Cargo()
    cargo.image("docker.io/library/app:1", b"layer %d" % number)
    cargo.file("tool", b"tool of month %d" % number)
    return cargo


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    for number in (1, 2):
        take(made, ship(month(number), tmp_path / f"{number}.airlift", sequence=number))
    return made


@pytest.mark.parametrize("lost", ["store", "store/blobs", "store/blobs/sha256"])
def test_a_store_that_is_gone_is_one_finding_and_bundles_make_it_again(site: Site, tmp_path: Path, lost: str) -> None:
    shutil.rmtree(site.root / lost)
    for more in ((), ("--repair",)):
        ran = airlift("check", "--site", site.root, *more, home=tmp_path)
        assert (ran.code, ran.out.splitlines()) == (
            12,
            [
                f"store    {site.root}/store/blobs/sha256: the directory of the store is missing",
                "         of: stable/1, stable/2",
                f"         do: {WAY}",
                "1 finding",
            ],
        ), ran.err
        assert not (site.root / lost).exists()
    ran = airlift("check", "--site", site.root, "--repair", tmp_path / "1.airlift", home=tmp_path)
    assert (ran.code, f"store    {digest_of(b'tool of month 2')}: missing" in ran.out) == (12, True), ran.err
    assert digest_of(b"tool of month 1") not in ran.out
    ok("check", "--site", site.root, "--repair", tmp_path / "2.airlift", home=tmp_path)
    assert ok("check", "--site", site.root, home=tmp_path).out.startswith("clean")
    assert [drop.sequence for drop in drops.list_drops(site) if drop.active] == [2]


def test_a_site_without_its_store_is_not_served(site: Site, tmp_path: Path) -> None:
    shutil.rmtree(site.store.blobs)
    ran = airlift("serve", "--site", site.root, "--listen", "127.0.0.1:0", home=tmp_path)
    assert ran.code == 16
    assert f"the store is not there: {site.store.blobs} is no directory" in ran.err
    assert "see whether its disk is mounted; airlift check says what is missing" in ran.err
    for number in (1, 2):
        airlift("check", "--site", site.root, "--repair", tmp_path / f"{number}.airlift", home=tmp_path)
    with serving(site.root):
        pass


def test_nothing_is_pruned_without_the_store(site: Site, tmp_path: Path) -> None:
    plan = tmp_path / "plan"
    ok("drops", "prune", "--site", site.root, "--keep", "1", "-o", plan, home=tmp_path)
    shutil.rmtree(site.store.root)
    ran = airlift("drops", "prune", "--site", site.root, "--keep", "1", home=tmp_path)
    assert (ran.code, "Traceback" in ran.err) == (16, False), ran.err
    ran = airlift("drops", "prune", "--site", site.root, "--execute", plan, home=tmp_path)
    assert (ran.code, f"opening {site.store.root}: " in ran.err, "is mounted" in ran.err) == (16, True, True), ran.err
    assert len(drops.list_drops(site)) == 2


def test_a_strange_file_among_the_blobs_hinders_no_mending(site: Site, tmp_path: Path) -> None:
    strange = site.store.blobs / "notes"
    strange.write_bytes(b"x")
    site.store.path(digest_of(b"tool of month 2")).unlink()
    ran = airlift("check", "--site", site.root, "--repair", tmp_path / "2.airlift", home=tmp_path)
    assert (ran.code, ran.out.count("mended "), f"{strange}: not a blob" in ran.out) == (12, 1, True), ran.err


def test_a_directory_with_a_blobs_name_is_replaced_when_it_is_empty_and_else_named(site: Site, tmp_path: Path) -> None:
    digest = digest_of(b"tool of month 2")
    path = site.store.path(digest)
    path.unlink()
    path.mkdir()
    (path / "notes").write_bytes(b"of somebody")
    ran = airlift("check", "--site", site.root, home=tmp_path)
    assert (ran.code, f"store    {digest}: missing: a directory has its name" in ran.out) == (12, True), ran.err
    again = ("check", "--site", site.root, "--repair", tmp_path / "2.airlift")
    ran = airlift(*again, home=tmp_path)
    assert (ran.code, f"removing the directory {path}: Directory not empty" in ran.err) == (16, True), ran.err
    assert f"hint: {IN_THE_WAY}" in ran.err
    assert (path / "notes").read_bytes() == b"of somebody"
    assert list((site.store.root / "ingest").iterdir()) == []
    (path / "notes").unlink()
    assert ok(*again, home=tmp_path).out.endswith("clean: everything is as the drops say\n")
    assert path.read_bytes() == b"tool of month 2"


@pytest.mark.parametrize("name", ["drops", "drops/RELEASE", "drops/RELEASE/index.json", "store/blobs"])
def test_what_is_in_the_way_of_a_mending_is_named(site: Site, tmp_path: Path, name: str) -> None:
    path = site.root / name.replace("RELEASE", drops.find(site, "stable/2").release)
    if path.is_dir():
        shutil.rmtree(path)
        path.write_bytes(b"a file")
    else:
        path.unlink()
        path.mkdir()
    again = ("check", "--site", site.root, "--repair", tmp_path / "2.airlift")
    ran = airlift(*again, home=tmp_path)
    problem, hint = f"creating {path}: File exists", IN_THE_WAY
    if name.endswith("json"):
        problem = f"writing {path}: Is a directory"
        hint = "a directory is where a file belongs: see whether the path is right, else move it away"
    assert (ran.code, problem in ran.err, f"hint: {hint}" in ran.err) == (16, True, True), ran.err
    path.rmdir() if path.is_dir() else path.unlink()
    if name in ("drops", "store/blobs"):
        airlift("check", "--site", site.root, "--repair", tmp_path / "1.airlift", home=tmp_path)
    ok(*again, home=tmp_path)
