"""What ``/healthz`` of ``airlift serve`` says when journal or store go away while it runs, and what clients get then."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlift.digest import of as digest_of
from airlift.site import drops
from airlift.site.config import Site
from tests.support.cli import ok
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, make_site, ship, take

TOOL = b"tool of month %d"


def month(number: int) -> Cargo:
    cargo = Cargo()
    cargo.file("tool", TOOL % number)
    return cargo


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    for number in (1, 2):
        take(made, ship(month(number), tmp_path / f"{number}.airlift", sequence=number))
    return made


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def url(site: Site, heard: list[str]) -> Iterator[str]:
    with serving(site.root, heard=heard) as url:
        assert health(url) == (200, {"status": "ok", "generation": {"stable": drops.find(site, "stable/2").release}})
        yield url


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def health(url: str) -> tuple[int, Any]:
    status, body = get(f"{url}/healthz")
    return status, json.loads(body)


def unavailable(*parts: str) -> tuple[int, Any]:
    return 503, {"status": "unavailable", "unreadable": list(parts)}


def test_a_journal_that_is_moved_away_is_told_and_clients_are_served_on(site: Site, url: str, heard: list[str]) -> None:
    away = site.journal_path.rename(site.root / "away.db")
    assert health(url) == unavailable("state.db")
    assert get(f"{url}/files/tool") == (200, TOOL % 2)
    away.rename(site.journal_path)
    assert health(url)[0] == 200
    assert any(f"state.db cannot be read: the journal {site.journal_path} is not there" in line for line in heard)


def test_a_journal_that_takes_the_place_of_another_is_read(site: Site, url: str, tmp_path: Path) -> None:
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (site.root / name).rename(tmp_path / name)
    minimum = ("--min-sequence", "stable=2")
    ok(
        *("site", "recover", "--site", site.root, "--fingerprint", site.trust.fingerprint, *minimum, *minimum),
        home=tmp_path,
    )
    assert health(url) == (200, {"status": "ok", "generation": {}})
    assert get(f"{url}/files/tool")[0] == 404
    ok("drops", "activate", "--site", site.root, "stable/1", home=tmp_path)
    assert get(f"{url}/files/tool") == (200, TOOL % 1)


def test_a_journal_that_is_damaged_is_told(site: Site, url: str) -> None:
    good = site.journal_path.rename(site.root / "away.db")
    site.journal_path.write_bytes(b"no journal" * 1000)
    assert health(url) == unavailable("state.db")
    assert get(f"{url}/files/tool")[0] == 500
    good.replace(site.journal_path)
    assert (health(url)[0], get(f"{url}/files/tool")) == (200, (200, TOOL % 2))


@pytest.mark.parametrize("lost", ["store", "store/blobs", "store/blobs/sha256"])
def test_a_store_that_is_gone_is_told(site: Site, url: str, tmp_path: Path, heard: list[str], lost: str) -> None:
    away = (site.root / lost).rename(tmp_path / "away")
    assert health(url) == unavailable("store")
    away.rename(site.root / lost)
    assert health(url)[0] == 200
    said = f"store cannot be read: the store is not there: {site.store.blobs} is no directory"
    assert any(said in line for line in heard)


def test_an_empty_directory_in_place_of_the_blobs_is_told(site: Site, url: str, tmp_path: Path) -> None:
    away = site.store.blobs.rename(tmp_path / "away")
    site.store.blobs.mkdir()
    assert health(url) == unavailable("store")
    shutil.rmtree(site.store.blobs)
    away.rename(site.store.blobs)
    assert health(url)[0] == 200


def test_both_are_told(site: Site, url: str, tmp_path: Path) -> None:
    away = [path.rename(tmp_path / path.name) for path in (site.journal_path, site.store.root)]
    assert health(url) == unavailable("state.db", "store")
    for path in away:
        path.rename(site.root / path.name)
    assert health(url)[0] == 200


def test_a_site_without_drops_and_one_that_shows_none_are_well(site: Site, url: str, tmp_path: Path) -> None:
    ok("drops", "deactivate", "--site", site.root, "stable", home=tmp_path)
    assert health(url) == (200, {"status": "ok", "generation": {}})
    site.store.path(digest_of(TOOL % 1)).unlink()
    # One blob is for `airlift check` to find.
    assert health(url)[0] == 200
