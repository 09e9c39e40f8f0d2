"""A content-addressed store: an OCI image layout on disk.

Always true: a file under ``blobs/sha256`` was hashed before it got its name, and was made durable before that; so
what has a name is whole. Any number of processes may put at once; the last rename wins and brings the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from airlift import digest as digests
from airlift import fs, limits, oci
from airlift.digest import Counter, Digest, Verifier
from airlift.errors import IntegrityError, StoreError

_INGEST = "ingest"
_BLOB = re.compile(r"[0-9a-f]{64}")


class BlobWriter:
    """Takes one blob. It is in the store once `commit` has returned; `discard` forgets it."""

    def __init__(self, store: Store, digest: Digest, size: int, *, is_checked: bool = False) -> None:
        self._store = store
        self._digest = digest
        self._verifier = Counter(size, subject=digest) if is_checked else Verifier(digest, size)
        with fs.guarded("writing"):
            self._part, handle = fs.part_file(store.root / _INGEST, digests.hex_of(digest))
        self._stream = os.fdopen(handle, "wb", buffering=0)

    @property
    def written(self) -> int:
        """How many bytes came so far."""
        return self._verifier.seen

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError: more than announced.
            StoreError: the disk refuses.
        """
        self._verifier.update(data)
        view = memoryview(data)
        with fs.guarded(f"writing {self._digest} into {self._store.root}"):
            while view:
                view = view[self._stream.write(view) :]

    def commit(self) -> None:
        """Check, make durable, and give it its name.

        Raises:
            IntegrityError: digest or size differ.
            StoreError: the disk refuses.
        """
        self._verifier.finish()
        with fs.guarded(f"writing {self._digest} into {self._store.root}"):
            os.fchmod(self._stream.fileno(), 0o644)
            os.fsync(self._stream.fileno())
            self._stream.close()
            path = self._store.path(self._digest)
            try:
                self._part.replace(path)
            except IsADirectoryError:
                # An empty directory holds nothing of anybody's.
                with fs.guarded("removing the directory"):
                    path.rmdir()
                self._part.replace(path)

    def discard(self) -> None:
        """Close and remove what was written; harmless after `commit`."""
        self._stream.close()
        with contextlib.suppress(OSError):
            self._part.unlink()


