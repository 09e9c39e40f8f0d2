"""One blob on its way into a registry: out of chunks, or written piece by piece and sent by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from airlift import limits
from airlift.errors import AirliftError, DeliveryError, IntegrityError

_WAITING: Final = 4
_POLL_S: Final = 0.5


class _GivenUpError(Exception):
    """Breaks the request off in the middle."""


class Whole:
    """What a request sends: a blob out of its chunks, which are asked for as they are sent.

    Args:
        name: for messages.
        size: in bytes.
        chunks: the content.
    """

    def __init__(self, name: str, size: int, chunks: Iterable[bytes | memoryview]) -> None:
        self._name = name
        self._size = size
        self._chunks = chunks

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes | memoryview]:
        sent = 0
        for chunk in self._chunks:
            sent += len(chunk)
            if sent > self._size:
                raise IntegrityError(self._name, expected=f"{self._size} bytes", actual="more")
            yield chunk
        if sent != self._size:
            raise IntegrityError(self._name, expected=f"{self._size} bytes", actual=f"{sent} bytes")


class Body:
    """What a request sends: pieces out of a queue, with a length that is known before."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: queue.Queue[bytes | None] = queue.Queue(_WAITING)
        self._is_given_up = threading.Event()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while True:
            piece = self._pieces.get()
            if self._is_given_up.is_set():
                raise _GivenUpError
            if piece is None:
                return
            yield piece

    def put(self, piece: bytes | None, is_alive: Callable[[], bool]) -> bool:
        """Queue a piece (None: the end) while somebody takes them; return whether it was queued."""
        while is_alive():
            try:
                self._pieces.put(piece, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def give_up(self) -> None:
        """Let the request break off."""
        self._is_given_up.set()
        try:
            while True:
                self._pieces.get_nowait()
        except queue.Empty:
            self._pieces.put(None)


class BlobUpload:
    """Takes the bytes of one blob. The registry has it once `commit` has returned."""

    def __init__(self, name: str, size: int, send: Callable[[Body], None], is_there: Callable[[], bool]) -> None:
        self._name = name
        self._size = size
        self._send = send
        self._is_there = is_there
        self._body = Body(size)
        # Until the request has come to its good end: whatever else ends the thread is no success.
        self._error: AirliftError | None = DeliveryError(f"{name}: the upload ended without an answer")
        self._is_over = False
        self.written = 0
        self._thread = threading.Thread(target=self._run, name=f"upload {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._send(self._body)
        except _GivenUpError:
            self._error = DeliveryError(f"{self._name}: the upload was given up")
        except AirliftError as error:
            self._error = error
        else:
            self._error = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; the caller may use the buffer again afterwards.

        Raises:
            DeliveryError: the registry does not take them.
            IntegrityError: more than announced.
        """
        self.written += len(data)
        if self.written > self._size:
            self.abort()
            raise IntegrityError(self._name, expected=f"{self._size} bytes", actual="more")
        view = memoryview(data)
        for start in range(0, len(view), limits.CHUNK):
            if not self._body.put(bytes(view[start : start + limits.CHUNK]), self._thread.is_alive):
                self._finish()
                raise DeliveryError(f"{self._name}: the registry ended the upload after {self.written} bytes")

    def commit(self) -> None:
        """Wait until the registry has checked and taken the blob.

        Raises:
            DeliveryError: it does not.
            IntegrityError: bytes are missing.
        """
        if self.written != self._size:
            self.abort()
            raise IntegrityError(self._name, expected=f"{self._size} bytes", actual=f"{self.written} bytes")
        self._body.put(None, self._thread.is_alive)
        self._finish()

    def _finish(self) -> None:
        self._thread.join()
        self._is_over = True
        error = self._error
        if error is None:
            return
        # The answer may be what got lost.
        is_lost = isinstance(error, DeliveryError) and error.temporary and self.written == self._size
        if not (is_lost and self._is_there()):
            raise error

    def abort(self) -> None:
        """Give the upload up; harmless after `commit`."""
        if not self._is_over:
            self._is_over = True
            self._body.give_up()
            self._thread.join()
