"""Names of active drops, digests of kept ones."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from airlift import digest as digests
from airlift.errors import StoreError
from airlift.site.catalog import Catalog
from airlift.site.journal import READY, Drop, Journal
from airlift.site.journal_file import VERSION
from airlift.site.listing import Held, Listing, Name, Service
from airlift.store import Store
from tests.support.sites import drop, journal_of, publish

ONE, TWO = digests.of(b"one"), digests.of(b"two")


def shows(digest: digests.Digest, *, key: str = "k3s") -> Listing:
    return Listing(
        (Name(Service.FILES, key, {"digest": digest, "size": 3}),),
        (Held(Service.FILES, key, digest, 3, "application/octet-stream"),),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return journal_of(tmp_path / "state.db")


@pytest.fixture
def catalog(path: Path, tmp_path: Path) -> Catalog:
    return Catalog(path, Store(tmp_path / "store"))


def test_a_ready_drop_shows_digests_and_no_names(path: Path, catalog: Catalog) -> None:
    publish(path, [shows(ONE)], active=False)
    assert catalog.names(Service.FILES, "k3s") == []
    held = catalog.held(Service.FILES, "k3s", ONE)
    assert held is not None
    assert held.size == 3


def test_activation_moves_names_and_keeps_digests(path: Path, catalog: Catalog) -> None:
    first = publish(path, [shows(ONE)], drop(1))
    publish(path, [shows(TWO)], drop(2))
    assert catalog.names(Service.FILES, "k3s") == [{"digest": TWO, "size": 3}]
    assert catalog.held(Service.FILES, "k3s", ONE) is not None
    with Journal(path) as journal, journal.transaction():
        journal.activate(first)
    assert catalog.names(Service.FILES, "k3s") == [{"digest": ONE, "size": 3}]
    assert catalog.held(Service.FILES, "k3s", TWO) is not None


def test_the_union_of_channels_is_seen(path: Path, catalog: Catalog) -> None:
    publish(path, [shows(ONE)], drop(1))
    publish(path, [shows(TWO, key="tool")], drop(1, channel="edge"))
    assert catalog.keys(Service.FILES) == ["k3s", "tool"]
    assert [key for key, _ in catalog.all_names(Service.FILES)] == ["k3s", "tool"]


def test_the_same_value_in_two_channels_is_seen_once(path: Path, catalog: Catalog) -> None:
    publish(path, [shows(ONE)], drop(1))
    publish(path, [shows(ONE)], drop(1, channel="edge"))
    assert len(catalog.names(Service.FILES, "k3s")) == 1
    assert len(catalog.held_all(Service.FILES, "k3s")) == 1


def test_a_clash_names_the_other_channel(path: Path) -> None:
    publish(path, [shows(ONE)], drop(1))
    with Journal(path) as journal:
        (clash,) = journal.clashes("edge", shows(TWO).names)
        assert (clash.key, clash.digest, clash.channel) == ("k3s", ONE, "stable")
        assert list(journal.clashes("edge", shows(ONE).names)) == []
        assert list(journal.clashes("stable", shows(TWO).names)) == []


def test_what_was_begun_and_not_ended_is_undone(path: Path, catalog: Catalog) -> None:
    publish(path, [shows(ONE)], drop(1))
    second = drop(2)
    with Journal(path) as journal:
        journal.stage(second)
        with pytest.raises(RuntimeError):
            _half(journal, second)
        assert journal.seen()["stable"][0] == 1
    assert catalog.names(Service.FILES, "k3s") == [{"digest": ONE, "size": 3}]
    assert catalog.held(Service.FILES, "k3s", TWO) is None


def test_tags_are_those_of_one_repository(path: Path, catalog: Catalog) -> None:
    names = [Name(Service.OCI, f"docker.io/{key}", {"digest": ONE}) for key in ("a:1", "a:2", "a/b:3", "ab:4")]
    publish(path, [Listing(tuple(names))])
    assert catalog.tags("docker.io/a") == ["1", "2"]


def test_an_older_sequence_does_not_lower_what_was_seen(path: Path) -> None:
    newer = drop(5)
    publish(path, [], newer)
    publish(path, [], drop(3))
    with Journal(path) as journal:
        assert journal.seen() == {"stable": (5, newer.release)}


def test_a_drop_that_is_mended_stays_ready_and_active(path: Path, catalog: Catalog) -> None:
    item = publish(path, [shows(ONE)])
    with Journal(path) as journal:
        with journal.transaction():
            journal.accept(item)
        (known,) = journal.drops()
        assert (known.state, known.active) == (READY, True)
        with journal.transaction():
            journal.forget(item.release)
        assert journal.drops() == [known]


def test_a_channel_is_settled_when_one_drop_is_active_and_no_tags_are_on_their_way(path: Path) -> None:
    first, second = publish(path, [shows(ONE)], drop(1)), publish(path, [shows(TWO)], drop(2), active=False)
    with Journal(path) as journal:
        assert (journal.is_settled(first), journal.is_settled(second)) == (True, False)
        with journal.transaction():
            journal.announce(second)
        assert (journal.is_settled(first), journal.is_settled(second)) == (False, False)
        with journal.transaction():
            journal.activate(second)
        assert (journal.is_settled(first), journal.is_settled(second)) == (False, True)


def test_an_empty_journal_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"")
    for opened in (lambda: Journal(path), lambda: Catalog(path, Store(tmp_path / "store"))):
        with pytest.raises(StoreError) as caught:
            opened()
        assert caught.value.message == f"the journal {path} is damaged or empty: it has no version"
        assert caught.value.hint is not None
        assert "move what is left of it away and run airlift site recover" in caught.value.hint


def test_a_journal_of_another_version_is_refused_by_reader_and_writer(path: Path, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=99")
    message = f"the journal {path} is of version 99, this airlift works with {VERSION}"
    with pytest.raises(StoreError, match=message):
        Catalog(path, Store(tmp_path / "store"))
    with pytest.raises(StoreError, match=message):
        Journal(path)


def _half(journal: Journal, item: Drop) -> None:
    with journal.transaction():
        journal.accept(item)
        journal.publish(item, shows(TWO).names, shows(TWO).held)
        journal.activate(item)
        raise RuntimeError


def test_what_clients_ask_costs_the_same_however_many_drops_are_kept(path: Path, tmp_path: Path) -> None:
    """SQLite's own count of steps, which no other load of the machine changes."""

    def steps() -> int:
        counted = [0]
        catalog = Catalog(path, Store(tmp_path / "store"))

        def count() -> int:
            counted[0] += 1
            return 0

        catalog._journal._db.set_progress_handler(count, 1)
        assert len(catalog.keys(Service.FILES)) == 50
        assert len(catalog.all_names(Service.FILES)) == 50
        assert len(catalog.names(Service.FILES, "file 7")) == 1
        catalog.close()
        return counted[0]

    def month(number: int) -> None:
        publish(path, [shows(ONE if number % 2 else TWO, key=f"file {key}") for key in range(50)], drop(number))

    month(1)
    before = steps()
    for number in range(2, 21):
        month(number)
    assert steps() < 1.5 * before


def test_looking_for_clashes_costs_the_same_however_many_drops_and_channels_are_kept(path: Path) -> None:
    names = [name for key in range(50) for name in shows(ONE, key=f"file {key}").names]

    def steps() -> int:
        counted = [0]

        def count() -> int:
            counted[0] += 1
            return 0

        with Journal(path) as journal:
            journal._db.set_progress_handler(count, 1)
            assert [clash.channel for clash in journal.clashes("edge", names)] == ["stable"]
        return counted[0]

    publish(path, [shows(TWO if key == 7 else ONE, key=f"file {key}") for key in range(50)], drop(1))
    before = steps()
    for number in range(2, 21):
        publish(path, [shows(ONE, key=f"file {key}") for key in range(50)], drop(number), active=False)
        publish(path, [], drop(1, channel=f"channel{number}"))
    assert steps() < 2 * before
