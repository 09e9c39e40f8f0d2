"""A journal from a backup of before the last import: no command changes the site, or what it fills, by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from airlift.site import drops, kept
from airlift.site.config import Site
from tests.support.cli import airlift
from tests.support.serving import serving
from tests.support.site_bundles import make_site, month, take


def content(site: Site) -> dict[str, bytes]:
    """Every file of the site but for what SQLite has beside its own."""
    files = [path for path in site.root.rglob("*") if path.is_file() and path.suffix]
    return {str(path.relative_to(site.root)): path.read_bytes() for path in files} | {
        path.name: path.read_bytes() for path in (site.root / "store" / "blobs" / "sha256").iterdir()
    }


@pytest.fixture
def restored(tmp_path: Path) -> Site:
    """A site of three months whose journal knows two of them."""
    site = make_site(tmp_path / "site")
    for number in (1, 2):
        take(site, month(tmp_path, number))
    backup = site.journal_path.read_bytes()
    ran = airlift("drops", "prune", "--site", site.root, "--keep", "1", "-o", "plan.json", home=tmp_path)
    assert ran.code == 0, ran.err
    take(site, month(tmp_path, 3))
    for path in site.root.glob("state.db*"):
        path.unlink()
    site.journal_path.write_bytes(backup)
    return site


@pytest.mark.parametrize(
    "verb",
    [
        ("drops", "activate", "stable/1"),
        ("drops", "rollback"),
        ("drops", "prune", "--keep", "1", "-o", "new.json"),
        ("drops", "prune", "--execute", "plan.json"),
        ("check", "--repair"),
        ("check", "--repair", "2.airlift"),
        ("import", "2.airlift"),
        ("import", "2.airlift", "--dry-run"),
        ("export", "--static", "www"),
        ("deploy", "k3s", "--root", "node"),
        ("deploy", "k3s", "--root", "node", "--dry-run"),
        ("deploy", "rollback", "--root", "node"),
        ("deploy", "rollback", "--root", "node", "--dry-run"),
    ],
    ids=" ".join,
)
def test_no_command_changes_a_site_by_an_older_journal(restored: Site, tmp_path: Path, verb: tuple[str, ...]) -> None:
    # Something to mend, else a check has nothing to do.
    (restored.drops_dir / drops.find(restored, "stable/1").release / "sbom.cdx.json").unlink()
    third = next(path for path in restored.drops_dir.iterdir() if path.name not in known(restored)).name
    before = content(restored)
    ran = airlift(*verb, "--site", restored.root, home=tmp_path)
    assert ran.code == 16, ran.err
    assert (
        f"airlift: error: the journal {restored.journal_path} is older than drops/: stable/3 ({third}) was imported here,"
        " and the journal knows neither it nor a later one\n"
        "airlift: hint: move state.db with its -wal and -shm files away and run airlift site recover, with the highest"
        " sequence of the paper records as --min-sequence, and the fingerprint of the paper as --fingerprint\n"
    ) in ran.err
    assert content(restored) == before
    assert not any((tmp_path / name).exists() for name in ("new.json", "www", "node"))


def known(site: Site) -> set[str]:
    return {drop.release for drop in drops.list_drops(site)}


def warning(site: Site, *sequences: int) -> str:
    newer = unknown(site)
    return "".join(
        f"airlift: warning: the journal {site.journal_path} is older than drops/: stable/{number} "
        f"({newer[number]}) was imported here, and the journal knows neither it nor a later one; move state.db"
        " with its -wal and -shm files away and run airlift site recover, with the highest sequence of the paper records"
        " as --min-sequence, and the fingerprint of the paper as --fingerprint\n"
        for number in sequences
    )


def unknown(site: Site) -> dict[int, str]:
    """Sequence and release of what lies in drops/ and the journal does not know."""
    names = {path.name for path in site.drops_dir.iterdir()} - known(site)
    return {kept.verified(site, name).sequence: name for name in names}


def test_what_only_reads_still_answers(restored: Site, tmp_path: Path) -> None:
    for verb in (
        ("drops", "show", "stable/1"),
        ("drops", "diff", "stable/1", "stable/2"),
    ):
        assert airlift(*verb, "--site", restored.root, home=tmp_path).code == 0


@pytest.mark.parametrize("verb", [("status",), ("drops", "list"), ("site", "log")], ids=" ".join)
def test_who_asks_what_there_is_hears_that_the_journal_is_older(
    restored: Site, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    for more in ((), ("--json",)):
        ran = airlift(*verb, *more, "--site", restored.root, home=tmp_path)
        assert (ran.code, ran.err) == (0, warning(restored, 3))
    assert ran.json["unknown_to_journal"] == [
        {"channel": "stable", "sequence": 3, "release": unknown(restored)[3]},
    ]


def test_a_server_says_that_the_journal_is_older_and_serves_what_it_knows(restored: Site) -> None:
    heard: list[str] = []
    with serving(restored.root, heard=heard) as url:
        assert requests.get(f"{url}/files/tool", timeout=30).content == b"tool of month 2"
    assert heard[0] == warning(restored, 3)


def test_a_journal_that_knows_everything_is_not_called_older(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    take(site, month(tmp_path, 1))
    for verb in (("status", "--json"), ("drops", "list", "--json")):
        ran = airlift(*verb, "--site", site.root, home=tmp_path)
        assert (ran.code, ran.err, ran.json["unknown_to_journal"]) == (0, "", [])
