"""What was done to a site, in order: a chain of entries in its journal, each of them written with what it tells of.

Every entry has the digest of itself and of the one before it. So who wrote the last digest down on paper sees later
whether anything up to there was changed, left out or put in between.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airlift import canonical
from airlift import digest as digests
from airlift.errors import IntegrityError
from airlift.site.journal_file import failures
from airlift.trust.fields import format_time

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

IMPORTED: Final = "imported"
FOUND: Final = "found again"
ACTIVATED: Final = "activated"
DEACTIVATED: Final = "deactivated"
PRUNED: Final = "pruned"
GIVEN_UP: Final = "given up"
PINNED: Final = "trust pinned"
RECOVERED: Final = "recovered"

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
        detail: who signed what was imported, or the fingerprint that was pinned.
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
            entry = Entry(number + 1, time, what, channel, sequence, release, detail)
            row = (*list(entry.to_json().values())[:-1], entry.chained(before))
            self._db.execute("INSERT INTO history VALUES (?,?,?,?,?,?,?,?)", row)

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
