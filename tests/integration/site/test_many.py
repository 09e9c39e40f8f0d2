"""Many things at once: what is said of them stays short, and what is looked at is held one drop at a time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.errors import PolicyError
from airlift.progress import Silent
from airlift.site import repair
from airlift.site.config import Site
from airlift.transport.settings import HttpSettings
from tests.support.cli import airlift
from tests.support.site_bundles import Cargo, make_site, ship, take

FILES = 130


def month(number: int, *, mark: bytes = b"", channel: str = "stable", files: int = FILES) -> Cargo:
    cargo = Cargo(channel=channel)
    for key in range(files):
        cargo.file(f"file{key:03}", b"file %d%s" % (key, mark))
    cargo.file("month", b"%d" % number)
    return cargo


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site", channels=("stable", "edge"))
    for number in range(1, 8):
        take(made, ship(month(number), tmp_path / "bundle", sequence=number))
    return made


def test_a_hundred_findings_are_told_and_the_rest_is_counted(site: Site, tmp_path: Path) -> None:
    for key in range(FILES):
        site.store.path(digest_of(b"file %d" % key)).unlink()
    ran = airlift("check", "--site", site.root, home=tmp_path)
    lines = ran.out.splitlines()
    assert ran.code == 12, ran.err
    assert len([line for line in lines if line.endswith(": missing")]) == 100
    assert lines[-2:] == [f"store    and {FILES - 100} more found; --json has them all", f"{FILES} findings"]
    first = digest_of(b"file 0")
    every = "stable/1, stable/2, stable/3, stable/4, stable/5, 2 more"
    assert all(line.endswith(f" of {every}") for line in lines if line.startswith("         of: "))
    told = airlift("check", "--site", site.root, "--json", home=tmp_path).json["findings"]
    assert len(told) == FILES
    (one,) = [item for item in told if item["subject"] == first]
    assert one["drops"] == [f"stable/{number}" for number in range(1, 8)]
    ran = airlift("check", "--site", site.root, "--repair", tmp_path / "bundle", home=tmp_path)
    lines = ran.out.splitlines()
    assert lines[-2:] == [
        f"store    and {FILES - 100} more mended; --json has them all",
        "clean: everything is as the drops say",
    ], ran.err


def test_a_blob_that_many_artifacts_have_in_common_is_one_finding_of_all_of_them(site: Site, tmp_path: Path) -> None:
    site.store.path(digest_of(b"{}")).unlink()
    ran = airlift("check", "--site", site.root, home=tmp_path)
    assert ran.out.splitlines()[1].endswith(f"; {FILES + 7 - 5} more")
    (told,) = airlift("check", "--site", site.root, "--json", home=tmp_path).json["findings"]
    assert len(told["artifacts"]) == FILES + 7
    assert all(len(item["drops"]) == len(set(item["drops"])) for item in told["artifacts"])


def test_the_first_twenty_clashes_are_told(site: Site, tmp_path: Path) -> None:
    with pytest.raises(PolicyError) as caught:
        take(site, ship(month(1, mark=b" other", channel="edge"), tmp_path / "edge"))
    lines = caught.value.message.splitlines()
    assert (len(lines), lines[-1]) == (22, f"  and {FILES + 1 - 20} more")
    assert len(caught.value.violations) == FILES + 1


def test_what_drops_hold_is_not_in_memory_all_at_once(tmp_path: Path) -> None:
    def made(drops: int) -> Site:
        site = make_site(tmp_path / str(drops))
        for number in range(1, drops + 1):
            take(site, ship(month(number, files=400), tmp_path / "bundle", sequence=number))
        return site

    def peak(site: Site) -> int:
        tracemalloc.start()
        try:
            assert repair.check(site, progress=Silent(), http=HttpSettings()) == []
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = made(2), made(14)
    peak(few)  # What is made once, such as patterns, is not counted.
    # How many of the threads that hash have their buffer in one moment is chance.
    assert min(peak(many) for _ in range(3)) < 1.5 * max(peak(few) for _ in range(3))


def test_a_dry_run_keeps_manifests_in_memory_and_no_content(tmp_path: Path) -> None:
    def peak(files: int) -> int:
        site = make_site(tmp_path / str(files))
        cargo = Cargo()
        for number in range(files):
            cargo.file(f"{number}.json", b'{"%d": "%s"}' % (number, b" " * 1024 * 1024))
        bundle = ship(cargo, tmp_path / f"{files}.airlift")
        del cargo
        tracemalloc.start()
        try:
            assert take(site, bundle, dry_run=True).new_blobs == 2 * files + 3
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = 16, 64
    assert peak(many) < peak(few) + (many - few) * 1024 * 1024 / 2
