"""Pieces of the payload on their way to becoming frames: filled by many, sealed by a few, at most sixteen at a time.

* A piece is handed on when all of its bytes are there; headers, padding and the archive's end are put in by us.
* Who needs a further buffer waits. The last one is kept for the lowest piece that has none yet: so, when members are
  started in the plan's order, some piece can always be completed and nobody waits for ever.
* The first failure, wherever it happens, ends everything and is what everybody hears.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from airlift.bundle import frames, layout
from airlift.errors import BundleError
from airlift.trust.signing import FRAME_SIZE
from airlift.trust.suites import Suite

MAX_BUFFERS: Final = 16
"""Frames in memory."""

_MAX_WORKERS: Final = 4


class _Frame:
    """A piece that is being filled."""

    __slots__ = ("buffer", "filled")

    def __init__(self, buffer: bytearray, filled: int) -> None:
        self.buffer = buffer
        self.filled = filled


class Assembly:
    """The payload's pieces and the threads that seal them.

    Attributes:
        tree: the leaves; complete after `finish`.
        in_memory: how many pieces are held now.
    """

    def __init__(
        self,
        plan: layout.PayloadPlan,
        sealer: frames.Sealer,
        suite: Suite,
        *,
        encrypted: bool,
        store: Callable[[int, memoryview], None],
        workers: int,
    ) -> None:
        """Begin with nothing.

        Args:
            plan: the archive.
            sealer: makes frames of pieces.
            suite: for the leaves.
            encrypted: whether frames have a tag.
            store: takes a stored frame by its index, from any thread.
            workers: threads that seal.
        """
        self.plan = plan
        self._sealer = sealer
        self._suite = suite
        self._store = store
        self._piece = frames.piece_size(encrypted=encrypted)
        self._total = frames.frame_count(plan.size, encrypted=encrypted)
        self.tree = bytearray(self._total * suite.digest_size)
        self.in_memory = 0
        self._state = threading.Condition()
        self._open: dict[int, _Frame] = {}
        self._begun = bytearray(self._total)
        self._spare: list[bytearray] = []
        self._lowest = 0
        self._failure: BaseException | None = None
        workers = max(1, min(workers, _MAX_WORKERS))
        self._out: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(workers):
            self._out.put(memoryview(bytearray(FRAME_SIZE if encrypted else 0)))
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="seal")

    def fill(self, position: int, data: memoryview, *, commit: bool) -> None:
        """Put bytes at an offset of the archive; they lie within one frame.

        Args:
            position: the offset.
            data: the bytes.
            commit: whether they count now; if not, `commit` follows.

        Raises:
            AirliftError: the build has failed, maybe elsewhere.
        """
        index, within = divmod(position, self._piece)
        frame = self._frame(index)
        # No lock: nobody else writes to this region, and the frame is not sealed before these bytes are counted.
        memoryview(frame.buffer)[within : within + len(data)] = data
        if commit:
            self.commit(index, len(data))

    def commit(self, index: int, amount: int) -> None:
        """Count bytes of a frame that were put there before, and hand it on when it is full.

        Raises:
            AirliftError: the build has failed, maybe elsewhere.
        """
        with self._state:
            self.check()
            frame = self._open[index]
            frame.filled += amount
            if frame.filled == self._length(index):
                self._hand_on(index)

    def rewind(self, amounts: Mapping[int, int]) -> bool:
        """Count bytes of frames back; False when one of the frames was handed on already."""
        with self._state:
            if any(index not in self._open for index in amounts):
                return False
            for index, amount in amounts.items():
                self._open[index].filled -= amount
            return True

    def fail(self, error: BaseException) -> None:
        """End everything, unless it has ended before."""
        with self._state:
            if self._failure is None:
                self._failure = error
            self._state.notify_all()

    def check(self) -> None:
        """Go on only when nothing has failed.

        Raises:
            AirliftError: what failed first.
        """
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Seal what no member leads to, and wait for all of it.

        Raises:
            BundleError: a piece is not complete.
            AirliftError: what failed first.
        """
        with self._state:
            self.check()
            rest = [index for index in range(self._total) if not self._begun[index]]
        # Pieces without a byte of any member, such as the archive's end.
        for index in rest:
            self._frame(index)
            with self._state:
                self._hand_on(index)
        self._pool.shutdown(wait=True)
        self.check()
        if self._sealer.sealed != self._total:
            raise BundleError(f"{self._sealer.sealed} of {self._total} frames were sealed")

    def stop(self) -> None:
        """Wait for the threads to end; what was not sealed is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _frame(self, index: int) -> _Frame:
        """Return the frame, waiting for a buffer when it is new."""
        with self._state:
            while True:
                self.check()
                frame = self._open.get(index)
                if frame is not None:
                    return frame
                while self._lowest < self._total and (self._begun[self._lowest] or self._is_fixed(self._lowest)):
                    self._lowest += 1
                free = MAX_BUFFERS - self.in_memory
                # The last buffer is kept for the lowest frame that has none. With members started in order, whoever
                # has bytes for the lowest frame in memory does not wait here, so that it is full some time.
                if free > 1 or (free == 1 and index == self._lowest):
                    return self._begin(index)
                self._state.wait()

    def _begin(self, index: int) -> _Frame:
        buffer = self._spare.pop() if self._spare else bytearray(FRAME_SIZE)
        start = index * self._piece
        filled = 0
        for offset, data in self.plan.fixed(start, start + self._length(index)):
            buffer[offset - start : offset - start + len(data)] = data
            filled += len(data)
        frame = _Frame(buffer, filled)
        self._begun[index] = 1
        self.in_memory += 1
        self._open[index] = frame
        return frame

    def _is_fixed(self, index: int) -> bool:
        """Tell whether no member has bytes in a frame, so that nobody will ask for it."""
        start, length = index * self._piece, self._length(index)
        return sum(len(data) for _, data in self.plan.fixed(start, start + length)) == length

    def _length(self, index: int) -> int:
        return min(self._piece, self.plan.size - index * self._piece)

    def _hand_on(self, index: int) -> None:
        frame = self._open.pop(index)
        self._pool.submit(self._seal, index, frame).add_done_callback(self._sealed_one)

    def _seal(self, index: int, frame: _Frame) -> None:
        if self._failure is None:
            length = self._length(index)
            out = self._out.get()
            try:
                stored = self._sealer.seal_into(index, memoryview(frame.buffer)[:length], out)
                size = self._suite.digest_size
                self.tree[index * size : (index + 1) * size] = frames.leaf(self._suite, index, stored)
                self._store(index, stored)
            finally:
                self._out.put(out)
        with self._state:
            self._spare.append(frame.buffer)
            self.in_memory -= 1
            self._state.notify_all()

    def _sealed_one(self, future: Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self.fail(error)
