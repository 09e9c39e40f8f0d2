"""Reads a bundle: nothing is parsed but the slots, and nothing handed out that was not checked.

* `BundleReader` computes every header, padding and length from the (unverified, bounded) statement and compares.
* `BundleReader.verify` needs no key and does not look into the payload.
* `BundleReader.unlock` gives an `Opened`, whose frames are checked against the signed tree before they are decrypted.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from airlift import canonical
from airlift.bundle import frames, layout
from airlift.bundle.medium import Medium
from airlift.bundle.opened import Apart, Opened, PayloadMember
from airlift.errors import BundleError, IntegrityError, TrustError
from airlift.progress import Progress, Silent
from airlift.trust import recipients as stanzas
from airlift.trust import suites
from airlift.trust.fields import format_time
from airlift.trust.gate import Verified
from airlift.trust.keys import Identity
from airlift.trust.recipients import Stanza
from airlift.trust.signing import FRAME_SIZE, Release, parse_envelope, parse_release

__all__ = ["Apart", "BundleReader", "Opened", "PayloadMember"]

_WORKERS: Final = 2
_DAMAGED: Final = "the medium or the copy is damaged; copy the bundle again"


class BundleReader:
    """One bundle file, its slots read and its shape compared.

    Use it as a context manager: what is refused inside names the file.

    Attributes:
        path: the file.
        size: its bytes.
        envelope: content of ``airlift.json``, for `airlift.trust.gate.Gate`.
        roots: content of ``roots.json``.
        stanzas: for whom it is sealed; they prove nothing.
        release: what is claimed; to be believed only as part of a `Verified`.
    """

    def __init__(self, path: Path) -> None:
        """Open the file and compare its shape.

        Raises:
            BundleError: it is no bundle, malformed, truncated, or of a newer version.
            StoreError: it cannot be read.
        """
        self.path = path
        self._medium = Medium(path, largest=FRAME_SIZE)
        try:
            self.size = self._medium.size
            self.envelope = self._first_slot()
            self.release = parse_release(parse_envelope(self.envelope).body)
            self._suite = suites.get(self.release.suite)
            self._container = layout.Container.of(self.release, digest_size=self._suite.digest_size)
            self._compare()
            self.stanzas = self._stanzas()
            self.roots = self._slot(layout.ROOTS)
            self._check_volume()
        except BaseException as error:
            self._medium.close()
            self._name(error)
            if isinstance(error, BundleError):
                error.hint = error.hint or "the medium or the copy may be damaged; copy the bundle again"
            raise

    def _name(self, error: BaseException | None) -> None:
        """Say which file it is that is refused; what the gate and the payload know of it has no name."""
        if isinstance(error, BundleError | TrustError) and str(self.path) not in error.message:
            error.message = f"{self.path}: {error.message}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._name(error)

    def close(self) -> None:
        """Close the file; safe to repeat."""
        self._medium.close()

    def inspect(self, identity: Identity | None = None) -> dict[str, Any]:
        """Return what the bundle claims. Nobody's signature was checked.

        Args:
            identity: with it the content-id is told too.

        Raises:
            BundleError: the identity does not open it.
            IntegrityError: tree or frames do not fit to each other.
        """
        facts = self._facts(self.release)
        facts |= {
            "verified": False,
            "signers": [one.key_id for one in parse_envelope(self.envelope).signatures],
        }
        if identity is not None or not self.release.is_encrypted:
            # Nobody vouches for this release; it only ties the claims to each other.
            facts["content_id"] = self.unlock(Verified(self.release, (), ()), identity).content_id
        return facts

    def summary(self, verified: Verified) -> dict[str, Any]:
        """Return what the signers say of the bundle.

        Raises:
            BundleError: what was verified is another bundle.
        """
        self._check_same(verified)
        facts = self._facts(verified.release)
        return facts | {
            "verified": True,
            "signers": list(verified.signers),
            "unknown_signers": list(verified.unknown_signers),
        }

    def _facts(self, release: Release) -> dict[str, Any]:
        return {
            "release": release.digest,
            "suite": release.suite,
            "encryption": release.encryption,
            "channel": release.channel,
            "sequence": release.sequence,
            "issued": None if release.issued is None else format_time(release.issued),
            "expires": None if release.expires is None else format_time(release.expires),
            "recipients": [one.key_id for one in self.stanzas],
            "frames": release.frames,
            "attest_size": release.attest_size,
            "size": self.size,
        }

    def verify(self, verified: Verified, progress: Progress | None = None) -> None:
        """Check the tree, every frame of the payload against it, and the attest member. No key is needed.

        Args:
            verified: what the gate gave for this reader's envelope.
            progress: hears of the stored bytes that were checked.

        Raises:
            IntegrityError: a digest differs.
            StoreError: the file cannot be read.
        """
        progress = progress or Silent()
        tree = self._tree(verified)
        release = verified.release
        progress.start("verifying", release.payload_size + release.attest_size)
        indexes = iter(range(release.frames))
        lock = threading.Lock()
        bad: list[int] = []
        ended = threading.Event()

        def work() -> None:
            buffer = memoryview(bytearray(FRAME_SIZE))
            while not bad and not ended.is_set():
                with lock:
                    index = next(indexes, -1)
                if index < 0:
                    return
                size = self._frame_size(index)
                self._medium.read_into(buffer[:size], self._payload_offset(index))
                if not self._is_leaf(tree, index, buffer[:size]):
                    with lock:
                        bad.append(index)
                progress.advance(size)

        with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="verify") as pool:
            try:
                for future in [pool.submit(work) for _ in range(_WORKERS)]:
                    future.result()
            finally:
                # An unreadable disk or an interrupt does not wait for the other threads to read the rest.
                ended.set()
        if bad:
            raise self._leaf_error(min(bad))
        self._attest_frames(verified, progress)
        progress.finish()

    def unlock(self, verified: Verified, identity: Identity | None) -> Opened:
        """Return the bundle's content, which is checked as it is read.

        Args:
            verified: what the gate gave for this reader's envelope.
            identity: the key to open it with; not needed for a plain bundle.

        Raises:
            BundleError: no identity, none of the right one, or the key is not the signed one.
            IntegrityError: the tree is not the signed one.
        """
        tree = self._tree(verified)
        key: frames.DataKey | None = None
        if verified.release.is_encrypted:
            if identity is None:
                raise BundleError(
                    f"{self.path} is encrypted and no identity was given",
                    hint="give the site's private key: --identity of this command, or `identity` in site.yaml",
                )
            key = frames.DataKey(stanzas.open_data_key(self.stanzas, verified.release, identity), self._suite)
            verified.check_commitment(key.commitment)
        return Opened(
            self.path,
            verified.release,
            key,
            frame=lambda index: self._checked_frame(tree, index),
            attest=lambda: self._attest_frames(verified, Silent()),
        )

    # The file's shape.

    def _first_slot(self) -> bytes:
        name = layout.ENVELOPE
        head = self._medium.read(0, min(layout.BLOCK, self.size))
        if head != layout.header(name, layout.SLOTS[name]):
            raise BundleError(
                f"{self.path} is not an airlift bundle, or its first bytes are damaged",
                hint="see whether this is the right file; if it is, copy the bundle again",
            )
        start = layout.BLOCK
        if self.size < start + layout.SLOTS[name]:
            raise BundleError(f"{self.path} is truncated: {self.size} bytes", hint=_DAMAGED)
        return self._medium.read(start, layout.SLOTS[name]).rstrip(b" ")

    def _slot(self, name: str) -> bytes:
        return self._medium.read(self._container.offset_of(name), self._container.size_of(name)).rstrip(b" ")

    def _compare(self) -> None:
        expected = self._container.size
        if self.size < expected:
            raise BundleError(f"{self.path} is truncated: {self.size} bytes of {expected}", hint=_DAMAGED)
        if self.size > expected:
            raise BundleError(f"{self.path} has {self.size - expected} bytes after its end", hint=_DAMAGED)
        for offset, data in self._container.fixed():
            if self._medium.read(offset, len(data)) != data:
                raise BundleError(
                    f"{self.path}: the {len(data)} bytes at offset {offset} are not those of the format", hint=_DAMAGED
                )

    def _stanzas(self) -> tuple[Stanza, ...]:
        found = stanzas.parse(self._slot(layout.KEYS))
        if bool(found) != self.release.is_encrypted:
            raise BundleError(f"{self.path}: an encrypted bundle has stanzas, a plain one has none")
        kem = self._suite.kem.name
        for one in found:
            if one.kem != kem:
                raise BundleError(f"keys.json: stanza {one.key_id} is of kem {one.kem[:64]!r}, not {kem!r}")
        return found

    def _check_volume(self) -> None:
        value = canonical.decode(self._slot(layout.VOLUME), limit=layout.SLOTS[layout.VOLUME], subject=layout.VOLUME)
        if canonical.encode(value) != canonical.encode(layout.volume_document(self.release.frames)):
            raise BundleError(
                "volume.json: not the one volume that holds all frames", hint="update airlift on this side"
            )

    # Checked content.

    def _tree(self, verified: Verified) -> bytes:
        self._check_same(verified)
        tree = self._medium.read(self._container.offset_of(layout.TREE), self._container.size_of(layout.TREE))
        actual = self._suite.digest_of(tree)
        if actual != verified.release.tree:
            raise IntegrityError(f"tree of {self.path}", expected=verified.release.tree, actual=actual, hint=_DAMAGED)
        return tree

    def _check_same(self, verified: Verified) -> None:
        if verified.release.body != self.release.body:
            raise BundleError(f"{self.path}: what was verified is another bundle")

    def _frame_size(self, index: int) -> int:
        return FRAME_SIZE if index < self.release.frames - 1 else self.release.last_frame

    def _payload_offset(self, index: int) -> int:
        return self._container.offset_of(layout.PAYLOAD) + index * FRAME_SIZE

    def _is_leaf(self, tree: bytes, index: int, frame: bytes | memoryview) -> bool:
        size = self._suite.digest_size
        return frames.leaf(self._suite, index, frame) == tree[index * size : (index + 1) * size]

    def _leaf_error(self, index: int) -> IntegrityError:
        return IntegrityError(
            f"frame {index} of {self.path}",
            expected="the leaf of the signed tree",
            actual="another digest",
            hint=_DAMAGED,
        )

    @contextlib.contextmanager
    def _checked_frame(self, tree: bytes, index: int) -> Iterator[memoryview]:
        with self._medium.once(self._payload_offset(index), self._frame_size(index)) as frame:
            if not self._is_leaf(tree, index, frame):
                raise self._leaf_error(index)
            yield frame

    def _attest_frames(self, verified: Verified, progress: Progress) -> bytes:
        release: Release = verified.release
        stored = self._medium.read(self._container.offset_of(layout.ATTEST), release.attest_size)
        actual = self._suite.digest_of(stored)
        if actual != release.attest_digest:
            raise IntegrityError(f"attest of {self.path}", expected=release.attest_digest, actual=actual, hint=_DAMAGED)
        progress.advance(release.attest_size)
        return stored