class Store:
    """One directory of blobs.

    Attributes:
        root: of the image layout.
        blobs: where the blobs are in it.
    """

    def __init__(self, root: Path, *, remedy: str | None = None) -> None:
        """Name the directory; it need not be there.

        Args:
            root: of the image layout.
            remedy: what to do about a blob that is damaged, or missing where others are.
        """
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        self._remedy = remedy

    def create(self) -> Store:
        """Make the directories and the layout file where they are missing; return itself.

        Raises:
            StoreError: the disk refuses.
        """
        with fs.guarded("creating"):
            self.root.parent.mkdir(parents=True, exist_ok=True)
            for folder in (self.root, self.root / "blobs", self.blobs, self.root / _INGEST):
                fs.make_folder(folder)
        if not (self.root / "oci-layout").exists():
            fs.write(self.root / "oci-layout", oci.LAYOUT_FILE)
        return self

    @property
    def is_there(self) -> bool:
        """Whether there is a place for blobs at all; its disk may not be mounted."""
        return self.blobs.is_dir()

    def check(self) -> None:
        """Look whether there is a place for blobs and it can be read, without looking at the blobs.

        Raises:
            StoreError: it is not there, or cannot be read.
        """
        with fs.guarded("reading"):
            if not self.is_there:
                raise StoreError(
                    f"the store is not there: {self.blobs} is no directory",
                    hint="see whether its disk is mounted; airlift check says what is missing, and how to bring it"
                    " again",
                )
            with os.scandir(self.blobs) as entries:
                next(entries, None)

    def path(self, digest: Digest) -> Path:
        """Return where a blob is or would be."""
        return self.blobs / digests.hex_of(digest)

    def has(self, digest: Digest) -> bool:
        """Say whether the blob is here."""
        return self.path(digest).is_file()

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading.

        Raises:
            StoreError: it is not here.
        """
        with self._mendable(), fs.guarded("opening"):
            return self.path(digest).open("rb")

    def read(self, digest: Digest, *, limit: int = limits.SMALL_BLOB) -> bytes:
        """Return a small blob, checked again.

        Raises:
            StoreError: it is not here or larger than `limit`.
            IntegrityError: the disk returns other bytes than were put.
        """
        with self._mendable():
            return digests.check(fs.read_bounded(self.path(digest), limit), digest)

    def chunks(self, digest: Digest, size: int, *, start: int = 0) -> Iterator[bytes]:
        """Yield a blob from `start`, checked at its end when read from the beginning.

        Raises:
            StoreError: it is not here.
            IntegrityError: the disk returns other bytes than were put.
        """
        verifier = Verifier(digest, size, subject=f"{digest} in {self.root}")
        with self._mendable(), self.open(digest) as stream, fs.guarded(f"reading {digest}"):
            stream.seek(start)
            while chunk := stream.read(limits.CHUNK):
                verifier.update(chunk)
                yield chunk
            if start == 0:
                verifier.finish()

    @contextlib.contextmanager
    def _mendable(self) -> Iterator[None]:
        """Let out what damaged and missing blobs lead to with the remedy."""
        try:
            yield
        except IntegrityError as error:
            error.hint = error.hint or self._remedy
            raise
        except StoreError as error:
            if self._remedy and isinstance(error.__cause__, FileNotFoundError) and self.is_there:
                error.hint = self._remedy
            raise

    def writer(self, digest: Digest, size: int) -> BlobWriter:
        """Begin to take a blob from a stream that compares the digest itself, before it gives out its last bytes.

        A bundle's payload does (`airlift.bundle.reader.PayloadMember`); hashing it again would cost as much as all
        the rest of an import. Only the size is compared here.

        Raises:
            StoreError: the disk refuses.
        """
        return BlobWriter(self, digest, size, is_checked=True)

    @contextlib.contextmanager
    def put(self, digest: Digest, size: int) -> Iterator[BlobWriter]:
        """Take a blob; it is kept when the block ends well and its digest is right.

        Raises:
            IntegrityError: digest or size differ.
            StoreError: the disk refuses.
        """
        writer = BlobWriter(self, digest, size)
        try:
            yield writer
            writer.commit()
        finally:
            writer.discard()

    def put_bytes(self, data: bytes) -> Digest:
        """Take a small blob and return its digest.

        Raises:
            StoreError: the disk refuses.
        """
        digest = digests.of(data)
        if not self.has(digest):
            with self.put(digest, len(data)) as writer:
                writer.write(data)
        return digest

    def sync(self) -> None:
        """Make the names of all blobs durable.

        Raises:
            StoreError: the disk refuses.
        """
        with fs.guarded("syncing"):
            fs.sync_directory(self.blobs)

    def clear_ingest(self) -> None:
        """Remove what killed runs left. What somebody is writing right now stays."""
        fs.remove_abandoned((self.root / _INGEST).glob("*"))

    def digests(self) -> Iterator[Digest]:
        """Yield every blob's digest; what is `strange` is left out.

        Raises:
            StoreError: the store is not there, or cannot be read.
        """
        for path in self._listed():
            if _BLOB.fullmatch(path.name):
                yield digests.from_hex(path.name)

    def strange(self) -> list[Path]:
        """Return what lies among the blobs and has no name of one, sorted.

        Raises:
            StoreError: the store is not there, or cannot be read.
        """
        return [path for path in self._listed() if not _BLOB.fullmatch(path.name)]

    def _listed(self) -> list[Path]:
        with fs.guarded("reading"):
            return sorted(self.blobs.iterdir())

    def verify(self, digest: Digest) -> int:
        """Read a blob again, whole, and return its size.

        Raises:
            StoreError: it is not here.
            IntegrityError: it is damaged.
        """
        size = self.size(digest)
        for _ in self.chunks(digest, size):
            pass
        return size

    def size(self, digest: Digest) -> int:
        """Return a blob's size in bytes.

        Raises:
            StoreError: it is not here.
        """
        with fs.guarded("reading"):
            return self.path(digest).stat().st_size

    def delete(self, digest: Digest) -> None:
        """Remove a blob; nothing happens when it is not here.

        Raises:
            StoreError: the disk refuses.
        """
        with fs.guarded("removing"), contextlib.suppress(FileNotFoundError):
            self.path(digest).unlink()
