"""A site whose journal is lost: made again from store and drops, with sequences that are typed twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.errors import IntegrityError, PolicyError, StoreError, TrustError, UsageError
from airlift.progress import Silent
from airlift.site import drops, recovery, repair, retention
from airlift.site.config import Site
from airlift.site.pin import pin
from airlift.site.preflight import Flight
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient
from airlift.transport.settings import HttpSettings
from airlift.trust.roots import load_trust
from tests.support.bundles import NOW
from tests.support.cli import airlift
from tests.support.registry import running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take


def month(folder: Path, number: int) -> Path:
    cargo = Cargo()
    cargo.image("docker.io/library/app:1", b"layer %d" % number)
    cargo.file("tool", b"tool of month %d" % number)
    return ship(cargo, folder / f"{number}.airlift", sequence=number)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    for number in (2, 3):
        take(made, month(tmp_path, number))
    return made


def lose(site: Site) -> None:
    for path in site.root.glob("state.db*"):
        path.unlink()


def flight(site: Site, bundle: Path) -> dict[str, str]:
    """What preflight says, by what it looked at."""
    looked = Flight(site, bundle, NOW, b"", HttpSettings(), Silent(), lambda: 0.0)
    return {item.check: item.message for item in looked.run()}


def names(site: Site) -> list[object]:
    with site.journal() as journal:
        return [(d.release, journal.names_of(d.release), journal.held_blobs(d.release)) for d in journal.drops()]


def test_a_lost_journal_is_made_again_and_a_drop_is_activated(site: Site, tmp_path: Path) -> None:
    before = names(site)
    lose(site)
    paper = ("--fingerprint", site.trust.fingerprint, *("--min-sequence", "stable=3") * 2)
    ran = airlift("site", "recover", "--site", site.root, *paper, "--json", home=tmp_path)
    assert ran.code == 0, ran.err
    assert [(d["sequence"], d["active"], d["state"]) for d in ran.json["drops"]] == [
        (2, False, "ready"),
        (3, False, "ready"),
    ]
    assert names(site) == before
    assert drops.activate(site, "stable/3").drop.active
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []
    assert airlift("drops", "rollback", "--site", site.root, home=tmp_path).code == 0
    with pytest.raises(TrustError, match="is too old: 3 was accepted before"):
        take(site, month(tmp_path, 1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--min-sequence of channel stable: expected the same number twice, got nothing"),
        (["stable=3"], "--min-sequence of channel stable: expected the same number twice, got 3"),
        (["stable=3", "stable=4"], "--min-sequence of channel stable: expected the same number twice, got 3 and 4"),
        (["other=3"], "--min-sequence of channel stable: expected the same number twice, got nothing"),
        (["stable=3", "stable=3", "old=3"], "--min-sequence of channel old: expected the same number twice, got 3"),
        (["Other=3"], "--min-sequence 'Other=3': expected CHANNEL=N with N of 1 or more"),
        (["stable"], "--min-sequence 'stable': expected CHANNEL=N with N of 1 or more"),
        (
            ["stable=12345678901234567"] * 2,
            "--min-sequence 'stable=12345678901234567': expected CHANNEL=N with N of 1 or more",
        ),
        (
            ["stable=9007199254740992"] * 2,
            "--min-sequence 'stable=9007199254740992': expected CHANNEL=N with N of 1 or more",
        ),
        (["stable=0"], "--min-sequence 'stable=0': expected CHANNEL=N with N of 1 or more"),
    ],
)
def test_a_minimum_has_to_be_typed_twice(given: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        recovery.minimums(given, ["stable"])
    assert caught.value.message == message


def test_a_higher_minimum_than_was_found_holds(site: Site, tmp_path: Path) -> None:
    lose(site)
    assert recovery.recover(site, {"stable": 7}, Silent()).sequences == {"stable": 7}
    with pytest.raises(TrustError, match="is too old: 7 was given as the lowest one when the site was recovered"):
        take(site, month(tmp_path, 5))
    assert take(site, month(tmp_path, 7)).drop.active


def test_a_lower_minimum_than_was_found_changes_nothing(site: Site, tmp_path: Path) -> None:
    lose(site)
    assert recovery.recover(site, {"stable": 1}, Silent()).sequences == {"stable": 3}
    with pytest.raises(TrustError, match="is too old"):
        take(site, tmp_path / "2.airlift")


def test_a_recovery_that_was_killed_after_its_last_step_is_repeated_and_says_the_same(
    site: Site, tmp_path: Path
) -> None:
    site.store.path(digest_of(b"tool of month 2")).write_bytes(b"tool of month X")
    lose(site)
    paper = ("--fingerprint", site.trust.fingerprint, *("--min-sequence", "stable=7") * 2)
    recover = ("site", "recover", "--site", site.root, *paper, "--json")
    first = airlift(*recover, home=tmp_path)
    again = airlift(*recover, home=tmp_path)
    assert (first.code, again.code) == (0, 0), again.err
    assert again.json == first.json
    assert next(iter(first.json["left_out"].values())).endswith("; import its bundle again")
    assert "was recovered already, by the same command: nothing was done now" in again.err
    # Once something else was done, or with other numbers, it is another recovery.
    other = airlift(*recover[:-5], *("--min-sequence", "stable=8") * 2, home=tmp_path)
    assert (other.code, "recovering never replaces a journal" in other.err) == (2, True), other.err
    drops.activate(site, "stable/3")
    assert airlift(*recover, home=tmp_path).code == 2


def test_the_sequence_of_a_channel_that_has_left_the_trust_file_is_not_lost(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", channels=("stable", "edge"))
    bundles = {}
    for number in (4, 5):
        cargo = Cargo(channel="edge")
        cargo.file("other", b"edge %d" % number)
        bundles[number] = ship(cargo, tmp_path / f"edge{number}.airlift", sequence=number)
        take(site, bundles[number])
    both = site.root.with_name("site.keys") / "trust.json"
    document = json.loads(both.read_text())
    del document["channels"]["edge"]
    one = tmp_path / "one.json"
    one.write_text(json.dumps(document))
    pin(site.root, one, load_trust(one).fingerprint, Silent())
    backup = site.journal_path.read_bytes()
    lose(site)
    at = ("site", "recover", "--site", site.root, "--fingerprint", load_trust(one).fingerprint)
    stable = ("--min-sequence", "stable=1") * 2
    ran = airlift(*at, *stable, home=tmp_path)
    assert (ran.code, ran.err.splitlines()[0]) == (
        2,
        "airlift: error: --min-sequence of channel edge: expected the same number twice, got nothing",
    )
    assert "channels of this site: edge, stable" in ran.err
    # What drops/ proves counts where the paper says less; a channel of which nothing is left is taken from paper alone.
    ran = airlift(*at, *stable, *("--min-sequence", "edge=2") * 2, *("--min-sequence", "gone=9") * 2, home=tmp_path)
    assert ran.code == 0, ran.err
    assert "is left out: channel edge is not in the trust file" in ran.err
    assert "pin a trust file that accepts it too" in ran.err
    with site.journal() as journal:
        assert {channel: number for channel, (number, _) in journal.seen().items()} == {
            "edge": 5,
            "gone": 8,
            "stable": 0,
        }
    pin(site.root, both, load_trust(both).fingerprint, Silent())
    with pytest.raises(TrustError, match="sequence 4 of channel edge is too old: 5 was accepted before"):
        take(site, bundles[4])
    assert take(site, bundles[5]).drop.active
    # The same holds where an older journal was put back.
    lose(site)
    site.journal_path.write_bytes(backup)
    with site.journal() as journal, journal.transaction():
        journal._run("DELETE FROM channels")
        journal._run("DELETE FROM releases")
    with pytest.raises(StoreError, match="is older than drops/: edge/"):
        pin(site.root, one, load_trust(one).fingerprint, Silent())


def test_a_journal_that_is_there_is_not_replaced(site: Site) -> None:
    with pytest.raises(UsageError, match="recovering never replaces a journal"):
        recovery.recover(site, {"stable": 3}, Silent())


def test_what_is_damaged_or_not_signed_is_left_out_and_said(site: Site) -> None:
    releases = {drop.sequence: drop.release for drop in drops.list_drops(site)}
    site.store.path(digest_of(b"tool of month 2")).write_bytes(b"tool of month X")
    path = site.drops_dir / releases[3] / "airlift.json"
    envelope = json.loads(path.read_bytes())
    envelope["signatures"] = []
    path.write_text(json.dumps(envelope, separators=(",", ":"), sort_keys=True))
    lose(site)
    done = recovery.recover(site, {"stable": 3}, Silent())
    assert done.drops == ()
    assert set(done.left_out) == set(releases.values())
    assert "expected sha256:" in done.left_out[releases[2]]
    assert "signed" in done.left_out[releases[3]]
    # What is signed is known to have been here; what is not is as unknown as if it never had been.
    assert [(drop.release, drop.state) for drop in drops.list_drops(site)] == [(releases[2], "staging")]


def test_a_damaged_older_drop_is_completed_from_its_bundle_and_nothing_older_gets_in(
    site: Site, tmp_path: Path
) -> None:
    before = names(site)
    old = drops.find(site, "stable/2").release
    blob = site.store.path(digest_of(b"tool of month 2"))
    blob.write_bytes(b"tool of month X")
    lose(site)
    assert set(recovery.recover(site, {"stable": 3}, Silent()).left_out) == {old}
    drops.activate(site, "stable/3")
    found = repair.check(site, progress=Silent(), http=HttpSettings())
    assert [(item.subject, item.problem) for item in found] == [("stable/2", "not complete (staging)")]
    retention.execute(site, retention.plan(site, 1), Silent())

    for stranger in (month(tmp_path, 1), ship(Cargo(), tmp_path / "other.airlift", sequence=2)):
        with pytest.raises(TrustError, match="is too old: 3 was accepted before"):
            take(site, stranger)
    assert flight(site, tmp_path / "2.airlift")["sequence"].startswith("the drop was here and is not complete")
    ran = airlift("import", tmp_path / "2.airlift", "--site", site.root, home=tmp_path)
    assert ran.code == 0, ran.err
    assert "drop stable/2 is complete again and not active, since a later one was accepted: 1 new blob (" in ran.out
    assert blob.read_bytes() == b"tool of month 2"
    assert names(site) == before
    assert [drop.sequence for drop in drops.list_drops(site) if drop.active] == [3]
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []
    with pytest.raises(TrustError, match="is too old: 3 was accepted before"):
        take(site, tmp_path / "1.airlift")


def test_a_journal_from_an_older_backup_is_refused_and_named(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    take(site, month(tmp_path, 2))
    backup = site.journal_path.read_bytes()
    release = take(site, month(tmp_path, 3)).drop.release
    lose(site)
    site.journal_path.write_bytes(backup)

    older = (
        f"older than drops/: stable/3 ({release}) was imported here, and the journal knows neither it nor a later one"
    )
    with pytest.raises(StoreError) as caught:
        take(site, month(tmp_path, 2))
    assert caught.value.message == f"the journal {site.journal_path} is {older}"
    assert "airlift site recover" in str(caught.value.hint)
    assert flight(site, tmp_path / "2.airlift")["journal"] == f"the journal {site.journal_path} is {older}"
    ran = airlift("check", "--site", site.root, home=tmp_path)
    assert (ran.code, f"journal  stable/3: the journal is {older}" in ran.out) == (12, True)

    lose(site)
    recovery.recover(site, {"stable": 3}, Silent())
    drops.activate(site, "stable/3")
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []


def test_what_nobody_signed_makes_no_journal_older(site: Site) -> None:
    folder = site.drops_dir / f"sha256:{'0' * 64}"
    folder.mkdir()
    release = drops.find(site, "stable/3").release
    (folder / "airlift.json").write_bytes((site.drops_dir / release / "airlift.json").read_bytes())
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []


def test_a_bad_copy_of_the_bundle_takes_no_chance_from_the_next(site: Site, tmp_path: Path) -> None:
    site.store.path(digest_of(b"tool of month 2")).unlink()
    lose(site)
    recovery.recover(site, {"stable": 9}, Silent())
    bad = tmp_path / "bad.airlift"
    data = bytearray((tmp_path / "2.airlift").read_bytes())
    data[-9000] ^= 1
    bad.write_bytes(data)
    with pytest.raises(IntegrityError):
        take(site, bad)
    assert not take(site, tmp_path / "2.airlift").drop.active
    assert drops.activate(site, "stable/2").drop.active


def test_the_newest_drop_that_is_left_out_still_sets_the_lowest_sequence(site: Site, tmp_path: Path) -> None:
    site.store.path(digest_of(b"tool of month 3")).write_bytes(b"tool of month X")
    lose(site)
    assert recovery.recover(site, {"stable": 1}, Silent()).sequences == {"stable": 3}
    with pytest.raises(TrustError, match="with another content"):
        take(site, ship(Cargo(), tmp_path / "other.airlift", sequence=3))
    assert take(site, tmp_path / "3.airlift").drop.active
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []


def test_a_site_that_fills_a_registry_is_recovered_too(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
        take(site, month(tmp_path, 1))
        before = names(site)
        lose(site)
        recovery.recover(site, {"stable": 1}, Silent())
        assert names(site) == before
        assert drops.activate(site, "stable/1").drop.active
        assert repair.check(site, progress=Silent(), http=HttpSettings(), is_deep=True) == []


def test_what_prune_keeps_can_be_recovered(site: Site) -> None:
    retention.execute(site, retention.plan(site, 1), Silent())
    before = names(site)
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []
    lose(site)
    assert recovery.recover(site, {"stable": 3}, Silent()).left_out == {}
    assert names(site) == before


def test_nothing_is_pruned_before_a_drop_is_active_again(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
        for number in (1, 2, 3):
            cargo = Cargo()
            cargo.image("docker.io/library/app:1", b"month %d" % number)
            take(site, ship(cargo, tmp_path / f"{number}.airlift", sequence=number))
        planned = retention.plan(site, 1)
        drops.activate(site, "stable/2")
        client = RegistryClient(registry.host, http=HttpClient(HttpSettings(), Silent()), plain_http=True)
        live = client.head("docker.io/library/app", "1")
        lose(site)
        recovery.recover(site, {"stable": 3}, Silent())
        message = "no drop of channel stable is active, so it is not known which one clients use"
        for prune in (lambda: retention.plan(site, 1), lambda: retention.execute(site, planned, Silent())):
            with pytest.raises(UsageError, match=f"^{message}$") as caught:
                prune()
            assert caught.value.hint == ("activate that one first: airlift drops activate --site DIR stable/SEQUENCE")
        assert [drop.sequence for drop in drops.list_drops(site)] == [1, 2, 3]
        drops.activate(site, "stable/2")
        plan = retention.plan(site, 1)
        assert [drops.find(site, release).sequence for release in plan.releases] == [1]
        retention.execute(site, plan, Silent())
        assert live is not None
        assert client.head("docker.io/library/app", "1") == live


def test_a_damaged_index_is_found(site: Site) -> None:
    release = drops.find(site, "stable/3").release
    site.index_path(release).write_bytes(site.index_path(drops.find(site, "stable/2").release).read_bytes())
    (found,) = repair.check(site, progress=Silent(), http=HttpSettings())
    assert found.subject == f"drops/{release}/index.json"
    assert found.problem.startswith("damaged: its digest is not sha256:")


def test_an_inactive_drop_is_mended_although_another_channel_has_its_names_by_now(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", channels=("stable", "edge"))
    old = month(tmp_path, 1)
    take(site, old)
    cargo = Cargo()
    cargo.file("other", b"without the tool")
    take(site, ship(cargo, tmp_path / "2.airlift", sequence=2))
    cargo = Cargo(channel="edge")
    cargo.file("tool", b"tool of edge")
    take(site, ship(cargo, tmp_path / "edge.airlift"))
    site.store.path(digest_of(b"tool of month 1")).unlink()
    ran = airlift("check", "--repair", old, "--site", site.root, home=tmp_path)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "clean: everything is as the drops say"), ran.err
    with pytest.raises(PolicyError, match="channel stable would give other contents to names of another channel"):
        drops.activate(site, "stable/1")
