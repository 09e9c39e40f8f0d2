"""A bundle's file while it is being written: ``.NAME.partial`` until it is complete and durable.

A killed build leaves the part-file; the next build to the same name takes it over, empty.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final

from airlift.errors import StoreError
from airlift.fs import guarded, named, store_error, sync_directory

_FAT_LIMIT: Final = 4 * 1024**3 - 1


class Output:
    """A file that is written at any offset, from any thread."""

    def __init__(self, path: Path, needed: int) -> None:
        """Create the part-file.

        Args:
            path: the final name.
            needed: how many bytes will be written at least.

        Raises:
            StoreError: the directory does not take it, another build writes it, or there is no room for that size.
        """
        self.path = path
        self._part = path.with_name(f".{path.name}.partial")
        with guarded("writing"), named(path):
            if path.is_dir():
                raise StoreError(f"writing {path}: that is a directory")
            self._handle: int | None = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with guarded("writing"), named(path):
                self._claim(needed)
        except StoreError:
            os.close(self._handle)
            self._handle = None
            raise

    def _claim(self, needed: int) -> None:
        handle = self._open_handle()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._taken() from None
        # Between open and lock, another build may have ended and renamed or removed what is open here.
        try:
            there = self._part.stat(follow_symlinks=False)
        except FileNotFoundError:
            raise self._taken() from None
        if not os.path.samestat(there, os.fstat(handle)):
            raise self._taken()
        os.ftruncate(handle, 0)
        try:
            if needed > _FAT_LIMIT:
                # FAT says so at once, and not after the first 4 GiB; elsewhere this is a matter of microseconds.
                os.ftruncate(handle, needed)
                os.ftruncate(handle, 0)
            room = os.fstatvfs(handle)
        except OSError:
            self._part.unlink()
            raise
        free = room.f_bavail * room.f_frsize
        if free < needed:
            self._part.unlink()
            raise store_error(
                "writing", OSError(errno.ENOSPC, f"{needed} bytes are needed, {free} are free", str(self.path))
            )

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data` at an offset.

        Raises:
            StoreError: the disk refuses.
        """
        handle = self._open_handle()
        view = memoryview(data)
        with guarded("writing"), named(self.path):
            while view:
                done = os.pwrite(handle, view, offset)
                offset += done
                view = view[done:]

    def finish(self, size: int) -> None:
        """Make it durable and give it its name.

        Raises:
            StoreError: the disk refuses.
        """
        handle = self._open_handle()
        with guarded("writing"), named(self.path):
            os.ftruncate(handle, size)
            os.fchmod(handle, 0o644)
            os.fsync(handle)
            self._part.replace(self.path)
            sync_directory(self.path.parent)
        os.close(handle)
        self._handle = None

    def abort(self) -> None:
        """Remove the part-file; nothing happens after `finish` or a second time."""
        if self._handle is None:
            return
        with contextlib.suppress(OSError):
            self._part.unlink()
        os.close(self._handle)
        self._handle = None

    def _open_handle(self) -> int:
        if self._handle is None:
            raise StoreError(f"writing {self.path}: the build has ended")
        return self._handle

    def _taken(self) -> StoreError:
        return StoreError(f"writing {self.path}: another build is writing it")
