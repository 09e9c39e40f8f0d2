"""The content of a bundle that was unlocked: attest, and the payload as a stream (docs/bundle-format.md, section 9).

A byte of a member is handed out when its frame had its leaf and was sealed under the signed key; the last bytes of a
blob only when the blob's digest was right. What uses a member still waits for the end of its chunks.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from airlift import digest, limits
from airlift.bundle import attest, frames, layout
from airlift.digest import Digest
from airlift.errors import BundleError, IntegrityError
from airlift.trust.signing import FRAME_SIZE, Release

_AHEAD: Final = 4
"""Frames that are read and opened ahead of who consumes them, each by a thread of its own: it waits for the medium."""

_MAX_LAYOUT: Final = 4096


@dataclass(frozen=True, slots=True)
class Apart:
    """A blob that the stream has passed over.

    Attributes:
        chunks: gives its content from the beginning, in any thread, while the reader is open; raises IntegrityError in
            place of the last bytes when its digest is not the one of its name. Each chunk is good until the next is
            asked for.
        undigested: the same bytes, each checked by its frame and none by the digest: for who has them compared by a
            receiver that does so before it takes them.
    """

    chunks: Callable[[], Iterator[memoryview]]
    undigested: Callable[[], Iterator[memoryview]]


@dataclass(frozen=True, slots=True)
class PayloadMember:
    """A file of the payload.

    Attributes:
        name: ``oci-layout``, ``index.json`` or ``blobs/sha256/<hex>``.
        size: its bytes.
        chunks: its content, once, in order; raises IntegrityError in place of its last bytes when a blob's digest is
            not the one of its name. Each chunk is good until the next is asked for.
        apart: called before any of `chunks` was taken, lets the stream pass over this member. What it returns gives
            the content in place of `chunks`; the caller sees to it that it is read to its end: nobody else checks it.
    """

    name: str
    size: int
    chunks: Iterator[memoryview]
    apart: Callable[[], Apart]

    @property
    def digest(self) -> Digest | None:
        """A blob's digest, None for the two others."""
        if not layout.is_blob(self.name):
            return None
        return Digest("sha256:" + self.name.removeprefix(layout.BLOBS))

    def read(self) -> bytes:
        """Return all of `chunks`; for members that are known to be small."""
        return b"".join(map(bytes, self.chunks))


