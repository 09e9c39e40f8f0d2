"""What was done to a site, in order: a chain of entries in its journal, each of them written with what it tells of.

Every entry has the digest of itself and of the one before it. So who wrote the last digest down on paper sees later
whether anything up to there was changed, left out or put in between. See docs/decisions/0008 for what that proves.

There is an entry for each thing that a person did, and so there are few. Refusals cost their sender nothing: the same
one is noted once, and at most `MOST_REFUSALS` are, until something else is done.
"""

from __future__ import annotations

import itertools
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airlift import canonical
from airlift import digest as digests
from airlift.errors import IntegrityError, StoreError
from airlift.site.journal_file import failures
from airlift.trust.fields import format_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

IMPORTED: Final = "imported"
FOUND: Final = "found again"
ACTIVATED: Final = "activated"
ROLLED_BACK: Final = "rolled back"
DEACTIVATED: Final = "deactivated"
PRUNED: Final = "pruned"
GIVEN_UP: Final = "given up"
PINNED: Final = "trust pinned"
RECOVERED: Final = "recovered"
REPAIRED: Final = "repaired"
REFUSED: Final = "refused"

MOST_REFUSALS: Final = 100
_LAST: Final = 2**53 - 2
_DETAIL: Final = 300
"""Characters that are kept of a message."""

_TABLE: Final = """CREATE TABLE IF NOT EXISTS history (
  number INTEGER PRIMARY KEY, time TEXT NOT NULL, what TEXT NOT NULL, channel TEXT NOT NULL, sequence INTEGER NOT NULL,
  release TEXT NOT NULL, detail TEXT NOT NULL, digest TEXT NOT NULL
) STRICT"""
_COLUMNS: Final = "number, time, what, channel, sequence, release, detail, digest"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was done.

    Attributes:
        number: from 1 on, without gaps.
        time: when, RFC 3339; empty where there was no clock.
        what: one of the words above.
        channel, sequence, release: of which drop; empty, or 0, where it was of none.
        detail: who signed what was imported, the fingerprint that was pinned, why something was refused, and so on.
        digest: of this entry and all before it.
    """

    number: int
    time: str
    what: str
    channel: str
    sequence: int
    release: str
    detail: str
    digest: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what ``--json`` says of it."""
        return {
            "number": self.number,
            "time": self.time,
            "what": self.what,
            "channel": self.channel,
            "sequence": self.sequence,
            "release": self.release,
            "detail": self.detail,
            "digest": self.digest,
        }

    def chained(self, before: str) -> str:
        """Return the digest that it has to have after the one of `before`."""
        return digests.of(canonical.encode(self.to_json() | {"digest": before}))


class History:
    """The entries of a journal that is open.

    Attributes:
        now: the time that entries get; None where there is no clock.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self.now: datetime | None = None

    def note(self, what: str, *, channel: str = "", sequence: int = 0, release: str = "", detail: str = "") -> None:
        """Add an entry. Inside a transaction of the journal.

        Raises:
            StoreError: the disk refuses.
        """
        time = "" if self.now is None else format_time(self.now)
        with failures(self._path):
            # Journals of before have no such table.
            self._db.execute(_TABLE)
            last = self._db.execute("SELECT number, digest FROM history ORDER BY number DESC LIMIT 1").fetchone()
            number, before = last or (0, "")
            if number >= _LAST:
                raise StoreError(
                    f"the history in {self._path} was changed: its last entry has the number {number}",
                    hint="put a state.db from before back, or move it away with its -wal and -shm files and run airlift"
                    " site recover",
                )
            entry = Entry(number + 1, time, what, channel, sequence, release, detail)
            row = (*list(entry.to_json().values())[:-1], entry.chained(before))
            self._db.execute("INSERT INTO history VALUES (?,?,?,?,?,?,?,?)", row)

    def refuse(self, kind: str, message: str = "", *, channel: str = "", sequence: int = 0, release: str = "") -> None:
        """Add that an import was refused, unless that was noted already. Inside a transaction of the journal.

        Args:
            kind: the error's.
            message: what it said; nothing where that may be in the words of an unknown sender.
            channel: of a bundle whose signatures were good.
            sequence: of the same.
            release: of the same.

        Raises:
            StoreError: the disk refuses.
        """
        said = " ".join(message.split()).encode("utf-8", "replace").decode()
        detail = f"{kind}: {said}"[:_DETAIL] if said else kind
        with failures(self._path):
            self._db.execute(_TABLE)
            rows = self._db.execute(
                "SELECT what, channel, sequence, release, detail FROM history ORDER BY number DESC LIMIT ?",
                (MOST_REFUSALS,),
            ).fetchall()
        known = list(itertools.takewhile(lambda row: row[0] == REFUSED, rows))
        if len(known) < MOST_REFUSALS and (REFUSED, channel, sequence, release, detail) not in known:
            self.note(REFUSED, channel=channel, sequence=sequence, release=release, detail=detail)

    def last(self) -> Entry | None:
        """Return the last entry, not verified; None where there is none.

        Raises:
            StoreError: the journal cannot be read.
        """
        with failures(self._path):
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'history'").fetchall():
                return None
            row = self._db.execute(f"SELECT {_COLUMNS} FROM history ORDER BY number DESC LIMIT 1").fetchone()  # noqa: S608 - a literal
        return None if row is None else Entry(*row)

    def entries(self) -> list[Entry]:
        """Return all entries, oldest first, the chain verified.

        Raises:
            StoreError: the journal cannot be read.
            IntegrityError: an entry was changed, left out or put in.
        """
        with failures(self._path):
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'history'").fetchall():
                return []
            found = [Entry(*row) for row in self._db.execute(f"SELECT {_COLUMNS} FROM history ORDER BY number")]  # noqa: S608 - a literal
        _verify(found, self._path)
        return found


def _verify(entries: Iterable[Entry], path: Path) -> None:
    before = ""
    for number, entry in enumerate(entries, 1):
        try:
            expected = entry.chained(before)
        except ValueError:
            # No number that was written here is so large.
            expected = "another entry"
        if entry.number != number or entry.digest != expected:
            raise IntegrityError(
                f"entry {number} of the history in {path}",
                expected=expected,
                actual=entry.digest if entry.number == number else f"entry {entry.number}",
            )
        before = entry.digest
