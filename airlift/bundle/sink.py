"""Where one member of the payload is written to, by one thread at a time."""

from __future__ import annotations

import hashlib
from types import TracebackType
from typing import Protocol, Self

from airlift import limits
from airlift.bundle.layout import BLOBS, is_blob
from airlift.digest import Digest
from airlift.errors import IntegrityError, UsageError


class Target(Protocol):
    """What a sink needs of the assembly."""

    def fill(self, position: int, data: memoryview, *, commit: bool) -> None:
        """Put bytes at an offset of the archive; they lie within one frame."""

    def commit(self, index: int, amount: int) -> None:
        """Count bytes of a frame that were put there before."""

    def rewind(self, amounts: dict[int, int]) -> bool:
        """Count bytes of frames back; False when one of the frames was handed on already."""


class Closed(Protocol):
    """What hears that a sink was closed."""

    def __call__(self, name: str, *, complete: bool, failure: BaseException | None) -> None:
        """Take note of it.

        Args:
            name: the member.
            complete: whether it is all there and verified.
            failure: why the build has to end, or None.
        """


class MemberSink:
    """Takes one member's content, in order. A context manager; leaving it without an error verifies the content.

    A failure before a frame with its bytes was handed on leaves the build as it was, and the member can be asked for
    again. A failure later ends the build.

    Attributes:
        name: the member.
        size: how many bytes it has to have.
        written: how many bytes were taken. A resumed transfer goes on from here.
    """

    def __init__(
        self,
        target: Target,
        name: str,
        digest: Digest | None,
        *,
        start: int,
        size: int,
        piece: int,
        closed: Closed,
    ) -> None:
        if is_blob(name):
            implied = Digest("sha256:" + name.removeprefix(BLOBS))
            if digest not in (None, implied):
                raise UsageError(f"{name} cannot have the digest {digest}")
            digest = implied
        self.name = name
        self.size = size
        self.written = 0
        self._target = target
        self._closed = closed
        self._digest = digest
        self._start = start
        self._piece = piece
        self._last = (start + size - 1) // piece
        self._hash = hashlib.sha256()
        self._counted: dict[int, int] = {}
        self._spent = False
        self._tail = 0
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.fail(error)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes, any number of them; waits while too many frames are in memory.

        Raises:
            IntegrityError: there are more bytes than planned.
            AirliftError: the build has failed, maybe elsewhere.
        """
        if not self._open:
            raise UsageError(f"{self.name} is closed")
        view = memoryview(data).cast("B")
        if self.written + len(view) > self.size:
            raise IntegrityError(self.name, expected=f"{self.size} bytes", actual="more")
        while view:
            position = self._start + self.written
            index = position // self._piece
            chunk = view[: min(len(view), (index + 1) * self._piece - position, limits.CHUNK)]
            self._hash.update(chunk)
            is_tail = index == self._last
            self._target.fill(position, chunk, commit=not is_tail)
            if is_tail:
                self._tail += len(chunk)
            elif not self._spent:
                self._counted[index] = self._counted.get(index, 0) + len(chunk)
                # The frame between two others holds nothing else than this member, so that it was handed on.
                self._spent = len(self._counted) > 2  # noqa: PLR2004
            self.written += len(chunk)
            view = view[len(chunk) :]

    def close(self) -> None:
        """Verify the content; only now its end is sealed.

        Raises:
            IntegrityError: bytes are missing, or the digest differs.
        """
        if not self._open:
            return
        error: IntegrityError | None = None
        actual = "sha256:" + self._hash.hexdigest()
        if self.written != self.size:
            error = IntegrityError(self.name, expected=f"{self.size} bytes", actual=f"{self.written} bytes")
        elif self._digest is not None and actual != self._digest:
            error = IntegrityError(self.name, expected=self._digest, actual=actual)
        if error is not None:
            self.fail(error)
            raise error
        self._open = False
        if self._tail:
            self._target.commit(self._last, self._tail)
        self._closed(self.name, complete=True, failure=None)

    def fail(self, error: BaseException) -> None:
        """Give up: nothing of it stays, or the build ends."""
        if not self._open:
            return
        self._open = False
        spared = not self._spent and self._target.rewind(self._counted)
        self._closed(self.name, complete=False, failure=None if spared else error)
