"""Digests of content, always ``sha256:<64 lower-case hex digits>``.

Exactly one spelling is accepted: another case, algorithm or length is an error, so that equal content has equal
names (OCI image spec 1.1, descriptor.md, "Digests").
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from airlift.errors import IntegrityError

Digest = NewType("Digest", str)

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


def parse(text: object, *, subject: str = "digest") -> Digest:
    """Return `text` as a digest.

    Raises:
        IntegrityError: it is not exactly ``sha256:`` and 64 lower-case hex digits.
    """
    if not isinstance(text, str) or _PATTERN.fullmatch(text) is None:
        raise IntegrityError(
            subject,
            expected="sha256:<64 lower-case hex digits>",
            actual=repr(text)[:100],
        )
    return Digest(text)


def of(data: bytes | bytearray | memoryview) -> Digest:
    """Return the digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def from_hex(hex_digits: str, *, subject: str = "digest") -> Digest:
    """Return the digest with these bare hex digits.

    Raises:
        IntegrityError: they are not 64 lower-case hex digits.
    """
    return parse("sha256:" + hex_digits, subject=subject)


def hex_of(digest: Digest) -> str:
    """Return the bare hex digits."""
    return digest.removeprefix("sha256:")


class Counter:
    """Counts a stream whose digest is compared elsewhere, and compares the count at its end."""

    def __init__(self, size: int, *, subject: str) -> None:
        self._size = size
        self._subject = subject
        self.seen = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError: there are more bytes than announced.
        """
        self.seen += len(data)
        if self.seen > self._size:
            raise IntegrityError(self._subject, expected=f"{self._size} bytes", actual="more")

    def finish(self) -> None:
        """Compare.

        Raises:
            IntegrityError: bytes are missing.
        """
        if self.seen != self._size:
            raise IntegrityError(self._subject, expected=f"{self._size} bytes", actual=f"{self.seen} bytes")


class Verifier(Counter):
    """Counts and hashes a stream, and compares both at its end.

    What `update` was given is not to be relied on before `finish` has returned.
    """

    def __init__(self, digest: Digest, size: int, *, subject: str | None = None) -> None:
        super().__init__(size, subject=subject or digest)
        self._want = digest
        self._hash = hashlib.sha256()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError: there are more bytes than announced.
        """
        super().update(data)
        self._hash.update(data)

    def finish(self) -> None:
        """Compare.

        Raises:
            IntegrityError: bytes are missing or the digest differs.
        """
        super().finish()
        actual = "sha256:" + self._hash.hexdigest()
        if actual != self._want:
            raise IntegrityError(self._subject, expected=self._want, actual=actual)


class Collector:
    """A sink that holds one small blob in memory; the caller has bounded its size.

    The content is given out by `finish` alone, so what was not checked cannot be used.
    """

    def __init__(self, digest: Digest, size: int, *, subject: str | None = None) -> None:
        self._verifier = Verifier(digest, size, subject=subject)
        self._data = bytearray()

    @property
    def written(self) -> int:
        """How many bytes came so far."""
        return self._verifier.seen

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError: there are more bytes than announced.
        """
        self._verifier.update(data)
        self._data += data

    def finish(self) -> bytes:
        """Return the content.

        Raises:
            IntegrityError: bytes are missing or the digest differs.
        """
        self._verifier.finish()
        return bytes(self._data)


def check(data: bytes, digest: Digest, *, subject: str | None = None) -> bytes:
    """Return `data` when its digest is `digest`.

    Raises:
        IntegrityError: it is another.
    """
    verifier = Verifier(digest, len(data), subject=subject)
    verifier.update(data)
    verifier.finish()
    return data
