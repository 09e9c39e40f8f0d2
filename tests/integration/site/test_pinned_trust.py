"""trust.json is pinned: no command works with another one, and one command pins another one."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path

import pytest

from airlift import canonical
from airlift.errors import StoreError, TrustError
from airlift.progress import Silent
from airlift.site import drops, pin, repair, retention, static_tree
from airlift.site.config import Site, load_site
from airlift.site.inspection import Place
from airlift.transport.settings import HttpSettings
from airlift.trust.roots import dump_trust, load_trust
from tests.support.bundles import trust
from tests.support.cli import airlift
from tests.support.site_bundles import make_site, month, take

VERBS = [
    ("status",),
    ("drops", "list"),
    ("drops", "show", "stable/1"),
    ("drops", "diff", "stable/1", "stable/1"),
    ("drops", "activate", "stable/1"),
    ("drops", "rollback"),
    ("drops", "prune", "--keep", "1"),
    ("import", "2.airlift"),
    ("import", "2.airlift", "--dry-run"),
    ("preflight", "2.airlift"),
    ("check",),
    ("check", "--repair"),
    ("export", "--static", "www"),
    ("serve", "--listen", "127.0.0.1:0"),
    ("deploy", "k3s", "--root", "node"),
    ("deploy", "status"),
    ("site", "robot", "--admin", "admin", "--admin-password-file", "1.airlift"),
]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    take(made, month(tmp_path, 1))
    month(tmp_path, 2)
    return made


def other_trust(folder: Path, *persons: str) -> tuple[Path, str]:
    """Write a trust file; return it and its fingerprint."""
    made = trust(*persons, allow_plain=True)
    (folder / "other.json").write_bytes(dump_trust(made))
    return folder / "other.json", made.fingerprint


def swap(site: Site, folder: Path, *persons: str) -> str:
    path, fingerprint = other_trust(folder, *persons)
    (site.root / "trust.json").write_bytes(path.read_bytes())
    return fingerprint


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_command_works_with_another_trust_file(site: Site, tmp_path: Path, verb: tuple[str, ...]) -> None:
    fingerprint = swap(site, tmp_path, "ann", "eve")
    ran = airlift(*verb, "--site", site.root, home=tmp_path)
    assert ran.code == 14, ran.err
    assert ran.out == ""
    assert ran.err == (
        f"airlift: error: {site.root}/trust.json has the fingerprint {fingerprint}, the site pinned"
        f" {site.trust.fingerprint}\n"
        "airlift: hint: somebody replaced it: put the pinned file back from a backup; or state.db is from an older backup:"
        " then pin the file that the paper names with airlift site trust\n"
    )
    assert not any((tmp_path / name).exists() for name in ("www", "node"))


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb[1:2] != ("robot",)], ids=" ".join)
@pytest.mark.parametrize("left", [None, b"no journal" * 500], ids=["gone", "damaged"])
def test_no_command_works_with_another_trust_file_where_the_pin_is_lost_with_the_journal(
    site: Site, tmp_path: Path, verb: tuple[str, ...], left: bytes | None
) -> None:
    swap(site, tmp_path, "ann", "eve")
    for path in site.root.glob("state.db*"):
        path.unlink()
    if left is not None:
        site.journal_path.write_bytes(left)
    ran = airlift(*verb, "--site", site.root, home=tmp_path)
    assert ran.code == 16, ran.err
    assert not any((tmp_path / name).exists() for name in ("www", "node"))
    assert (site.journal_path.read_bytes() if site.journal_path.exists() else None) == left
    if verb[0] == "preflight":
        assert "\nerror    journal: " in ran.out
        assert "identity" not in ran.out
    else:
        assert f"the journal {site.journal_path}" in ran.err
    assert "signed by" not in ran.out + ran.err


def test_order_and_spaces_of_the_file_do_not_matter(site: Site) -> None:
    path = site.root / "trust.json"
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps(dict(reversed(value.items()))))
    assert load_site(site.root).trust == site.trust


def test_a_wider_trust_file_is_pinned_and_what_was_imported_stays(site: Site, tmp_path: Path) -> None:
    path, fingerprint = other_trust(tmp_path, "ann", "bob")
    ran = airlift(
        "site", "trust", "--site", site.root, "--trust", path, "--fingerprint", fingerprint.upper(), home=tmp_path
    )
    assert (ran.code, ran.out) == (0, f"fingerprint {fingerprint}\n"), ran.err
    assert ran.err == f"airlift: pinned before: {site.trust.fingerprint}\n"
    changed = load_site(site.root)
    assert changed.trust.fingerprint == fingerprint
    assert take(changed, tmp_path / "2.airlift").drop.active
    assert repair.check(changed, progress=Silent(), http=HttpSettings()) == []
    with pytest.raises(TrustError, match="is too old: 2 was accepted before"):
        take(changed, tmp_path / "1.airlift")


def test_a_trust_file_that_does_not_accept_a_kept_drop_says_so(site: Site, tmp_path: Path) -> None:
    path, fingerprint = other_trust(tmp_path, "bob")
    ran = airlift("site", "trust", "--site", site.root, "--trust", path, "--fingerprint", fingerprint, home=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.err.splitlines()[0] == (
        "airlift: warning: stable/1 is not signed as this file demands: it stays, and would be left out when state.db"
        " is lost"
    )
    assert drops.list_drops(load_site(site.root))[0].active


def second_person(folder: Path) -> tuple[Path, str]:
    """A trust file that demands two persons, of whom one signed what was imported."""
    path = folder / "two.json"
    path.write_text(json.dumps(json.loads(dump_trust(trust("ann", "bob", allow_plain=True))) | {"threshold": 2}))
    return path, load_trust(path).fingerprint


def test_check_says_that_a_drop_is_whole_which_the_pinned_file_does_not_accept(site: Site, tmp_path: Path) -> None:
    release = drops.find(site, "stable/1").release
    path, fingerprint = second_person(tmp_path)
    assert pin.pin(site.root, path, fingerprint, Silent()).unproven
    for more in ((), ("--repair",), ("--repair", "1.airlift")):
        ran = airlift("check", *more, "--site", site.root, home=tmp_path)
        if "1.airlift" in more:
            # The gate says the same of the bundle.
            assert "signed by 1 of the 2 persons that are needed: ann" in ran.err
        assert ran.code == 14, ran.err
        assert ran.out.startswith(
            f"trust    drops/{release}/airlift.json: not signed as the trust that is pinned now demands: signed by 1 of the"
            " 2 persons that are needed: ann\n"
            "         of: stable/1\n"
            "         do: pin a trust file that accepts it too, such as one with the old keys beside the new ones (airlift"
            " site trust); or let the drop go with airlift drops prune once nothing needs it,"
            " that of a channel which the trust file does not list any more after airlift drops deactivate\n"
        )
    told = airlift("check", "--json", "--site", site.root, home=tmp_path).json
    assert [(item["place"], item["drops"]) for item in told["findings"]] == [("trust", ["stable/1"])]


def test_what_check_says_of_such_a_drop_works(site: Site, tmp_path: Path) -> None:
    path, fingerprint = second_person(tmp_path)
    pin.pin(site.root, path, fingerprint, Silent())
    pinned_again = tmp_path / "site.keys" / "trust.json"
    pin.pin(site.root, pinned_again, site.trust.fingerprint, Silent())
    assert airlift("check", "--site", site.root, home=tmp_path).code == 0
    take(load_site(site.root), tmp_path / "2.airlift")
    pin.pin(site.root, path, fingerprint, Silent())
    plan = airlift("drops", "prune", "--keep", "1", "-o", "plan.json", "--site", site.root, home=tmp_path)
    assert plan.code == 0, plan.err
    assert airlift("drops", "prune", "--execute", "plan.json", "--site", site.root, home=tmp_path).code == 0
    found = repair.check(load_site(site.root), progress=Silent(), http=HttpSettings())
    assert [(item.place, item.drops) for item in found] == [(Place.TRUST, ("stable/2",))]


def test_all_drops_go_of_a_channel_that_ended(site: Site, tmp_path: Path) -> None:
    document = json.loads((site.root / "trust.json").read_bytes())
    document["channels"] = {"later": {"min_sequence": 1}}
    (tmp_path / "later.json").write_text(json.dumps(document))
    take(site, tmp_path / "2.airlift")
    pin.pin(site.root, tmp_path / "later.json", load_trust(tmp_path / "later.json").fingerprint, Silent())
    ended = load_site(site.root)
    # While clients see it, the newest stays with it.
    assert len(retention.plan(ended, 1).releases) == 1
    drops.deactivate(ended, "stable")
    retention.execute(ended, retention.plan(ended, 1), Silent())
    assert drops.list_drops(ended) == []
    assert repair.check(ended, progress=Silent(), http=HttpSettings()) == []
    # What was accepted once bounds it still.
    with ended.journal() as journal:
        assert journal.seen()["stable"][0] == 2
    assert not list(ended.store.digests())


def test_damage_is_told_as_damage_beside_it(site: Site, tmp_path: Path) -> None:
    take(site, tmp_path / "2.airlift")
    path, fingerprint = second_person(tmp_path)
    pin.pin(site.root, path, fingerprint, Silent())
    envelope = site.drops_dir / drops.find(site, "stable/2").release / "airlift.json"
    value = json.loads(envelope.read_bytes())
    signature = value["signatures"][0]["sig"]
    value["signatures"][0]["sig"] = ("B" if signature[0] == "A" else "A") + signature[1:]
    envelope.write_bytes(canonical.encode(value))
    ran = airlift("check", "--json", "--site", site.root, home=tmp_path)
    assert ran.code == 12
    found = [(item["place"], item["drops"], item["problem"][:30]) for item in ran.json["findings"]]
    assert found == [
        ("trust", ["stable/1"], "not signed as the trust that i"),
        ("drops", ["stable/2"], "damaged: the signature of ann "),
    ]


def test_a_file_that_is_not_the_one_of_the_paper_is_not_pinned(site: Site, tmp_path: Path) -> None:
    before = (site.root / "trust.json").read_bytes()
    path, _ = other_trust(tmp_path, "eve")
    ran = airlift("site", "trust", "--site", site.root, "--trust", path, "--fingerprint", "0" * 64, home=tmp_path)
    assert ran.code == 14, ran.err
    assert (site.root / "trust.json").read_bytes() == before
    assert load_site(site.root).trust == site.trust


def test_a_kill_between_file_and_journal_is_finished_by_the_same_command(site: Site, tmp_path: Path) -> None:
    fingerprint = swap(site, tmp_path, "ann", "bob")
    with pytest.raises(TrustError):
        load_site(site.root)
    done = pin.pin(site.root, tmp_path / "other.json", fingerprint, Silent())
    assert (done.before, done.unproven) == (site.trust.fingerprint, ())
    assert load_site(site.root).trust.fingerprint == fingerprint


def test_a_kill_between_journal_and_file_is_finished_by_the_same_command(site: Site, tmp_path: Path) -> None:
    path, fingerprint = other_trust(tmp_path, "ann", "bob")
    with site.journal() as journal:
        journal.pin(fingerprint)
    with pytest.raises(TrustError):
        load_site(site.root)
    pin.pin(site.root, path, fingerprint, Silent())
    assert load_site(site.root).trust.fingerprint == fingerprint


def test_a_journal_that_does_not_take_the_pin_leaves_the_site_as_it_is(site: Site, tmp_path: Path) -> None:
    path, fingerprint = other_trust(tmp_path, "ann", "bob")
    with contextlib.closing(sqlite3.connect(site.journal_path)) as db:
        db.execute("CREATE TRIGGER no BEFORE INSERT ON trust BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(StoreError, match="no room"):
        pin.pin(site.root, path, fingerprint, Silent())
    assert load_site(site.root).trust == site.trust
    assert list(site.root.glob(".trust.json*")) == []


@pytest.mark.parametrize("there", [b"{", b"", None], ids=["truncated", "empty", "gone"])
def test_a_damaged_trust_file_is_mended_by_pinning_it_once_more(
    site: Site, tmp_path: Path, there: bytes | None
) -> None:
    place, copy = site.root / "trust.json", tmp_path / "copy.json"
    copy.write_bytes(place.read_bytes())
    place.unlink()
    if there is not None:
        place.write_bytes(there)
    fingerprint = site.trust.fingerprint
    ran = airlift("site", "trust", "--site", site.root, "--trust", copy, "--fingerprint", fingerprint, home=tmp_path)
    assert (ran.code, ran.out) == (0, f"fingerprint {fingerprint}\n"), ran.err
    assert load_site(site.root) == site


@pytest.mark.parametrize("persons", [("ann", "bob"), ("bob",)], ids=["still believes", "believes no more"])
def test_a_journal_from_an_older_backup_is_not_pinned_anew(
    site: Site, tmp_path: Path, persons: tuple[str, ...]
) -> None:
    before = (site.root / "trust.json").read_bytes()
    backup = site.journal_path.read_bytes()
    take(site, tmp_path / "2.airlift")
    site.journal_path.write_bytes(backup)
    path, fingerprint = other_trust(tmp_path, *persons)
    ran = airlift("site", "trust", "--site", site.root, "--trust", path, "--fingerprint", fingerprint, home=tmp_path)
    assert ran.code == 16, ran.err
    assert "is older than drops/: stable/2 (sha256:" in ran.err
    assert "run airlift site recover" in ran.err
    assert (site.root / "trust.json").read_bytes() == before


def test_a_command_that_waited_while_another_file_was_pinned_does_not_believe_the_one_of_before(
    site: Site, tmp_path: Path
) -> None:
    path, fingerprint = other_trust(tmp_path, "bob")
    pin.pin(site.root, path, fingerprint, Silent())
    with pytest.raises(
        TrustError, match=f"has the fingerprint {site.trust.fingerprint}, the site pinned {fingerprint}"
    ):
        take(site, tmp_path / "2.airlift")
    with pytest.raises(TrustError, match="the site pinned"):
        static_tree.export(site, tmp_path / "www", Silent())
    assert [drop.sequence for drop in drops.list_drops(load_site(site.root))] == [1]
    assert not (tmp_path / "www").is_symlink()


def test_a_site_of_before_pins_what_it_has_with_the_next_change(site: Site, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(site.journal_path)) as db:
        db.execute("DROP TABLE trust")
    take(load_site(site.root), tmp_path / "2.airlift")
    swap(site, tmp_path, "ann", "eve")
    with pytest.raises(TrustError, match="the site pinned"):
        load_site(site.root)


def test_a_recovered_site_pins_the_file_that_was_compared_with_paper(site: Site, tmp_path: Path) -> None:
    for path in site.root.glob("state.db*"):
        path.unlink()
    recover = ("site", "recover", "--site", site.root, "--min-sequence", "stable=1", "--min-sequence", "stable=1")
    ran = airlift(*recover, home=tmp_path)
    assert (ran.code, "Missing option '--fingerprint'" in ran.err) == (2, True), ran.err
    # Nobody is to copy it from the file that it is to be compared with.
    assert site.trust.fingerprint.split()[0] not in ran.err
    assert not site.journal_path.exists()
    ran = airlift(*recover, "--fingerprint", "0" * 64, home=tmp_path)
    assert ran.code == 14, ran.err
    assert not site.journal_path.exists()
    ran = airlift(*recover, "--fingerprint", site.trust.fingerprint, home=tmp_path)
    assert ran.code == 0, ran.err
    swap(site, tmp_path, "ann", "eve")
    with pytest.raises(TrustError, match="the site pinned"):
        load_site(site.root)
