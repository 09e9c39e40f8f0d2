"""Files of an index on their way: a remote one that is read in parts, and a local one that takes a download."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from airlift import digest as digests
from airlift import fs, limits
from airlift.digest import Digest
from airlift.errors import IntegrityError

BLOCK: Final = 128 * limits.KIB
"""What one range asks for."""


class FileSink:
    """Takes a download into a file and hashes it."""

    def __init__(self, stream: io.BufferedWriter, most: int, subject: str) -> None:
        self._stream = stream
        self._most = most
        self._subject = subject
        self._hash = hashlib.sha256()
        self._written = 0

    @property
    def written(self) -> int:
        """Bytes taken so far."""
        return self._written

    @property
    def digest(self) -> Digest:
        """Digest of what was taken so far."""
        return digests.from_hex(self._hash.hexdigest())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError: they are more than `most`.
        """
        self._written += len(data)
        if self._written > self._most:
            raise IntegrityError(self._subject, expected=f"{self._most} bytes", actual="more")
        self._hash.update(data)
        self._stream.write(data)


class RemoteFile(io.RawIOBase):
    """A file on a server, read by ranges; at most `limits.REMOTE_DIRECTORY` bytes in all.

    Args:
        part: returns some bytes, given their start and how many.
        size: of the whole file.
        subject: for messages.
    """

    def __init__(self, part: Callable[[int, int], bytes], size: int, *, subject: str) -> None:
        super().__init__()
        self._part = part
        self._size = size
        self._subject = subject
        self._position = 0
        self._fetched = 0
        self._blocks: dict[int, bytes] = {}

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move, and return the new position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill from one block. Blocks are counted from the end, so that the directory is in the first."""
        if self._position >= self._size:
            return 0
        number = (self._size - 1 - self._position) // BLOCK
        start = max(0, self._size - (number + 1) * BLOCK)
        block = self._block(number, start, self._size - number * BLOCK - start)
        data = block[self._position - start :][: len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _block(self, number: int, start: int, size: int) -> bytes:
        if number not in self._blocks:
            self._fetched += size
            if self._fetched > limits.REMOTE_DIRECTORY:
                raise IntegrityError(
                    self._subject,
                    expected=f"a directory and METADATA of at most {limits.REMOTE_DIRECTORY} bytes",
                    actual="more",
                )
            self._blocks[number] = self._part(start, size)
        return self._blocks[number]


@contextlib.contextmanager
def scratch_file(work: Path) -> Iterator[Path]:
    """Lend a file name in `work`; what lies there at the end is removed."""
    path = work / f"fetch-{secrets.token_hex(8)}"
    try:
        yield path
    finally:
        with fs.guarded("removing"):
            path.unlink(missing_ok=True)
