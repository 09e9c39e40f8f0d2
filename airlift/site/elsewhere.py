"""What external mirrors have of a site's drops, as far as only the site's own journal can tell.

* Which mirrors were given which drop: site.yaml may name others by now.
* What the drops that were pruned still have in a registry: a prune that was cut short there has forgotten the drops.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from airlift import canonical, limits
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.digest import parse as parse_digest
from airlift.site.journal_file import failures
from airlift.site.listing import Service

TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS given (
  release TEXT NOT NULL, service TEXT NOT NULL, mirror TEXT NOT NULL, whole INTEGER NOT NULL,
  PRIMARY KEY (release, service, mirror)
) STRICT, WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS doomed (
  number INTEGER PRIMARY KEY, registry TEXT NOT NULL, repository TEXT NOT NULL, digest TEXT NOT NULL,
  item TEXT NOT NULL, UNIQUE (registry, repository, digest)
) STRICT""",
    "CREATE TABLE IF NOT EXISTS leaving (release TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
)
"""Those of a journal of before are made when they are needed first."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """A manifest in the registry that goes.

    Attributes:
        repository: where.
        digest: which.
        tags: those that the pruned drops gave it; they go with it.
        subject: what it refers to, or None.
    """

    repository: str
    digest: Digest
    tags: tuple[str, ...] = ()
    subject: Digest | None = None

    @property
    def place(self) -> tuple[str, Digest]:
        """Where it is."""
        return self.repository, self.digest

    def to_json(self) -> JsonObject:
        """Return it as part of a plan."""
        value: JsonObject = {"repository": self.repository, "digest": self.digest, "tags": list(self.tags)}
        return value if self.subject is None else {**value, "subject": self.subject}


def read_doomed(value: Mapping[str, Any]) -> Doomed:
    """Read what `Doomed.to_json` made.

    Raises:
        KeyError, TypeError, IntegrityError: it is something else.
    """
    subject = value.get("subject")
    return Doomed(
        str(value["repository"]),
        parse_digest(value["digest"]),
        tuple(str(tag) for tag in value["tags"]),
        None if subject is None else parse_digest(subject),
    )


def merged(earlier: Iterable[Doomed], now: Iterable[Doomed]) -> tuple[Doomed, ...]:
    """Return what is in either, each manifest once with all its tags, in the order of `now` where both have it."""
    tags: dict[tuple[str, Digest], set[str]] = defaultdict(set)
    items: dict[tuple[str, Digest], Doomed] = {}
    for item in (*earlier, *now):
        tags[item.place].update(item.tags)
        items.pop(item.place, None)
        items[item.place] = item
    return tuple(replace(item, tags=tuple(sorted(tags[place]))) for place, item in items.items())


class Elsewhere:
    """A part of a journal that is open. What changes something is called inside a transaction of the journal."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def give(self, releases: Iterable[str], mirrors: Iterable[tuple[Service, str]], *, whole: bool = False) -> None:
        """Note that mirrors get something of drops from now on, or have them whole with the names that clients see."""
        known = list(mirrors)
        self._begin(known)
        for release in releases:
            for service, mirror in known:
                self._run(
                    "INSERT INTO given VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET whole = max(whole, excluded.whole)",
                    release,
                    service.value,
                    mirror,
                    int(whole),
                )

    def given(self, release: str) -> dict[tuple[Service, str], bool]:
        """Return the mirrors that got something of a drop, and whether they were given all of it."""
        if not self._is_begun():
            return {}
        rows = self._all("SELECT service, mirror, whole FROM given WHERE release = ?", release)
        return {(Service(service), mirror): bool(whole) for service, mirror, whole in rows}

    def has_all(self, release: str, mirrors: Iterable[tuple[Service, str]]) -> bool:
        """Say whether these mirrors were given all of a drop; of a journal of before nobody knows, and it is so."""
        given = self.given(release)
        return not self._is_begun() or all(given.get(mirror, False) for mirror in mirrors)

    def forget(self, releases: Iterable[str], registry: str, doomed: Iterable[Doomed]) -> None:
        """Note what pruned drops still have, here below ``drops/`` and in a registry."""
        self._begin(())
        for release in releases:
            self._run("DELETE FROM given WHERE release = ?", release)
            self._run("INSERT OR IGNORE INTO leaving VALUES (?)", release)
        self._owe(registry, merged(self.doomed(registry), doomed))

    def leaving(self) -> list[str]:
        """Return the pruned drops of which something may still be kept below ``drops/``."""
        return [row[0] for row in self._all("SELECT release FROM leaving ORDER BY release")] if self._is_begun() else []

    def left(self, releases: Iterable[str]) -> None:
        """Note that nothing of these drops is below ``drops/`` any more, or that they came back."""
        for release in releases:
            self._run("DELETE FROM leaving WHERE release = ?", release)

    def doomed(self, registry: str) -> tuple[Doomed, ...]:
        """Return what is still to be deleted in a registry, parents before their children.

        Raises:
            StoreError: the journal cannot be read.
            BundleError, IntegrityError: it was changed by hand.
        """
        rows = (
            self._all("SELECT item FROM doomed WHERE registry = ? ORDER BY number", registry)
            if self._is_begun()
            else ()
        )
        return tuple(
            read_doomed(canonical.decode(row[0].encode(), limit=limits.SMALL_BLOB, subject=str(self._path)))
            for row in rows
        )

    def settle(self, registry: str, places: Iterable[tuple[str, Digest]]) -> None:
        """Note that nothing is to be deleted at these places any more."""
        for repository, digest in places:
            self._run(
                "DELETE FROM doomed WHERE registry = ? AND repository = ? AND digest = ?", registry, repository, digest
            )

    def _owe(self, registry: str, doomed: Iterable[Doomed]) -> None:
        self._run("DELETE FROM doomed WHERE registry = ?", registry)
        for item in doomed:
            self._run(
                "INSERT INTO doomed (registry, repository, digest, item) VALUES (?,?,?,?)",
                registry,
                item.repository,
                item.digest,
                canonical.encode(item.to_json()).decode(),
            )

    def _is_begun(self) -> bool:
        return bool(self._all("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'given'"))

    def _begin(self, mirrors: Iterable[tuple[Service, str]]) -> None:
        """Journals of before have no such tables: of their drops the mirrors of now have had all."""
        if self._is_begun():
            return
        for table in TABLES:
            self._run(table)
        for service, mirror in mirrors:
            self._run(
                "INSERT INTO given SELECT release, ?, ?, 1 FROM releases WHERE state = 'ready'", service.value, mirror
            )

    def _all(self, statement: str, *values: Any) -> list[Any]:
        with failures(self._path):
            return self._db.execute(statement, values).fetchall()

    def _run(self, statement: str, *values: Any) -> None:
        with failures(self._path):
            self._db.execute(statement, values)
