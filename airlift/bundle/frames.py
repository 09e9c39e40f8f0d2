"""The key schedule, frames and leaves (docs/bundle-format.md, sections 6 to 8).

* A `DataKey` that was drawn here seals; one that came from a stanza only opens.
* `Sealer` seals each index at most once: two pieces under one nonce would give both away.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from airlift.errors import BundleError, IntegrityError
from airlift.trust.signing import FRAME_SIZE, TAG_SIZE
from airlift.trust.suites import Suite

KEY_SIZE: Final = 32
_SALT: Final = b"airlift/v1"
_LEAF: Final = b"airlift/v1 leaf"


class DataKey:
    """The key of one bundle, from which the others follow."""

    def __init__(self, secret: bytes, suite: Suite) -> None:
        if len(secret) != KEY_SIZE:
            raise BundleError(f"a data key has {KEY_SIZE} bytes, this one {len(secret)}")
        self.secret = secret
        self._suite = suite

    @classmethod
    def draw(cls, suite: Suite) -> DataKey:
        """Return a new random key, for one build."""
        return cls(os.urandom(KEY_SIZE), suite)

    def __repr__(self) -> str:
        return "DataKey(...)"

    def derive(self, label: str, length: int, context: bytes = b"") -> bytes:
        """Return `length` bytes for one purpose."""
        info = label.encode("ascii") + b"\0" + self._suite.name.encode("ascii") + b"\0" + context
        return HKDF(algorithm=hashes.SHA512(), length=length, salt=_SALT, info=info).derive(self.secret)

    @property
    def commitment(self) -> bytes:
        """What is signed, so that there is one key for one bundle."""
        return self.derive("commit", 32)

    def cipher(self, label: str) -> AESGCM:
        """Return the cipher of an archive, ``payload`` or ``attest``."""
        return AESGCM(self.derive(label, 32, FRAME_SIZE.to_bytes(4, "big")))


def piece_size(*, encrypted: bool) -> int:
    """Return the archive bytes that a full frame holds."""
    return FRAME_SIZE - TAG_SIZE if encrypted else FRAME_SIZE


def frame_count(size: int, *, encrypted: bool) -> int:
    """Return the frames of an archive of `size` bytes."""
    return -(-size // piece_size(encrypted=encrypted))


def stored_size(size: int, *, encrypted: bool) -> int:
    """Return the bytes that an archive of `size` bytes takes as frames."""
    return size + (TAG_SIZE * frame_count(size, encrypted=encrypted) if encrypted else 0)


def archive_size(stored: int, *, encrypted: bool) -> int:
    """Return the archive bytes in frames of `stored` bytes together."""
    return stored - (TAG_SIZE * -(-stored // FRAME_SIZE) if encrypted else 0)


def nonce(index: int, total: int) -> bytes:
    """Return the nonce of frame `index` of `total`."""
    return bytes(3) + index.to_bytes(8, "big") + (b"\1" if index == total - 1 else b"\0")


def leaf(suite: Suite, index: int, frame: bytes | bytearray | memoryview) -> bytes:
    """Return the leaf of a stored payload frame."""
    running = suite.hasher(_LEAF + index.to_bytes(8, "big"))
    running.update(frame)
    return running.digest()


class Sealer:
    """Makes the frames of one archive of one build. Safe to use from many threads.

    Attributes:
        counts: how often each index was sealed: 0 or 1.
    """

    def __init__(self, cipher: AESGCM | None, total: int) -> None:
        self._cipher = cipher
        self._total = total
        self._lock = threading.Lock()
        self.counts = bytearray(total)

    @property
    def sealed(self) -> int:
        """How many frames have been sealed."""
        return sum(self.counts)

    def seal_into(self, index: int, piece: memoryview, buffer: memoryview) -> memoryview:
        """Return the stored frame of `piece`; `buffer` is where it is made and may not overlap.

        Raises:
            BundleError: this index has been sealed before.
        """
        with self._lock:
            if self.counts[index]:
                raise BundleError(f"frame {index} would be sealed a second time under one key; the build ends here")
            self.counts[index] = 1
        if self._cipher is None:
            return piece
        out = buffer[: len(piece) + TAG_SIZE]
        self._cipher.encrypt_into(nonce(index, self._total), piece, None, out)
        return out


class Opener:
    """Opens the frames of one archive. Safe to use from many threads."""

    def __init__(self, cipher: AESGCM | None, total: int, *, subject: str) -> None:
        self._cipher = cipher
        self._total = total
        self._subject = subject

    def open_into(self, index: int, frame: bytes | memoryview, buffer: memoryview) -> memoryview:
        """Return the piece in a stored frame, whose leaf or digest was checked before.

        Args:
            index: of the frame.
            frame: as it is stored.
            buffer: where the piece is made; as large as a frame, and no part of `frame`.

        Raises:
            IntegrityError: it was not sealed under this key and index.
        """
        if self._cipher is None:
            buffer[: len(frame)] = frame
            return buffer[: len(frame)]
        piece = buffer[: max(0, len(frame) - TAG_SIZE)]
        try:
            self._cipher.decrypt_into(nonce(index, self._total), frame, None, piece)
        except InvalidTag:
            raise IntegrityError(
                f"frame {index} of {self._subject}", expected="a frame under the signed key", actual="another"
            ) from None
        return piece
