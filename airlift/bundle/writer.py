"""Writes a bundle in one pass: members side by side, each frame sealed once, the signed slots last.

* The data key is drawn here, for this one output, and never leaves.
* A frame is sealed when all of its bytes are there and verified as far as they can be: the end of a member enters its
  last frame only after the member's digest was found right, so a small member can be tried again.
* At most `MAX_BUFFERS` frames are in memory. Who needs one more waits, except for the lowest frame that is not sealed
  yet: one buffer is kept for it. So members have to be started in the plan's order, and then nobody waits for ever.
* The output appears under its name when it is complete and durable; until then it is ``.NAME.partial``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from airlift import canonical
from airlift.bundle import frames, layout
from airlift.bundle.attest import pack
from airlift.bundle.output import Output
from airlift.bundle.sink import MemberSink
from airlift.digest import Digest
from airlift.errors import BundleError, UsageError
from airlift.progress import Progress, Silent
from airlift.trust import recipients as stanzas
from airlift.trust import signing, suites
from airlift.trust.keys import Recipient, Signer
from airlift.trust.signing import FRAME_SIZE, Release

__all__ = ["MAX_BUFFERS", "BundleWriter", "MemberSink", "check_request"]

MAX_BUFFERS: Final = 16
"""Frames in memory."""

_MAX_WORKERS: Final = 4


class _Frame:
    """A piece that is being filled."""

    __slots__ = ("buffer", "filled")

    def __init__(self, buffer: bytearray, filled: int) -> None:
        self.buffer = buffer
        self.filled = filled


class BundleWriter:
    """One bundle in the making. Use it as a context manager: what is not finished is removed."""

    def __init__(
        self,
        output: Path,
        plan: layout.PayloadPlan,
        *,
        suite: str = suites.DEFAULT,
        encrypted: bool,
        progress: Progress | None = None,
        workers: int = 2,
    ) -> None:
        """Open the output.

        Args:
            output: the bundle's final name.
            plan: the payload.
            suite: name of the algorithm suite.
            encrypted: whether there is a data key; without one the bundle is plain.
            progress: hears of the last phase, which waits for the disk; whoever writes members reports those.
            workers: threads that seal.

        Raises:
            StoreError: the output cannot be written there, or is too large for the medium.
        """
        self.plan = plan
        self._suite = suites.get(suite)
        self._encrypted = encrypted
        self._progress = progress or Silent()
        self._piece = frames.piece_size(encrypted=encrypted)
        self._total = frames.frame_count(plan.size, encrypted=encrypted)
        self._stored = frames.stored_size(plan.size, encrypted=encrypted)
        key = frames.DataKey.draw(self._suite) if encrypted else None
        self._key = key
        self._sealer = frames.Sealer(None if key is None else key.cipher("payload"), self._total)
        self._tree = bytearray(self._total * self._suite.digest_size)
        self._offset = self._container(attest_size=1).offset_of(layout.PAYLOAD)

        self._state = threading.Condition()
        self._open: dict[int, _Frame] = {}
        self._begun = bytearray(self._total)
        self._spare: list[bytearray] = []
        self._in_memory = 0
        self._lowest = 0
        self._members: set[str] = set()
        self._complete: set[str] = set()
        self._failure: BaseException | None = None
        self._finished = False

        workers = max(1, min(workers, _MAX_WORKERS))
        self._out: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(workers):
            self._out.put(memoryview(bytearray(FRAME_SIZE if encrypted else 0)))
        size = self._container(attest_size=signing.MAX_ATTEST).size
        self._output = Output(output, size, spare=signing.MAX_ATTEST)
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="seal")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self.abort()

    @property
    def frames(self) -> int:
        """How many frames the payload has."""
        return self._total

    @property
    def seal_counts(self) -> bytes:
        """How often each frame was sealed: 0 or 1."""
        return bytes(self._sealer.counts)

    @property
    def sealed(self) -> int:
        """How many frames were sealed."""
        return self._sealer.sealed

    @property
    def frames_in_memory(self) -> int:
        """How many frames are held now."""
        return self._in_memory

    def member(self, name: str, digest: Digest | None = None) -> MemberSink:
        """Return the sink of a planned member.

        Members are to be started in the order of the plan; they may then be written side by side, each by one thread at
        a time. A sink that failed before a frame of it was sealed may be asked for again, and then starts from zero.

        Args:
            name: as in the plan.
            digest: what the content has to be; a blob's follows from its name.

        Raises:
            UsageError: it is not in the plan, or is open or complete already.
        """
        with self._state:
            self._raise_failure()
            try:
                start, size = self.plan.offset_of(name), self.plan.size_of(name)
            except KeyError:
                raise UsageError(f"{name} is not in the plan of this bundle") from None
            if name in self._members or name in self._complete:
                raise UsageError(f"{name} is written already")
            sink = MemberSink(self, name, digest, start=start, size=size, piece=self._piece)
            self._members.add(name)
            return sink

    def finish(
        self,
        *,
        channel: str,
        sequence: int,
        issued: datetime | None = None,
        expires: datetime | None = None,
        attest_files: Mapping[str, bytes],
        signers: Sequence[Signer],
        recipients: Sequence[Recipient] = (),
    ) -> Release:
        """Seal the rest, sign, and give the bundle its name.

        Args:
            channel: the line of releases.
            sequence: the release's number in it.
            issued: when; None to say nothing of it.
            expires: until when sites take it; None for always.
            attest_files: what travels in ``attest``, by name.
            signers: who signs.
            recipients: who can open it; nobody for a plain bundle.

        Returns:
            What was signed.

        Raises:
            UsageError: a member is missing, or an argument is outside of the format.
            StoreError: the disk refuses.
            AirliftError: the build has failed before.
        """
        check_request(
            suite=self._suite.name,
            encrypted=self._encrypted,
            channel=channel,
            sequence=sequence,
            issued=issued,
            expires=expires,
            signers=signers,
            recipients=recipients,
        )
        self._seal_rest()
        attest = self._seal_attest(pack(attest_files))
        container = self._container(attest_size=len(attest))
        release = signing.make_release(
            suite=self._suite.name,
            encrypted=self._encrypted,
            channel=channel,
            sequence=sequence,
            issued=issued,
            expires=expires,
            frames=self._total,
            last_frame=self._stored - (self._total - 1) * FRAME_SIZE,
            tree=self._suite.digest_of(self._tree),
            attest_size=len(attest),
            attest_digest=self._suite.digest_of(attest),
            commitment=None if self._key is None else self._key.commitment,
        )
        sealed = () if self._key is None else stanzas.seal(self._key.secret, release, recipients)
        slots = {
            layout.ROOTS: b"[]",
            layout.VOLUME: canonical.encode(layout.volume_document(self._total)),
            layout.KEYS: stanzas.encode(sealed),
            layout.ENVELOPE: signing.sign(release.body, signers),
        }
        # Section 13: the first slots come last.
        self._output.write(container.offset_of(layout.ATTEST), attest)
        self._output.write(container.offset_of(layout.TREE), self._tree)
        for offset, data in container.fixed():
            self._output.write(offset, data)
        for name, content in slots.items():
            self._output.write(container.offset_of(name), layout.slot(name, content))
        self._progress.start("making durable", container.size)
        self._output.finish(container.size)
        self._progress.advance(container.size)
        self._progress.finish()
        self._finished = True
        return release

    def abort(self) -> None:
        """End the build and remove the part-file; safe to repeat."""
        with self._state:
            if not self._finished:
                self._fail(BundleError("the build was ended"))
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._output.abort()

    # What sinks call; see `bundle.sink.Target`.

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
            self._raise_failure()
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

    def closed(self, name: str, *, complete: bool, failure: BaseException | None) -> None:
        """Hear that a sink was closed, and whether the build has to end."""
        with self._state:
            self._members.discard(name)
            if complete:
                self._complete.add(name)
            if failure is not None:
                self._fail(failure)

    def _frame(self, index: int) -> _Frame:
        """Return the frame, waiting for a buffer when it is new."""
        with self._state:
            while True:
                self._raise_failure()
                frame = self._open.get(index)
                if frame is not None:
                    return frame
                while self._lowest < self._total and (self._begun[self._lowest] or self._is_fixed(self._lowest)):
                    self._lowest += 1
                free = MAX_BUFFERS - self._in_memory
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
        self._in_memory += 1
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
                self._tree[index * size : (index + 1) * size] = frames.leaf(self._suite, index, stored)
                self._output.write(self._offset + index * FRAME_SIZE, stored)
            finally:
                self._out.put(out)
        with self._state:
            self._spare.append(frame.buffer)
            self._in_memory -= 1
            self._state.notify_all()

    def _sealed_one(self, future: Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            with self._state:
                self._fail(error)

    def _seal_rest(self) -> None:
        with self._state:
            self._raise_failure()
            missing = [one.name for one in self.plan.members if one.name not in self._complete]
            if missing:
                raise UsageError(f"{len(missing)} members of the payload were not written, the first is {missing[0]}")
            rest = [index for index in range(self._total) if not self._begun[index]]
        # Frames without a byte of any member, such as the archive's end.
        for index in rest:
            self._frame(index)
            with self._state:
                self._hand_on(index)
        self._pool.shutdown(wait=True)
        with self._state:
            self._raise_failure()
        if self.sealed != self._total:
            raise BundleError(f"{self.sealed} of {self._total} frames were sealed")

    def _seal_attest(self, archive: bytes) -> bytes:
        stored = frames.stored_size(len(archive), encrypted=self._encrypted)
        if stored > signing.MAX_ATTEST:
            raise UsageError(f"attest takes {stored} bytes, at most {signing.MAX_ATTEST} are possible")
        if self._key is None:
            return archive
        total = frames.frame_count(len(archive), encrypted=True)
        sealer = frames.Sealer(self._key.cipher("attest"), total)
        view, out = memoryview(archive), memoryview(bytearray(FRAME_SIZE))
        pieces = [
            bytes(sealer.seal_into(index, view[index * self._piece : (index + 1) * self._piece], out))
            for index in range(total)
        ]
        return b"".join(pieces)

    def _container(self, *, attest_size: int) -> layout.Container:
        return layout.Container(
            digest_size=self._suite.digest_size,
            frames=self._total,
            payload_size=self._stored,
            attest_size=attest_size,
        )

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self._state.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def check_request(
    *,
    suite: str = suites.DEFAULT,
    encrypted: bool,
    channel: str,
    sequence: int,
    issued: datetime | None = None,
    expires: datetime | None = None,
    signers: Sequence[Signer],
    recipients: Sequence[Recipient] = (),
) -> None:
    """Find out before the first byte what `BundleWriter.finish` would refuse after the last one.

    Raises:
        UsageError: an argument is outside of the format, or they contradict each other.
    """
    row = suites.get(suite)
    zero = row.digest_of(b"")
    sample = signing.make_release(
        suite=suite,
        encrypted=encrypted,
        channel=channel,
        sequence=sequence,
        issued=issued,
        expires=expires,
        frames=1,
        last_frame=FRAME_SIZE,
        tree=zero,
        attest_size=FRAME_SIZE,
        attest_digest=zero,
        commitment=bytes(frames.KEY_SIZE) if encrypted else None,
    )
    for signer in signers:
        if signer.suite != suite:
            raise UsageError(f"signer {signer.key_id} is of suite {signer.suite}, the bundle of {suite}")
    signing.check_signers(signers)
    if encrypted:
        stanzas.check_recipients(sample, recipients)
    elif recipients:
        raise UsageError("a plain bundle has no recipients", hint="leave out either --plain or --recipient")
