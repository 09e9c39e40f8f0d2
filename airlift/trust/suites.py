"""The algorithm suites: one row each (docs/bundle-format.md, section 10).

A suite is named in the signed part of a bundle and listed by each site; nothing is ever negotiated. A further suite is
a further row of `SUITES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519

from airlift.errors import BundleError, UsageError

if TYPE_CHECKING:
    from hashlib import _Hash

SignerKey: TypeAlias = ec.EllipticCurvePrivateKey
SignerPublicKey: TypeAlias = ec.EllipticCurvePublicKey
IdentityPart: TypeAlias = mlkem.MLKEM768PrivateKey | x25519.X25519PrivateKey
RecipientPart: TypeAlias = mlkem.MLKEM768PublicKey | x25519.X25519PublicKey


class SignatureScheme(Protocol):
    """One way to sign."""

    def generate(self) -> SignerKey:
        """Return a new key."""

    def owns(self, key: object) -> bool:
        """Tell whether a private or public key is of this scheme."""

    def sign(self, key: SignerKey, message: bytes) -> bytes:
        """Return the signature over `message`."""

    def verify(self, key: SignerPublicKey, signature: bytes, message: bytes) -> bool:
        """Tell whether the signature is good; `trust.keys` turns a no into an error."""


class Kem(Protocol):
    """One way to seal a data key to a recipient."""

    @property
    def name(self) -> str:
        """Name of the scheme in a stanza."""

    def generate(self) -> tuple[IdentityPart, ...]:
        """Return the component keys of a new identity, in the order of the key file."""

    def owns(self, parts: Sequence[object]) -> bool:
        """Tell whether these private or public component keys make a key of this scheme."""

    def seal(self, parts: Sequence[RecipientPart], secret: bytes, info: bytes) -> bytes:
        """Return `secret` sealed to the recipient, bound to `info`."""

    def open(self, parts: Sequence[IdentityPart], sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed.

        Raises:
            cryptography.exceptions.InvalidTag: another key, another info, or spoilt bytes.
        """


@dataclass(frozen=True, slots=True)
class Ecdsa:
    """ECDSA with a fixed curve and digest; the same message and key give the same signature (RFC 6979)."""

    curve: ec.EllipticCurve
    digest: hashes.HashAlgorithm

    def generate(self) -> SignerKey:
        """Return a new key."""
        return ec.generate_private_key(self.curve)

    def owns(self, key: object) -> bool:
        """Tell whether a private or public key lies on this curve."""
        return (
            isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey)
            and key.curve.name == self.curve.name
        )

    def sign(self, key: SignerKey, message: bytes) -> bytes:
        """Return the signature in DER."""
        return key.sign(message, ec.ECDSA(self.digest, deterministic_signing=True))

    def verify(self, key: SignerPublicKey, signature: bytes, message: bytes) -> bool:
        """Tell whether the signature is good."""
        try:
            key.verify(signature, message, ec.ECDSA(self.digest))
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class MlKem768X25519:
    """HPKE with the X-Wing hybrid of ML-KEM-768 and X25519."""

    name: str = "MLKEM768_X25519"

    def generate(self) -> tuple[IdentityPart, ...]:
        """Return an ML-KEM-768 and an X25519 key."""
        return (mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate())

    def owns(self, parts: Sequence[object]) -> bool:
        """Tell whether these are an ML-KEM-768 and an X25519 key, both private or both public."""
        types = (
            (mlkem.MLKEM768PrivateKey, x25519.X25519PrivateKey),
            (mlkem.MLKEM768PublicKey, x25519.X25519PublicKey),
        )
        return len(parts) == 2 and any(  # noqa: PLR2004 - two components
            isinstance(parts[0], first) and isinstance(parts[1], second) for first, second in types
        )

    def seal(self, parts: Sequence[RecipientPart], secret: bytes, info: bytes) -> bytes:
        """Return encapsulated key and ciphertext."""
        first, second = parts
        if not (isinstance(first, mlkem.MLKEM768PublicKey) and isinstance(second, x25519.X25519PublicKey)):
            raise UsageError(f"not a recipient of {self.name}")
        return self._suite().encrypt(secret, hpke.MLKEM768X25519PublicKey(first, second), info)

    def open(self, parts: Sequence[IdentityPart], sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed."""
        first, second = parts
        if not (isinstance(first, mlkem.MLKEM768PrivateKey) and isinstance(second, x25519.X25519PrivateKey)):
            raise UsageError(f"not an identity of {self.name}")
        return self._suite().decrypt(sealed, hpke.MLKEM768X25519PrivateKey(first, second), info)

    def _suite(self) -> hpke.Suite:
        return hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True)
class Suite:
    """A row of the table.

    Attributes:
        name: as it stands in the signed part.
        digest: name of the digest function, in hashlib's and in-toto's spelling.
        digest_size: its length in bytes.
        signature: how it signs.
        kem: how it seals data keys.
    """

    name: str
    digest: str
    digest_size: int
    signature: SignatureScheme
    kem: Kem

    def hasher(self, data: bytes = b"") -> _Hash:
        """Return a running digest that has seen `data`."""
        return hashlib.new(self.digest, data, usedforsecurity=True)

    def digest_of(self, data: bytes | bytearray | memoryview) -> str:
        """Return the digest of `data` as ``name:hex``."""
        running = self.hasher()
        running.update(data)
        return f"{self.digest}:{running.hexdigest()}"


DEFAULT: Final = "default"

SUITES: Final[Mapping[str, Suite]] = {
    DEFAULT: Suite(
        name=DEFAULT,
        digest="sha256",
        digest_size=32,
        signature=Ecdsa(ec.SECP256R1(), hashes.SHA256()),
        kem=MlKem768X25519(),
    ),
}


def get(name: str) -> Suite:
    """Return the suite of this name.

    Raises:
        BundleError: this airlift does not know it.
    """
    suite = SUITES.get(name)
    if suite is None:
        raise BundleError(
            f"suite {name[:64]!r} is not known; known are: {', '.join(SUITES)}", hint="update airlift on this side"
        )
    return suite
