"""What servers ask: names of the active drops, digests of the kept ones. Nothing is remembered between calls.

Every call is one statement, so one consistent view: an import or activation that happens meanwhile is seen whole or
not at all.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from airlift import fs
from airlift.digest import Digest
from airlift.errors import StoreError
from airlift.site.journal_file import Reader
from airlift.site.listing import Held, Service
from airlift.store import Store

_NAMES: Final = "FROM channels c CROSS JOIN names n ON n.release = c.active WHERE n.service = ?"
"""CROSS, since else SQLite may go through the names of all kept drops, and for each of them through all channels."""

_ANY_CONFIG: Final = "SELECT r.config FROM releases r JOIN channels c ON c.active = r.release LIMIT 1"
_HELD: Final = "SELECT DISTINCT service, scope, digest, size, media_type, subject, facts FROM held WHERE service = ?"


class Catalog:
    """The read side of the journal, and the store's files. Safe to share between threads."""

    def __init__(self, journal: Path, store: Store) -> None:
        """Open it.

        Raises:
            StoreError: the journal cannot be read, or is of another version.
        """
        self._store = store
        self._lock = threading.Lock()
        self._journal = Reader(journal)

    def close(self) -> None:
        """Close it; safe to repeat."""
        with self._lock:
            self._journal.close()

    def names(self, service: Service, key: str) -> list[Mapping[str, Any]]:
        """Return what the active drops say of a name: nothing, or one value per file, version or branch."""
        rows = self._all(f"SELECT DISTINCT n.part, n.value {_NAMES} AND n.key = ? ORDER BY n.part", service, key)
        return [json.loads(value) for _, value in rows]

    def keys(self, service: Service) -> list[str]:
        """Return all names of the active drops, sorted."""
        return [row[0] for row in self._all(f"SELECT DISTINCT n.key {_NAMES} ORDER BY n.key", service)]

    def all_names(self, service: Service) -> list[tuple[str, Mapping[str, Any]]]:
        """Return all names of the active drops with their values, sorted."""
        rows = self._all(f"SELECT DISTINCT n.key, n.part, n.value {_NAMES} ORDER BY n.key, n.part", service)
        return [(key, json.loads(value)) for key, _, value in rows]

    def tags(self, repository: str) -> list[str]:
        """Return the tags of an OCI repository in the active drops, sorted."""
        # Keys are `repository:tag`, and ';' is the character that follows ':'.
        rows = self._all(
            f"SELECT DISTINCT n.key {_NAMES} AND n.key > ? AND n.key < ? ORDER BY n.key",
            Service.OCI,
            f"{repository}:",
            f"{repository};",
        )
        return [key[len(repository) + 1 :] for (key,) in rows]

    def has_scope(self, service: Service, scope: str) -> bool:
        """Say whether a kept drop holds anything there."""
        return bool(self._all("SELECT 1 FROM held WHERE service = ? AND scope = ? LIMIT 1", service, scope))

    def scopes(self, service: Service) -> list[str]:
        """Return the scopes of the kept drops, sorted."""
        return [row[0] for row in self._all("SELECT DISTINCT scope FROM held WHERE service = ? ORDER BY 1", service)]

    def held(self, service: Service, scope: str, digest: Digest) -> Held | None:
        """Return what a kept drop holds there under this digest."""
        rows = self._all(f"{_HELD} AND scope = ? AND digest = ? LIMIT 1", service, scope, digest)
        return _held(rows[0]) if rows else None

    def held_all(self, service: Service, scope: str) -> list[Held]:
        """Return all that kept drops hold there."""
        return [_held(row) for row in self._all(f"{_HELD} AND scope = ? ORDER BY digest", service, scope)]

    def referrers(self, scope: str, subject: Digest) -> list[Held]:
        """Return the manifests of an OCI repository that refer to `subject`."""
        rows = self._all(f"{_HELD} AND scope = ? AND subject = ? ORDER BY digest", Service.OCI, scope, subject)
        return [_held(row) for row in rows]

    def generation(self) -> dict[str, str]:
        """Return the active release of each channel."""
        return dict(self._all("SELECT channel, active FROM channels WHERE active <> '' ORDER BY channel"))

    def unreadable(self) -> dict[str, str]:
        """Look whether store and journal are there and can be read, without looking at everything.

        Returns:
            ``store`` or ``state.db`` to what is wrong with it; empty where nothing is.
        """
        found = {}
        try:
            with self._lock:
                self._journal.check()
                configs = self._journal.all(_ANY_CONFIG)
        except StoreError as error:
            configs = []
            found["state.db"] = error.message
        try:
            self._store.check()
            for (config,) in configs:
                # A disk that is not mounted may leave an empty directory.
                with self._store.open(config) as stream, fs.guarded("reading"):
                    stream.read(1)
        except StoreError as error:
            found["store"] = error.message
        return found

    def version(self) -> tuple[int, int]:
        """Return what is another value after every change of the journal."""
        with self._lock:
            return self._journal.version()

    def path(self, digest: Digest) -> Path:
        """Return a blob's file."""
        return self._store.path(digest)

    def read(self, digest: Digest, *, limit: int) -> bytes:
        """Return a small blob, checked again.

        Raises:
            StoreError: it is not here or larger than `limit`.
            IntegrityError: it is damaged.
        """
        return self._store.read(digest, limit=limit)

    def _all(self, statement: str, *values: object) -> list[Any]:
        with self._lock:
            return self._journal.all(statement, *values)


def _held(row: tuple[Any, ...]) -> Held:
    service, scope, digest, size, media_type, subject, facts = row
    return Held(Service(service), scope, digest, size, media_type, subject, json.loads(facts))