class Opened:
    """An unlocked bundle; usable as long as its reader is open."""

    def __init__(
        self,
        path: Path,
        release: Release,
        key: frames.DataKey | None,
        *,
        frame: Callable[[int], AbstractContextManager[memoryview]],
        attest: Callable[[], bytes],
    ) -> None:
        """Made by `BundleReader.unlock`.

        Args:
            path: the file, for messages.
            release: what was verified.
            key: the data key; None for a plain bundle.
            frame: gives a stored payload frame, its leaf checked.
            attest: gives the stored attest member, its digest checked.
        """
        self.release = release
        self._path = path
        self._key = key
        self._frame = frame
        self._attest = attest
        self._opener = frames.Opener(
            None if key is None else key.cipher("payload"), release.frames, subject=f"the payload of {path}"
        )
        self._index: bytes | None = None

    def attest(self) -> dict[str, bytes]:
        """Return the files of attest.

        Raises:
            IntegrityError: a digest differs.
            BundleError: the archive is malformed.
        """
        stored = self._attest()
        if self._key is None:
            return attest.unpack(stored)
        total = -(-len(stored) // FRAME_SIZE)
        opener = frames.Opener(self._key.cipher("attest"), total, subject=f"attest of {self._path}")
        buffer = memoryview(bytearray(FRAME_SIZE))
        pieces = (
            bytes(opener.open_into(index, stored[index * FRAME_SIZE : (index + 1) * FRAME_SIZE], buffer))
            for index in range(total)
        )
        return attest.unpack(b"".join(pieces))

    @property
    def payload_size(self) -> int:
        """Bytes of the payload archive."""
        return frames.archive_size(self.release.payload_size, encrypted=self._key is not None)

    def index(self) -> bytes:
        """Return the payload's ``index.json``; only the frames before its end are read.

        Raises:
            IntegrityError: a leaf differs.
            BundleError: the archive is malformed.
        """
        if self._index is None:
            stream = self._payload(ahead=1)
            next(stream)
            member = next(stream)
            self._index = member.read()
            stream.close()
        return self._index

    @property
    def content_id(self) -> Digest:
        """The digest of ``index.json``: the name of what is inside."""
        return digest.of(self.index())

    def payload(self) -> Generator[PayloadMember]:
        """Yield the members in order. The chunks of one end where the next begins; what was not taken is checked too.

        Raises:
            IntegrityError: a leaf, a seal or a blob's digest is wrong.
            BundleError: the archive is malformed.
        """
        return self._payload(ahead=_AHEAD)

    def _payload(self, *, ahead: int) -> Generator[PayloadMember]:
        with ThreadPoolExecutor(max_workers=_AHEAD, thread_name_prefix="open") as pool:
            pieces = _Pieces(pool, self._open, self.release.frames, ahead=ahead)
            try:
                yield from self._members(_Stream(pieces, self.payload_size, self._piece_size))
            finally:
                pieces.stop()

    def _open(self, index: int, buffer: memoryview) -> memoryview:
        with self._frame(index) as frame:
            return self._opener.open_into(index, frame, buffer)

    def _members(self, stream: _Stream) -> Generator[PayloadMember]:
        end = len(layout.END)
        seen: set[str] = set()
        while stream.left > end:
            name, size, before = layout.parse_header(
                stream.peek(min(3 * layout.BLOCK, stream.left)), limit=stream.left - end
            )
            stream.take(before)
            self._check_name(name, size, seen)
            seen.add(name)
            passed: list[str] = []
            member = PayloadMember(
                name,
                size,
                _content(stream, name, size, self._path),
                partial(self._pass_over, passed, stream, name, size),
            )
            yield member
            if not passed:
                for _ in member.chunks:
                    pass
            if any(stream.take(layout.padding(size))):
                raise BundleError(f"payload: {name} is not followed by zero bytes")
        if len(seen) < len(_FIRST) or stream.left != end or stream.take(end) != layout.END:
            raise BundleError("payload: the archive does not end where it should")

    def _pass_over(self, passed: list[str], stream: _Stream, name: str, size: int) -> Apart:
        start = self.payload_size - stream.left
        stream.skip(size)
        passed.append(name)
        return Apart(
            chunks=lambda: _content(self._stream_of(start, size), name, size, self._path),
            undigested=lambda: _content(self._stream_of(start, size), name, size, self._path, is_compared=False),
        )

    def _stream_of(self, start: int, size: int) -> _Stream:
        first, before = divmod(start, self._piece_size)
        pieces = _Pieces(None, self._open, self.release.frames, ahead=0, first=first)
        stream = _Stream(pieces, before + size, self._piece_size)
        stream.take(before)
        return stream

    @property
    def _piece_size(self) -> int:
        return frames.piece_size(encrypted=self._key is not None)

    def _check_name(self, name: str, size: int, seen: set[str]) -> None:
        if len(seen) < len(_FIRST):
            expected, limit = _FIRST[len(seen)]
            if name != expected or size > limit:
                raise BundleError(f"payload: {expected} of at most {limit} bytes was expected, got {name!r}")
        elif not layout.is_blob(name):
            raise BundleError(f"payload: {name!r} is no name of a blob")
        elif name in seen:
            raise BundleError(f"payload: {name} comes twice")


_FIRST: Final = ((layout.OCI_LAYOUT, _MAX_LAYOUT), (layout.INDEX, limits.INDEX_DOCUMENT))


def _content(stream: _Stream, name: str, size: int, path: Path, *, is_compared: bool = True) -> Generator[memoryview]:
    running = hashlib.sha256() if is_compared and layout.is_blob(name) else None
    left = size
    while left or running is not None:
        chunk = stream.some(left)
        left -= len(chunk)
        if running is not None:
            running.update(chunk)
            if not left:
                if running.hexdigest() != name.removeprefix(layout.BLOBS):
                    raise IntegrityError(
                        f"blob in {name} of {path}",
                        expected=f"sha256:{name.removeprefix(layout.BLOBS)}",
                        actual=f"sha256:{running.hexdigest()}",
                    )
                running = None
        if chunk:
            yield chunk


class _Pieces:
    """The opened pieces in order; a few of them are made ahead by threads, or without a pool none.

    The buffers in which they are made are used again: new memory costs more than what is done in it.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor | None,
        work: Callable[[int, memoryview], memoryview],
        total: int,
        *,
        ahead: int,
        first: int = 0,
    ) -> None:
        self._pool = pool
        self._work = work
        self._total = total
        self._ahead = ahead
        self._next = first
        self._waiting: deque[Future[tuple[memoryview, memoryview]]] = deque()
        self._free: list[memoryview] = []
        self._taken: memoryview | None = None

    def take(self) -> memoryview:
        """Return the next piece; it is good until the next is taken.

        Raises:
            BundleError: there is no more.
        """
        if self._taken is not None:
            self._free.append(self._taken)
            self._taken = None
        if self._pool is None and self._next < self._total:
            self._next += 1
            piece, self._taken = self._make(self._next - 1)
            return piece
        while self._pool is not None and len(self._waiting) < self._ahead and self._next < self._total:
            self._waiting.append(self._pool.submit(self._make, self._next))
            self._next += 1
        if not self._waiting:
            raise BundleError("payload: the archive is longer than its frames")
        piece, self._taken = self._waiting.popleft().result()
        return piece

    def _make(self, index: int) -> tuple[memoryview, memoryview]:
        """Return a piece and the buffer that it is in; threads do so side by side."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = memoryview(bytearray(FRAME_SIZE))
        return self._work(index, buffer), buffer

    def skip(self, count: int) -> None:
        """Pass over pieces. From here on none is made ahead: who passes over much would drop it."""
        self._ahead = 1
        for _ in range(min(count, len(self._waiting))):
            self._waiting.popleft().cancel()
            count -= 1
        self._next += count

    def stop(self) -> None:
        """Drop what is under way."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._next = self._total


class _Stream:
    """The archive's bytes, of which `left` are still to come."""

    def __init__(self, pieces: _Pieces, size: int, piece_size: int) -> None:
        self._pieces = pieces
        self._piece_size = piece_size
        self._current = memoryview(b"")
        self.left = size

    def skip(self, size: int) -> None:
        """Pass over bytes without opening the pieces that hold nothing else."""
        self.left -= size
        inside = min(size, len(self._current))
        self._current = self._current[inside:]
        whole, rest = divmod(size - inside, self._piece_size)
        self._pieces.skip(whole)
        if rest:
            self._current = self._pieces.take()[rest:]

    def some(self, most: int) -> memoryview:
        """Return one or more bytes, at most `most` and a chunk's worth; none only for `most` 0. Good until the next."""
        if not most:
            return memoryview(b"")
        if not self._current:
            self._current = self._pieces.take()
        part = self._current[: min(most, limits.CHUNK)]
        self._current = self._current[len(part) :]
        self.left -= len(part)
        return part

    def take(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        parts: list[bytes] = []
        while size:
            parts.append(bytes(self.some(size)))
            size -= len(parts[-1])
        return b"".join(parts)

    def peek(self, size: int) -> bytes:
        """Return exactly `size` bytes and leave them there."""
        if len(self._current) < size:
            self._current = memoryview(b"".join((bytes(self._current), self._pieces.take())))
        return bytes(self._current[:size])
