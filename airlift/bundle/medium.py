"""A bundle's file on its medium: parts of it, and frames that are read once and past the system's cache.

A bundle may be larger than the memory of the machine that imports it. What is read once does not have to push out of
the cache what the site serves, and is not copied from there. A file that is in the cache is read from it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from airlift.errors import BundleError
from airlift.fs import guarded

_ALIGNMENT: Final = 4096
"""What offset, length and address have to be multiples of; no disk asks for more."""


class Medium:
    """One file that is open for reading. Safe to use from many threads.

    Attributes:
        path: the file.
        size: its bytes.
    """

    def __init__(self, path: Path, *, largest: int) -> None:
        """Open it.

        Args:
            path: the file.
            largest: the most bytes that are asked of `once`.

        Raises:
            BundleError: it is a pipe or a device.
            StoreError: it cannot be read.
        """
        self.path = path
        self._room = largest + 2 * _ALIGNMENT
        self._free: list[memoryview] = []
        with guarded("reading"):
            if not stat.S_ISREG(path.stat().st_mode):
                raise BundleError(
                    f"{path} is no regular file", hint="a bundle is read out of its order; copy it into a file first"
                )
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.size = os.fstat(self._handle).st_size
        self._direct = self._open_direct()

    def _open_direct(self) -> int:
        """Open the same file past the cache; -1 where its file system has no such way, or another file is there now."""
        if self._is_cached():
            return -1
        with contextlib.suppress(OSError):
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            if os.path.sameopenfile(handle, self._handle):
                return handle
            os.close(handle)
        return -1

    def close(self) -> None:
        """Close the file; safe to repeat."""
        for handle in (self._handle, self._direct):
            if handle >= 0:
                os.close(handle)
        self._handle = self._direct = -1

    def read(self, offset: int, size: int) -> bytes:
        """Return a part.

        Raises:
            BundleError: the file ends before.
            StoreError: it cannot be read.
        """
        parts: list[bytes] = []
        with guarded("reading"):
            while size:
                part = os.pread(self._handle, size, offset)
                if not part:
                    raise BundleError(f"{self.path} became shorter while it was read")
                parts.append(part)
                offset += len(part)
                size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with what is at `offset`; see `read`."""
        with guarded("reading"):
            while buffer:
                done = os.preadv(self._handle, [buffer], offset)
                if not done:
                    raise BundleError(f"{self.path} became shorter while it was read")
                offset += done
                buffer = buffer[done:]

    @contextlib.contextmanager
    def once(self, offset: int, size: int) -> Iterator[memoryview]:
        """Give a part that nobody reads again, at most `largest` bytes; it is good inside the block.

        Raises:
            BundleError: the file ends before.
            StoreError: it cannot be read.
        """
        try:
            buffer = self._free.pop()
        except IndexError:
            # Memory of its own pages begins where a page does.
            buffer = memoryview(mmap.mmap(-1, self._room))
        start = offset % _ALIGNMENT
        end = start + size
        try:
            if self._read_direct(buffer[: -(-end // _ALIGNMENT) * _ALIGNMENT], offset - start, end):
                yield buffer[start:end]
            else:
                self.read_into(buffer[:size], offset)
                yield buffer[:size]
        finally:
            self._free.append(buffer)

    def _is_cached(self) -> bool:
        """Say whether it is in the cache, as after a copy or a verification just now; its middle is by a preflight."""
        with contextlib.suppress(OSError):
            return os.preadv(self._handle, [bytearray(1)], self.size // 4 * 3, os.RWF_NOWAIT) == 1
        return False

    def _read_direct(self, buffer: memoryview, offset: int, least: int) -> bool:
        """Fill `buffer` past the cache, as far as the file goes; whoever fails here tries the other way."""
        if self._direct < 0:
            return False
        with contextlib.suppress(OSError):
            return os.preadv(self._direct, [buffer], offset) >= least
        return False
