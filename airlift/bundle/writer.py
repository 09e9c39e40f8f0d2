"""Writes a bundle in one pass: members side by side, each frame sealed once, the signed slots last.

* The data key is drawn here, for this one output, and never leaves.
* A frame is sealed when all of its bytes are there and verified as far as they can be: the end of a member enters its
  last frame only after the member's digest was found right, so a small member can be tried again.
* At most `MAX_BUFFERS` frames are in memory. Who needs one more waits, except for the lowest frame that is not sealed
  yet: one buffer is kept for it. So members have to be started in the plan's order, and then nobody waits for ever.
* The output appears under its name when it is complete and durable; until then it is ``.NAME.partial``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from airlift import canonical
from airlift.bundle import frames, layout
from airlift.bundle.assembly import MAX_BUFFERS, Assembly
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
        self._offset = self._container(attest_size=1).offset_of(layout.PAYLOAD)

        self._members: set[str] = set()
        self._complete: set[str] = set()
        self._lock = threading.Lock()
        self._finished = False

        self._output = Output(output, self._container(attest_size=1).size)
        self._assembly = Assembly(
            plan, self._sealer, self._suite, encrypted=encrypted, store=self._store, workers=workers
        )

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
        return self._assembly.in_memory

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
        with self._lock:
            self._assembly.check()
            try:
                start, size = self.plan.offset_of(name), self.plan.size_of(name)
            except KeyError:
                raise UsageError(f"{name} is not in the plan of this bundle") from None
            if name in self._members or name in self._complete:
                raise UsageError(f"{name} is written already")
            sink = MemberSink(
                self._assembly, name, digest, start=start, size=size, piece=self._piece, closed=self._closed
            )
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
        self._seal_payload()
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
            tree=self._suite.digest_of(self._assembly.tree),
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
        self._output.write(container.offset_of(layout.TREE), self._assembly.tree)
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
        if not self._finished:
            self._assembly.fail(BundleError("the build was ended"))
        self._assembly.stop()
        self._output.abort()

    def _closed(self, name: str, *, complete: bool, failure: BaseException | None) -> None:
        with self._lock:
            self._members.discard(name)
            if complete:
                self._complete.add(name)
        if failure is not None:
            self._assembly.fail(failure)

    def _store(self, index: int, frame: memoryview) -> None:
        self._output.write(self._offset + index * FRAME_SIZE, frame)

    def _seal_payload(self) -> None:
        self._assembly.check()
        missing = [one.name for one in self.plan.members if one.name not in self._complete]
        if missing:
            raise UsageError(f"{len(missing)} members of the payload were not written, the first is {missing[0]}")
        self._assembly.finish()

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
