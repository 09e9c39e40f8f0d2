"""The journal's file: how it is opened, also by who may only read it, and SQLite's errors in our words.

SQLite wants to write beside a journal that it only reads. Where it cannot (the disk is mounted read-only, or the user
may not), the file is read as one that nobody changes; that holds only while no write-ahead log has content, and whether
it held is looked at afterwards. One with content is read by the index beside it, as the process has it that writes, or
had it that was killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from airlift import fs
from airlift.errors import StoreError
from airlift.site.reserve import spare

VERSION: Final = 1

_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
_LOST: Final = "restore it from a backup, or move what is left of it away and run airlift site recover"
_TIMEOUT_S: Final = 30
_ATTEMPTS: Final = 10
"""Changes in a row that one question is asked again for."""

_Stamp = tuple[tuple[int, int, int], int]


@contextlib.contextmanager
def failures(path: Path) -> Iterator[None]:
    """Let SQLite's errors out as `StoreError`."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        hint = None
        if code == sqlite3.SQLITE_CANTOPEN and path.parent.is_dir() and not path.exists():
            raise StoreError(f"the journal {path} is not there", hint=_LOST) from error
        if code in _FULL:
            hint = fs.store_error("", OSError(errno.ENOSPC, "")).hint
        elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
            hint = "check that the disk is mounted writable, and the owner and mode of the directory"
        elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            hint = f"the journal is damaged; {_LOST}"
        raise StoreError(f"the journal {path}: {error}", hint=hint) from error


def create(path: Path, schema: str) -> None:
    """Make an empty journal, for everybody to read who gets to it, whatever the umask.

    Args:
        path: where; nothing is there.
        schema: statements that make its tables.

    Raises:
        StoreError: the disk refuses.
    """
    with failures(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.executescript(f"BEGIN; {schema} PRAGMA user_version={VERSION}; COMMIT;")
    with fs.guarded("creating"):
        path.chmod(0o644)


class _Still(sqlite3.Connection):
    """Reads a file that SQLite takes for one that nobody changes."""

    opened: tuple[Path, _Stamp] | None = None

    def close(self) -> None:
        """Close it.

        Raises:
            StoreError: somebody did change it: what was read may be neither the old nor the new.
        """
        super().close()
        if self.opened is not None:
            path, stamp = self.opened
            self.opened = None
            if _look(path) != stamp:
                raise StoreError(f"the journal {path} was changed while it was read", hint="run the same command again")


def connect(path: Path) -> sqlite3.Connection:
    """Open a journal of this version; for reading alone where its directory cannot be written.

    Raises:
        StoreError: it is missing, damaged, of another version, or cannot be read.
    """
    stamp, is_still = _look(path), _is_still(path)
    db = _open(path, is_reader=False, is_still=is_still, factory=_Still if is_still else sqlite3.Connection)
    if isinstance(db, _Still):
        db.opened = path, stamp
    return db


def _open(
    path: Path, *, is_reader: bool, is_still: bool, factory: type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    mode = "ro&immutable=1" if is_still else "ro" if is_reader else "rw"
    with failures(path):
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=_TIMEOUT_S,
            check_same_thread=not is_reader,
            factory=factory,
        )
    try:
        _check_version(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    with failures(path):
        version = db.execute("PRAGMA user_version").fetchone()[0]
    if not version:
        # Every journal is made with its version in one transaction: this is an empty file, or what is left of one.
        raise StoreError(f"the journal {path} is damaged or empty: it has no version", hint=_LOST)
    if version != VERSION:
        raise StoreError(
            f"the journal {path} is of version {version}, this airlift works with {VERSION}",
            hint="update airlift on this side" if version > VERSION else None,
        )


def _is_still(path: Path) -> bool:
    """Say whether the file is whole by itself where nothing can be written.

    Raises:
        StoreError: nothing can be written, and what was written last cannot be read so.
    """
    log = path.with_name(f"{path.name}-wal")
    with fs.guarded("reading"):
        if not path.exists() or (not os.statvfs(path).f_flag & os.ST_RDONLY and os.access(path.parent, os.W_OK)):
            return False
        if not _size(log):
            return True
    if not path.with_name(f"{path.name}-shm").exists():
        raise StoreError(
            f"the journal {path} was not closed: its last changes are in {log.name}, and they cannot be read where"
            " nothing can be written",
            hint="run airlift status once as who may write there, on a disk that is mounted writable: it puts them into"
            " their place; or copy the site",
        )
    return False


def _look(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0, 0), 0
    return (found.st_ino, found.st_size, found.st_mtime_ns), _size(path.with_name(f"{path.name}-wal"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class Reader:
    """Asks a journal; not for several threads at once.

    SQLite sees what others write by the index beside the file. Where there is none, since the disk is mounted
    read-only, the file may still be written through another mount: it is looked at before and after each question.

    A file that takes the place of the one that was opened (`airlift site recover` makes one) is read from then on.
    While there is none, the one that was opened is.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            StoreError: it cannot be read, or is of another version.
        """
        self._path = path
        self._opened = 0
        self._is_still = False
        self._stamp: _Stamp = (0, 0, 0), 0
        self._db = self._connect()

    def close(self) -> None:
        """Close it; safe to repeat."""
        self._db.close()

    def all(self, statement: str, *values: object) -> list[Any]:
        """Return all rows of one consistent state.

        Raises:
            StoreError: the journal cannot be read.
        """
        for _ in range(_ATTEMPTS):
            self._follow()
            try:
                with failures(self._path):
                    rows = self._db.execute(statement, values).fetchall()
            except StoreError:
                if self._is_current():
                    raise
                continue
            if self._is_current():
                return rows
        raise StoreError(f"the journal {self._path} changes all the time")

    def version(self) -> tuple[int, int]:
        """Return what is another value after every change."""
        data_version = int(self.all("PRAGMA data_version")[0][0])
        return self._opened, data_version

    def _follow(self) -> None:
        """Open it once more when it is another file than it was."""
        if not self._is_current():
            db = self._connect()
            self._db.close()
            self._db = db

    def check(self) -> None:
        """Look whether the journal could be opened right now.

        Raises:
            StoreError: it is gone, damaged, or cannot be read.
        """
        _open(self._path, is_reader=True, is_still=_is_still(self._path)).close()

    def _is_current(self) -> bool:
        if self._is_still:
            return self._stamp == _look(self._path)
        return self._inode() in (0, self._stamp[0][0])

    def _connect(self) -> sqlite3.Connection:
        stamp = _look(self._path)
        is_still = _is_still(self._path)
        with spare(self._path.parent):
            db = _open(self._path, is_reader=True, is_still=is_still)
        self._stamp, self._is_still = stamp, is_still
        self._opened += 1
        return db

    def _inode(self) -> int:
        try:
            return self._path.stat().st_ino
        except OSError:
            # What is open can be read all the same; `check` tells.
            return 0
