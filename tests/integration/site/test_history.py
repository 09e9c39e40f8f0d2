"""What a site tells an auditor: what was done to it, who signed a drop, and the SBOM that came with it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.errors import TrustError
from airlift.progress import Silent
from airlift.site import drops, history, kept
from airlift.site.config import Site, load_site
from airlift.site.journal import Journal
from airlift.site.pin import pin
from airlift.trust.gate import Gate
from airlift.trust.roots import dump_trust
from tests.support.bundles import trust
from tests.support.cli import airlift, ok
from tests.support.site_bundles import SBOM, make_site, month, take


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


def logged(site: Site) -> list[tuple[str, str]]:
    """What happened to which drop, and what else is said of it."""
    told = ok("site", "log", "--site", site.root, "--json", home=site.root.parent).json["entries"]
    assert [entry["number"] for entry in told] == list(range(1, len(told) + 1))
    return [(entry["what"], f"{entry['channel']}/{entry['sequence']}") for entry in told]


def test_three_months_one_taken_back_and_one_pruned_are_all_told(site: Site, tmp_path: Path) -> None:
    at = ("--site", site.root)
    for number in (1, 2, 3):
        ok("import", month(tmp_path, number), *at, home=tmp_path)
    releases = {drop.sequence: drop.release for drop in drops.list_drops(site)}
    # Nothing is done by these.
    ok("import", tmp_path / "3.airlift", *at, home=tmp_path)
    assert airlift("import", tmp_path / "1.airlift", *at, home=tmp_path).code == 14
    ok("drops", "rollback", *at, home=tmp_path)
    ok("drops", "activate", "stable/2", *at, home=tmp_path)
    ok("drops", "deactivate", "stable", *at, home=tmp_path)
    ok("drops", "activate", "stable/2", *at, home=tmp_path)
    ok("drops", "prune", "--keep", "2", "-o", tmp_path / "plan", *at, home=tmp_path)
    ok("drops", "prune", "--execute", tmp_path / "plan", *at, home=tmp_path)
    assert logged(site) == [
        ("trust pinned", "/0"),
        ("imported", "stable/1"),
        ("activated", "stable/1"),
        ("imported", "stable/2"),
        ("activated", "stable/2"),
        ("imported", "stable/3"),
        ("activated", "stable/3"),
        ("refused", "stable/1"),
        ("rolled back", "stable/2"),
        ("deactivated", "stable/0"),
        ("activated", "stable/2"),
        ("pruned", "stable/1"),
    ]
    ran = ok("site", "log", *at, home=tmp_path)
    lines = ran.out.splitlines()
    assert lines[1].endswith(f"  imported      stable/1  {releases[1]}  signed by ann")
    assert lines[-2].endswith(f"  pruned        stable/1  {releases[1]}")
    assert lines[0].endswith(f"  trust pinned  {site.trust.fingerprint}")
    ran = airlift("drops", "show", *at, "stable/1", home=tmp_path)
    assert (ran.code, "airlift site log says which were pruned" in ran.err) == (2, True)
    last = ok("site", "log", *at, "--json", home=tmp_path).json["entries"][-1]
    assert last["time"].startswith("20")
    assert f"  refused       stable/1  {releases[1]}  TrustError: " in lines[7]
    assert lines[7].endswith("1.airlift: sequence 1 of channel stable is too old: 3 was accepted before")
    assert lines[8].endswith(f"  rolled back   stable/2  {releases[2]}  from stable/3")
    assert lines[-1] == f"12 entries, digest {last['digest']}"


def test_what_is_said_is_appended_to_what_was_said(site: Site, tmp_path: Path) -> None:
    take(site, month(tmp_path, 1))
    with site.journal() as journal:
        before = journal.history.entries()
    take(site, month(tmp_path, 2))
    with site.journal() as journal:
        assert journal.history.entries()[: len(before)] == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE history SET release = 'sha256:0' WHERE number = 2", "entry 2 of the history in "),
        ("UPDATE history SET time = '2020-01-01T00:00:00Z' WHERE number = 3", "entry 3 of the history in "),
        ("DELETE FROM history WHERE number = 2", "entry 2 of the history in "),
        ("UPDATE history SET sequence = 1 << 53 WHERE number = 3", "entry 3 of the history in "),
        ("UPDATE history SET number = 1 << 60 WHERE number = 3", "entry 3 of the history in "),
    ],
)
def test_an_entry_that_was_changed_or_left_out_is_found(site: Site, tmp_path: Path, change: str, said: str) -> None:
    take(site, month(tmp_path, 1))
    with contextlib.closing(sqlite3.connect(site.journal_path)) as db:
        db.execute(change)
        db.commit()
    ran = airlift("site", "log", "--site", site.root, home=tmp_path)
    assert (ran.code, ran.out, said in ran.err) == (12, "", True), ran.err
    ran = airlift("check", "--site", site.root, home=tmp_path)
    lines = ran.out.splitlines()
    assert (ran.code, lines[0].startswith(f"journal  site log: {said}"), lines[-1]) == (12, True, "1 finding"), ran.out
    assert "do: something else than airlift changed state.db" in lines[1]
    ran = airlift("check", "--repair", "--site", site.root, home=tmp_path)
    assert (ran.code, ran.out.splitlines()[:2]) == (12, lines[:2]), ran.err


def test_a_recovered_site_says_so_and_what_it_found(site: Site, tmp_path: Path) -> None:
    for number in (1, 2):
        take(site, month(tmp_path, number))
    for path in site.root.glob("state.db*"):
        path.unlink()
    paper = ("--fingerprint", site.trust.fingerprint, *("--min-sequence", "stable=2") * 2)
    ok("site", "recover", "--site", site.root, *paper, home=tmp_path)
    assert logged(site)[:2] == [("recovered", "/0"), ("trust pinned", "/0")]
    assert sorted(logged(site)[2:]) == [("found again", "stable/1"), ("found again", "stable/2")]


def test_of_what_nobody_signed_only_the_kind_of_the_refusal_is_told(site: Site, tmp_path: Path) -> None:
    at = ("--site", site.root)
    bundle = month(tmp_path, 1)
    stranger = make_site(tmp_path / "stranger")
    other = trust("bob")
    (tmp_path / "other.json").write_bytes(dump_trust(other))
    pin(stranger.root, tmp_path / "other.json", other.fingerprint, Silent())
    (tmp_path / "none.airlift").write_bytes(b"SECRET" * 1000)
    torn = bytearray(bundle.read_bytes())
    torn[-9000] ^= 1
    (tmp_path / "torn.airlift").write_bytes(torn)
    for _ in range(2):
        assert airlift("import", tmp_path / "none.airlift", *at, home=tmp_path).code == 13
        assert airlift("import", tmp_path / "torn.airlift", *at, home=tmp_path).code == 12
        assert airlift("import", bundle, "--site", stranger.root, home=tmp_path).code == 14
    told = ok("site", "log", *at, "--json", home=tmp_path).json["entries"][1:]
    assert [(one["what"], f"{one['channel']}/{one['sequence']}") for one in told] == [
        ("refused", "/0"),
        ("refused", "stable/1"),
    ]
    assert told[0]["detail"] == "BundleError"
    assert told[1]["detail"].startswith("IntegrityError: frame ")
    told = ok("site", "log", "--site", stranger.root, "--json", home=tmp_path).json["entries"][2:]
    assert [(one["what"], one["channel"], one["release"], one["detail"]) for one in told] == [
        ("refused", "", "", "NotAcceptedError")
    ]


def test_refusals_have_a_bound_until_something_is_done(site: Site, tmp_path: Path) -> None:
    with site.journal() as journal:
        for number in range(3 * history.MOST_REFUSALS):
            with journal.transaction():
                journal.history.refuse("TrustError", f"number {number}\n{'x' * 1000}\udcff", channel="stable")
        assert len(journal.history.entries()) == 1 + history.MOST_REFUSALS
        assert {len(one.detail) for one in journal.history.entries()[1:]} == {300}
    take(site, month(tmp_path, 1))
    with site.journal() as journal, journal.transaction():
        journal.history.refuse("TrustError", "number 0")
    assert logged(site)[-3:] == [("imported", "stable/1"), ("activated", "stable/1"), ("refused", "/0")]


def test_a_refusal_that_cannot_be_noted_is_the_same_refusal(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        take(site, month(tmp_path, number))
    verify = Gate.sequence

    def then_read_only(gate: Gate) -> None:
        for journal in opened:
            journal._db.execute("PRAGMA query_only=1")
        verify(gate)

    opened: list[Journal] = []
    made = Journal.__init__

    def remember(journal: Journal, path: Path) -> None:
        made(journal, path)
        opened[:] = [journal]

    monkeypatch.setattr(Journal, "__init__", remember)
    monkeypatch.setattr(Gate, "sequence", then_read_only)
    with pytest.raises(TrustError, match="is too old: 2 was accepted before"):
        take(site, tmp_path / "1.airlift")
    assert logged(site)[-1] == ("activated", "stable/2")


def test_a_repair_is_told_with_what_it_mended(site: Site, tmp_path: Path) -> None:
    take(site, month(tmp_path, 1))
    site.store.path(digest_of(b"tool of month 1")).unlink()
    at = ("--site", site.root)
    assert airlift("check", "--repair", *at, home=tmp_path).code == 12
    ok("check", "--repair", tmp_path / "1.airlift", *at, home=tmp_path)
    ok("check", "--repair", *at, home=tmp_path)
    told = ok("site", "log", *at, "--json", home=tmp_path).json["entries"][-2:]
    assert [(one["what"], one["detail"]) for one in told] == [
        ("repaired", "1 found, 1 left"),
        ("repaired", "1 found, 0 left; with the bundle of stable/1"),
    ]


def test_another_trust_file_is_told(site: Site, tmp_path: Path) -> None:
    made = trust("ann", "bob", allow_plain=True)
    (tmp_path / "other.json").write_bytes(dump_trust(made))
    wanted = ("--trust", tmp_path / "other.json", "--fingerprint", made.fingerprint)
    for _ in range(2):
        # The second time, as after a run that was killed, nothing more is pinned.
        ok("site", "trust", "--site", site.root, *wanted, home=tmp_path)
    told = ok("site", "log", "--site", site.root, "--json", home=tmp_path).json["entries"]
    assert [(entry["what"], entry["detail"]) for entry in told] == [
        ("trust pinned", site.trust.fingerprint),
        ("trust pinned", made.fingerprint),
    ]


def test_a_site_of_before_begins_its_log_with_the_next_change(site: Site, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(site.journal_path)) as db:
        db.execute("DROP TABLE history")
    ran = ok("site", "log", "--site", site.root, home=tmp_path)
    assert (ran.out, ran.err) == ("", "airlift: nothing was noted here yet\n")
    take(site, month(tmp_path, 1))
    assert logged(site) == [("imported", "stable/1"), ("activated", "stable/1")]


def test_the_sbom_of_a_kept_drop_is_given_and_a_changed_one_is_not(site: Site, tmp_path: Path) -> None:
    drop = take(site, month(tmp_path, 1)).drop
    at = ("--site", site.root, "stable/1")
    assert ok("drops", "sbom", *at, home=tmp_path).out == f"{SBOM.decode()}\n"
    ok("drops", "sbom", *at, "-o", tmp_path / "out.json", home=tmp_path)
    assert (tmp_path / "out.json").read_bytes() == SBOM
    path = site.drops_dir / drop.release / "sbom.cdx.json"
    path.write_bytes(SBOM + b" ")
    ran = airlift("drops", "sbom", *at, home=tmp_path)
    assert (ran.code, ran.out) == (12, ""), ran.err
    assert "hint: airlift check --site DIR --repair BUNDLE with the bundle of that drop" in ran.err
    path.unlink()
    assert airlift("drops", "sbom", *at, home=tmp_path).code == 16


def test_a_bundle_without_an_sbom_is_not_said_to_be_mended_by_itself(site: Site, tmp_path: Path) -> None:
    drop = take(site, month(tmp_path, 1)).drop
    (site.drops_dir / drop.release / kept.ATTEST).write_bytes(b"{}")
    ran = airlift("drops", "sbom", "--site", site.root, "stable/1", home=tmp_path)
    assert ran.code == 16
    assert ran.err == (
        f"airlift: error: the bundle of {drop.release} brought no sbom.cdx.json\n"
        "airlift: hint: ask who signed it; airlift build adds one\n"
    )


def test_who_signed_a_drop_is_verified_before_it_is_said(site: Site, tmp_path: Path) -> None:
    drop = take(site, month(tmp_path, 1)).drop
    at = ("--site", site.root, "stable/1")
    assert ok("drops", "show", *at, home=tmp_path).out.splitlines()[1] == (f"  signed by ann; imported {drop.imported}")
    told = ok("drops", "show", *at, "--json", home=tmp_path).json
    assert (told["signers"], told["not_verified"]) == (["ann"], None)
    path = site.drops_dir / drop.release / kept.ENVELOPE
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps(value | {"signatures": []}, separators=(",", ":"), sort_keys=True))
    line = ok("drops", "show", *at, home=tmp_path).out.splitlines()[1]
    assert line == f"  signatures not accepted: the bundle is not signed; imported {drop.imported}"
    assert load_site(site.root) == site
