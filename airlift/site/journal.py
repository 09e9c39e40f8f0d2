"""The site's memory: one SQLite file, durable at every commit.

What a drop is on its way through: ``staging`` (its bytes are coming; nothing of it is visible), ``verified`` (every
byte was right; an external registry is being filled), ``ready`` (complete; its digests are served and it may be
activated). A kill leaves one of these states, and a re-run goes on from it. Names are never moved one by one: a
channel points at its active release, so that activation is one update.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from airlift.digest import Digest
from airlift.site import history
from airlift.site.elsewhere import TABLES, Elsewhere
from airlift.site.history import History
from airlift.site.journal_file import connect, create, failures
from airlift.site.listing import Held, Name, Service, part_of

STAGING: Final = "staging"
VERIFIED: Final = "verified"
READY: Final = "ready"

_SCHEMA: Final = """
CREATE TABLE releases (
  release TEXT PRIMARY KEY, channel TEXT NOT NULL, sequence INTEGER NOT NULL, state TEXT NOT NULL,
  content_id TEXT NOT NULL, name TEXT NOT NULL, config TEXT NOT NULL, artifacts INTEGER NOT NULL, imported TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE channels (
  channel TEXT PRIMARY KEY, sequence INTEGER NOT NULL, release TEXT NOT NULL, active TEXT, pending TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE names (
  release TEXT NOT NULL, service TEXT NOT NULL, key TEXT NOT NULL, part TEXT NOT NULL, digest TEXT NOT NULL,
  value TEXT NOT NULL, PRIMARY KEY (release, service, key, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_key ON names (service, key);
CREATE TABLE held (
  release TEXT NOT NULL, service TEXT NOT NULL, scope TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
  media_type TEXT NOT NULL, subject TEXT, facts TEXT NOT NULL, PRIMARY KEY (service, scope, digest, release)
) STRICT, WITHOUT ROWID;
CREATE INDEX held_by_release ON held (release);
CREATE INDEX held_by_subject ON held (service, scope, subject) WHERE subject IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Drop:
    """A release that the site knows.

    Attributes:
        release: its digest.
        channel, sequence: as signed.
        state: `STAGING`, `VERIFIED` or `READY`.
        content_id: digest of its ``index.json``.
        name: the manifest's ``metadata.name``.
        config: digest of the drop's config blob.
        artifacts: how many it has.
        imported: when its import began, RFC 3339.
        active: whether clients see its names.
        pending: whether its tags were moving in an external registry, and it is not known that they all have.
    """

    release: str
    channel: str
    sequence: int
    state: str
    content_id: Digest
    name: str
    config: Digest
    artifacts: int
    imported: str
    active: bool
    pending: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` says of it."""
        return {
            "channel": self.channel,
            "sequence": self.sequence,
            "release": self.release,
            "content_id": self.content_id,
            "name": self.name,
            "artifacts": self.artifacts,
            "state": self.state,
            "imported": self.imported,
            "active": self.active,
            "pending": self.pending,
        }


@dataclass(frozen=True, slots=True)
class Clash:
    """A name that another channel's active drop gives to another digest."""

    service: Service
    key: str
    part: str
    digest: Digest
    channel: str


_ON_PURPOSE: Final = ""
"""In place of an active release: none is wanted. NULL is where none was chosen yet."""


class Journal:
    """Read and write access; one writer at a time (the importer's lock sees to it). Use it as a context manager.

    On a disk that is mounted read-only it can be read, and every write is refused.

    Attributes:
        history: what was done, in order.
        elsewhere: what external mirrors have.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            StoreError: it is missing, damaged, of another version, or cannot be read.
        """
        self.path = path
        self._db = connect(path)
        self.history = History(self._db, path)
        self.elsewhere = Elsewhere(self._db, path)
        try:
            with failures(path):
                self._db.execute("PRAGMA synchronous=FULL")
        except BaseException:
            self._db.close()
            raise

    @staticmethod
    def create(path: Path) -> None:
        """Make an empty journal.

        Raises:
            StoreError: the disk refuses.
        """
        create(path, f"{_SCHEMA} {'; '.join(TABLES)};")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; safe to repeat."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside becomes durable together, or nothing does.

        Raises:
            StoreError: the disk refuses.
        """
        with failures(self.path):
            self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            with failures(self.path):
                self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def pin(self, fingerprint: str) -> None:
        """Note whom the site believes, in place of what was noted before."""
        with self.transaction():
            # Journals of before have no such table.
            self._run("CREATE TABLE IF NOT EXISTS trust (fingerprint TEXT NOT NULL) STRICT")
            self._run("DELETE FROM trust")
            self._run("INSERT INTO trust VALUES (?)", fingerprint)
            self.history.note(history.PINNED, detail=fingerprint)

    def pinned(self) -> str | None:
        """Return the fingerprint of the trust file that was pinned; None where that was never noted."""
        if not self._all("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'trust'"):
            return None
        return next((str(row[0]) for row in self._all("SELECT fingerprint FROM trust")), None)

    def seen(self) -> dict[str, tuple[int, str]]:
        """Return per channel the highest accepted sequence and its release."""
        return {row[0]: (row[1], row[2]) for row in self._all("SELECT channel, sequence, release FROM channels")}

    def drops(self) -> list[Drop]:
        """Return every release, by channel and sequence."""
        return [_drop(row) for row in self._all(f"{_DROPS} ORDER BY r.channel, r.sequence")]

    def drop(self, release: str) -> Drop | None:
        """Return one release."""
        rows = self._all(f"{_DROPS} WHERE r.release = ?", release)
        return _drop(rows[0]) if rows else None

    def is_settled(self, drop: Drop) -> bool:
        """Say whether clients see exactly this release: it is active, and no tags are on their way to or from it."""
        rows = self._all(
            "SELECT active IS ? AND pending IS NULL FROM channels WHERE channel = ?", drop.release, drop.channel
        )
        return bool(rows and rows[0][0])

    def stage(self, drop: Drop) -> None:
        """Note that a release's bytes are coming. Its `state` and `active` are not looked at."""
        with self.transaction():
            self._run(
                "INSERT OR REPLACE INTO releases VALUES (?,?,?,?,?,?,?,?,?)",
                drop.release,
                drop.channel,
                drop.sequence,
                STAGING,
                drop.content_id,
                drop.name,
                drop.config,
                drop.artifacts,
                drop.imported,
            )

    def accept(self, drop: Drop) -> None:
        """Note that every byte of a release was right: from now on nothing older is accepted. Inside `transaction`.

        A ready release stays ready: a bundle that mends it takes nothing away from clients, not even for a while.
        """
        self._run(
            "UPDATE releases SET state = CASE state WHEN ? THEN state ELSE ? END, name = ?, config = ?"
            " WHERE release = ?",
            READY,
            VERIFIED,
            drop.name,
            drop.config,
            drop.release,
        )
        self._run(
            "INSERT INTO channels VALUES (?,?,?,NULL,NULL) ON CONFLICT (channel) DO UPDATE"
            " SET sequence = excluded.sequence, release = excluded.release WHERE excluded.sequence >= sequence",
            drop.channel,
            drop.sequence,
            drop.release,
        )

    def bound(self, channel: str, sequence: int, release: str = "") -> None:
        """Accept nothing of a channel at or below a sequence, but for the release of it. Inside `transaction`."""
        self._run(
            "INSERT INTO channels VALUES (?,?,?,NULL,NULL) ON CONFLICT (channel) DO UPDATE"
            " SET sequence = excluded.sequence, release = excluded.release WHERE excluded.sequence > sequence",
            channel,
            sequence,
            release,
        )

    def publish(
        self, drop: Drop, names: Iterable[Name], held: Iterable[Held], *, how: str = history.IMPORTED, detail: str = ""
    ) -> None:
        """Serve a release's digests and make it ready for activation, as the history says. Inside `transaction`."""
        if (known := self.drop(drop.release)) is None or known.state != READY:
            self._note(how, drop, detail)
        self._run("DELETE FROM names WHERE release = ?", drop.release)
        self._run("DELETE FROM held WHERE release = ?", drop.release)
        with failures(self.path):
            self._db.executemany(
                "INSERT OR REPLACE INTO names VALUES (?,?,?,?,?,?)",
                (
                    (drop.release, item.service, item.key, part_of(item), item.value["digest"], _json(item.value))
                    for item in names
                ),
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO held VALUES (?,?,?,?,?,?,?,?)",
                (
                    (
                        drop.release,
                        item.service,
                        item.scope,
                        item.digest,
                        item.size,
                        item.media_type,
                        item.subject,
                        _json(item.facts),
                    )
                    for item in held
                ),
            )
        self._run("UPDATE releases SET state = ? WHERE release = ?", READY, drop.release)

    def activate(self, drop: Drop) -> None:
        """Show a ready release's names in place of its channel's present one. Inside `transaction`."""
        before = next((one for one in self.drops() if one.channel == drop.channel and one.active), None)
        if before is None or before.sequence < drop.sequence:
            self._note(history.ACTIVATED, drop)
        elif before.release != drop.release:
            self._note(history.ROLLED_BACK, drop, f"from {before.channel}/{before.sequence}")
        self._run("UPDATE channels SET active = ?, pending = NULL WHERE channel = ?", drop.release, drop.channel)

    def deactivate(self, channel: str) -> None:
        """Show no names of a channel, on purpose. Inside `transaction`."""
        self.history.note(history.DEACTIVATED, channel=channel)
        self._run("UPDATE channels SET active = ?, pending = NULL WHERE channel = ?", _ON_PURPOSE, channel)

    def deactivated(self) -> set[str]:
        """Return the channels of which clients see nothing on purpose; after a recovery nobody knows what they see."""
        return {row[0] for row in self._all("SELECT channel FROM channels WHERE active = ?", _ON_PURPOSE)}

    def announce(self, drop: Drop) -> None:
        """Note that an external registry's tags begin to move to a ready release. Inside `transaction`."""
        self._run("UPDATE channels SET pending = ? WHERE channel = ?", drop.release, drop.channel)

    def forget(self, release: str) -> None:
        """Forget a release that never became ready. Inside `transaction`."""
        self._run("DELETE FROM releases WHERE release = ? AND state = ?", release, STAGING)

    def withdraw(self, release: str) -> None:
        """Forget a release that no client sees; its sequence stays the lowest bound. Inside `transaction`."""
        if (known := self.drop(release)) is not None and not known.active and not known.pending:
            self._note(history.PRUNED if known.state == READY else history.GIVEN_UP, known)
        for table in ("names", "held", "releases"):
            self._run(
                f"DELETE FROM {table} WHERE release = ? AND release NOT IN"  # noqa: S608 - the three names above
                " (SELECT active FROM channels WHERE active IS NOT NULL"
                " UNION SELECT pending FROM channels WHERE pending IS NOT NULL)",
                release,
            )

    def clashes(self, channel: str, names: Iterable[Name]) -> Iterator[Clash]:
        """Yield the names that an active drop of another channel gives to another digest."""
        given = {(name.service.value, name.key, part_of(name)): str(name.value["digest"]) for name in names}
        # What clients see of the others, once: it does not grow with the drops that are kept.
        with failures(self.path):
            rows = self._db.execute(
                "SELECT n.service, n.key, n.part, n.digest, c.channel FROM channels c CROSS JOIN names n"
                " ON n.release = c.active WHERE c.channel <> ? ORDER BY c.channel, n.service, n.key, n.part",
                (channel,),
            )
            for service, key, part, digest, other in rows:
                if given.get((service, key, part), digest) != digest:
                    yield Clash(Service(service), key, part, Digest(digest), other)

    def names_of(self, release: str) -> list[Name]:
        """Return the names of a ready release."""
        rows = self._all("SELECT service, key, value FROM names WHERE release = ?", release)
        return [Name(Service(service), key, json.loads(value)) for service, key, value in rows]

    def held_blobs(self, release: str) -> list[tuple[Digest, int]]:
        """Return digest and size of what a ready release holds in the store."""
        rows = self._all("SELECT DISTINCT digest, size FROM held WHERE release = ?", release)
        return [(Digest(digest), size) for digest, size in rows]

    def served_of(self, release: str) -> set[tuple[str, str, str]]:
        """Return service, scope and digest of what a ready release serves by digest."""
        return {tuple(row) for row in self._all("SELECT service, scope, digest FROM held WHERE release = ?", release)}

    def active_names(self, channel: str) -> list[Name]:
        """Return the names of a channel's active release; none where there is none."""
        return [
            name
            for drop in self.drops()
            if drop.active and drop.channel == channel
            for name in self.names_of(drop.release)
        ]

    def _note(self, what: str, drop: Drop, detail: str = "") -> None:
        self.history.note(what, channel=drop.channel, sequence=drop.sequence, release=drop.release, detail=detail)

    def _all(self, statement: str, *values: Any) -> list[Any]:
        with failures(self.path):
            return self._db.execute(statement, values).fetchall()

    def _run(self, statement: str, *values: Any) -> None:
        with failures(self.path):
            self._db.execute(statement, values)


_DROPS: Final = (
    "SELECT r.release, r.channel, r.sequence, r.state, r.content_id, r.name, r.config, r.artifacts, r.imported,"
    " c.active IS r.release, c.pending IS r.release FROM releases r LEFT JOIN channels c ON c.channel = r.channel"
)


def _drop(row: tuple[Any, ...]) -> Drop:
    release, channel, sequence, state, content_id, name, config, artifacts, imported, active, pending = row
    return Drop(
        release, channel, sequence, state, content_id, name, config, artifacts, imported, bool(active), bool(pending)
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, separators=(",", ":"))
