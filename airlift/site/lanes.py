"""Blobs on their way out of a bundle and into a registry: a few side by side, of those that wait the largest first.

A registry writes a blob to its disk when all of it has come, before it answers. Meanwhile the next one is sent already.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from queue import PriorityQueue
from typing import Final, Self

from airlift.digest import Digest
from airlift.errors import StoreError
from airlift.progress import Progress
from airlift.site.mirror import Content

_SENDING: Final = 4
_LANES: Final = 8
"""Of which so many at most send; the others have sent all, and wait for the registry's disk."""
_ENDED: Final = "the import has ended"


class Lanes:
    """Delivers blobs. Whoever made it calls `stop`."""

    def __init__(self, deliver: Callable[[Digest, int, Content], bool], progress: Progress) -> None:
        """Begin.

        Args:
            deliver: takes digest, size and content to where they belong; several threads call it. A blob that it does
                not send is read all the same, so that every byte of a bundle is checked.
            progress: hears of each byte once, however often it is read.
        """
        self._deliver = deliver
        self._progress = progress
        # By size below zero: the largest comes first. Should it begin last, the others would be done long before.
        self._waiting: PriorityQueue[tuple[int, Digest, Content]] = PriorityQueue()
        self._places = threading.BoundedSemaphore(_SENDING)
        self._pool = ThreadPoolExecutor(max_workers=_LANES, thread_name_prefix="deliver")
        self._under_way: list[Future[None]] = []
        self._is_failed = threading.Event()
        self._is_over = threading.Event()

    def put(self, digest: Digest, size: int, content: Content) -> None:
        """Let a blob be delivered.

        Raises:
            AirliftError: what one before it has ended with.
        """
        if self._is_failed.is_set():
            self.settle()
        self._waiting.put((-size, digest, content))
        self._under_way.append(self._pool.submit(self._send_largest))

    def settle(self) -> None:
        """Wait until all are delivered, or one is not.

        Raises:
            AirliftError: what it has ended with.
        """
        wait(self._under_way, return_when=FIRST_EXCEPTION)
        for future in self._under_way:
            if future.done():
                future.result()
        self._under_way.clear()

    def stop(self) -> None:
        """End what is under way, and wait for that."""
        self._is_over.set()
        self._pool.shutdown(cancel_futures=True)

    def _send_largest(self) -> None:
        with _Place(self._places) as place:
            if self._is_over.is_set():
                raise StoreError(_ENDED)
            size, digest, content = self._waiting.get_nowait()
            counted = _Counted(content, self._progress, self._is_over, place)
            try:
                if not self._deliver(digest, -size, counted):
                    for _ in counted.chunks():
                        pass
            except BaseException:
                self._is_failed.set()
                raise


class _Place:
    """One of the places for those that send; it can be left before the end."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places
        self._is_held = False

    def __enter__(self) -> Self:
        self._places.acquire()
        self._is_held = True
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Let another one send; safe to repeat.

        What has to be sent once more is sent without a place: while it waited for one, those that have the places could
        be waiting for it (`airlift.site.patience`).
        """
        if self._is_held:
            self._is_held = False
            self._places.release()


class _Counted:
    """A blob's content that ends when the import does, and tells progress of each byte once."""

    def __init__(self, content: Content, progress: Progress, is_over: threading.Event, place: _Place) -> None:
        self._content = content
        self._progress = progress
        self._is_over = is_over
        self._place = place
        self._counted = 0

    def chunks(self) -> Iterator[memoryview]:
        """See `Content`."""
        return self._count(self._content.chunks())

    def undigested(self) -> Iterator[memoryview]:
        """See `Content`."""
        return self._count(self._content.undigested())

    def _count(self, chunks: Iterator[memoryview]) -> Iterator[memoryview]:
        seen = 0
        for chunk in chunks:
            if self._is_over.is_set():
                raise StoreError(_ENDED)
            seen += len(chunk)
            if seen > self._counted:
                self._progress.advance(seen - self._counted)
                self._counted = seen
            yield chunk
        # All of it is on its way; what the registry has to do now takes its disk, not ours.
        self._place.leave()
