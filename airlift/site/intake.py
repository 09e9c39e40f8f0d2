"""A bundle's payload on its way in: one pass, each blob to where it belongs, nothing of it visible yet.

Blobs of images and charts go straight to the external registry where the site has one; everything else, and all
that is small, goes to the store. What is already there is read (its frames are checked) and not written again.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Container, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from airlift import limits, oci
from airlift.bundle.reader import Opened, PayloadMember
from airlift.digest import Digest
from airlift.errors import BundleError, IntegrityError, StoreError
from airlift.progress import Progress
from airlift.site import contents
from airlift.site.contents import Contents, Payload
from airlift.site.lanes import Lanes
from airlift.site.mirror import Target
from airlift.store import BlobWriter, Store

_MANIFESTS: Final = oci.INDEX_TYPES | oci.MANIFEST_TYPES
_SYNCING: Final = 8
"""Blobs that wait for the disk while the next ones are read already."""


class Intake:
    """Takes one payload. Use it as a context manager: leaving it ends what is under way."""

    def __init__(
        self,
        store: Store,
        target: Target | None,
        progress: Progress,
        admit: Callable[[Contents, Payload], object],
        *,
        is_dry: bool,
        distrusted: Container[Digest] = frozenset(),
        is_named: bool = True,
    ) -> None:
        """Begin.

        Args:
            store: where blobs go.
            target: the external registry, if the site has one.
            progress: hears of the bytes.
            admit: refuses a drop by its manifests, before its first large blob is taken.
            is_dry: check everything and write nothing.
            distrusted: blobs of the store that are known to be damaged; the payload's replace them.
            is_named: whether the drop's names are to move afterwards.
        """
        self._is_named = is_named
        self._distrusted = distrusted
        self.payload = Payload(store)
        self.new: dict[Digest, int] = {}
        self._store = store
        self._target = target
        self._progress = progress
        self._admit = admit
        self._is_admitted = False
        self._is_dry = is_dry
        self._is_routed = False
        self._index = b""
        self._local: frozenset[Digest] = frozenset()
        self._absent: frozenset[Digest] = frozenset()
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sync")
        self._syncing: deque[Future[None]] = deque()
        self._lanes = None if target is None else Lanes(target.deliver, progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and self._target is not None:
            self._target.give_up()
        self._end()

    def _end(self) -> None:
        if self._lanes is not None:
            self._lanes.stop()
        self._pool.shutdown()

    def run(self, opened: Opened) -> Contents:
        """Take everything, and compare it with what the drop's manifests name.

        Raises:
            IntegrityError: a frame, digest or manifest is wrong.
            BundleError: the payload is malformed, or holds too much or too little.
            StoreError: the disk refuses.
            DeliveryError: the external registry refuses.
        """
        members = opened.payload()
        with contextlib.closing(members):
            for member in members:
                self._take(member)
        self._settle()
        found = self.contents()
        contents.check_complete(found, self.payload)
        self._route()
        if not self._is_dry:
            self._store.sync()
        return found

    def contents(self) -> Contents:
        """Read the drop's own artifact, which comes first of all.

        Raises:
            BundleError, IntegrityError: it is missing or malformed.
        """
        return contents.read(self._index, self.payload)

    def discard(self) -> None:
        """Take back what this run brought into the store, and end it. The caller knows that nothing refers to it."""
        # A blob that is still on its way to the disk would get its name after this.
        self._end()
        for digest in self.new:
            with contextlib.suppress(StoreError):
                self._store.delete(digest)

    def _take(self, member: PayloadMember) -> None:
        if member.digest is None:
            data = b"".join(map(bytes, self._chunks(member)))
            if member.name == "index.json":
                self._index = data
            elif data != oci.LAYOUT_FILE:
                raise BundleError(f"payload: {member.name} is of another version of the OCI layout")
            return
        self._take_blob(member, member.digest)
        self.payload.sizes[member.digest] = member.size

    def _take_blob(self, member: PayloadMember, digest: Digest) -> None:
        if digest in self._absent:
            # The registry would get an index without it.
            raise BundleError(f"payload: {digest} is a manifest and comes after large blobs")
        if member.size > limits.SMALL_BLOB and not self._is_own:
            self._judge()
        if self._is_for_target(member, digest):
            self._deliver(member, digest)
        elif self._is_here(digest, member.size):
            self._drain(member)
        elif self._is_dry:
            self.new[digest] = member.size
            self._remember(member, digest)
        else:
            self._write(member, digest)
            self.new[digest] = member.size

    def _judge(self) -> None:
        """Let the drop be refused by its names, once; whether its manifests are right and whole is told at the end."""
        if self._is_admitted:
            return
        self._is_admitted = True
        self._settle()
        with contextlib.suppress(BundleError, IntegrityError, StoreError):
            self._admit(self.contents(), self.payload)

    def _is_here(self, digest: Digest, size: int) -> bool:
        return digest not in self._distrusted and self._store.has(digest) and self._store.size(digest) == size

    def _is_for_target(self, member: PayloadMember, digest: Digest) -> bool:
        # All manifests are small and come before the first large blob, so by then it is known where that goes.
        if self._target is None or member.size <= limits.SMALL_BLOB or self._is_own:
            return False
        self._route()
        return self._target.is_wanted(digest) and digest not in self._local

    @property
    def _is_own(self) -> bool:
        """Whether the next blob is the drop's own manifest or config: they come first, and the config may be large."""
        return len(self.payload.sizes) < contents.OWN

    def _route(self) -> None:
        if self._target is None or self._is_routed:
            return
        self._is_routed = True
        self._settle()
        artifacts = self.contents().config.artifacts
        delivered = [item for item in artifacts if item.kind in contents.REGISTRY_KINDS]
        self._target.expect(delivered, self.payload, is_named=self._is_named)
        self._absent = frozenset(
            blob.digest
            for item in delivered
            for blob, _ in contents.tree(item, self.payload)
            if blob.media_type in _MANIFESTS and not self.payload.has(blob.digest)
        )
        others = [item for item in artifacts if item.kind not in contents.REGISTRY_KINDS]
        self._local = frozenset(
            blob.digest for item in (*others, self.contents().artifact) for blob, _ in contents.tree(item, self.payload)
        )

    def _deliver(self, member: PayloadMember, digest: Digest) -> None:
        if self._lanes is None or self._is_dry:
            self._drain(member)
        else:
            self._lanes.put(digest, member.size, member.apart())

    def _remember(self, member: PayloadMember, digest: Digest) -> None:
        """Keep what may be a manifest or config: without it a dry run could not read on."""
        most = limits.INDEX_DOCUMENT if self._is_own else limits.SMALL_BLOB
        if member.size > most or self.payload.is_content(digest):
            self._drain(member)
        else:
            self.payload.keep(digest, b"".join(map(bytes, self._chunks(member))))

    def _write(self, member: PayloadMember, digest: Digest) -> None:
        writer = self._store.writer(digest, member.size)
        try:
            for chunk in self._chunks(member):
                writer.write(chunk)
            self._wait(self._syncing, _SYNCING - 1)
        except BaseException:
            writer.discard()
            raise
        self._syncing.append(self._pool.submit(_commit, writer))

    def _settle(self) -> None:
        """Wait until everything is where it belongs."""
        self._wait(self._syncing, 0)
        if self._lanes is not None:
            self._lanes.settle()

    def _wait(self, under_way: deque[Future[None]], most: int) -> None:
        """Wait until at most so many are under way."""
        while len(under_way) > most:
            under_way.popleft().result()

    def _drain(self, member: PayloadMember) -> None:
        for _ in self._chunks(member):
            pass

    def _chunks(self, member: PayloadMember) -> Iterator[memoryview]:
        for chunk in member.chunks:
            self._progress.advance(len(chunk))
            yield chunk


class Damaged:
    """The blobs of a store whose bytes are not what their digest says; each is hashed when it is asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __contains__(self, digest: object) -> bool:
        """Say whether it is there and damaged."""
        if not isinstance(digest, str) or not self._store.has(Digest(digest)):
            return False
        try:
            self._store.verify(Digest(digest))
        except IntegrityError:
            return True
        return False


def _commit(writer: BlobWriter) -> None:
    try:
        writer.commit()
    finally:
        writer.discard()
