"""Key pairs of signers and of recipients, and their files.

* A signer's file holds one PEM block; an identity's holds one per component key (docs/bundle-format.md, section 10).
* A key's identity is its SubjectPublicKeyInfo, encoded again by us: compressed points, explicit curve parameters or
  another line ending do not make a second key out of one.
* No message ever holds a private key or a passphrase.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519

from airlift import fs
from airlift.errors import StoreError, TrustError, UsageError
from airlift.trust import suites
from airlift.trust.pkcs8 import encrypted_pem

Passphrase: TypeAlias = Callable[[], bytes] | bytes | None

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----", re.DOTALL)
_FILE_LIMIT: Final = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

_PublicKey: TypeAlias = suites.SignerPublicKey | suites.RecipientPart
_PrivateKey: TypeAlias = suites.SignerKey | suites.IdentityPart


def _spki(key: _PublicKey) -> bytes:
    if isinstance(key, ec.EllipticCurvePublicKey):
        # A key that was read from explicit parameters or a compressed point must not keep that form.
        key = key.public_numbers().public_key()
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _spki_pem(key: _PublicKey) -> bytes:
    return serialization.load_der_public_key(_spki(key)).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_id(parts: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(parts)).digest()[:8].hex()


class SignerPublic:
    """A signer's public key. Two of them are equal when they are the same key, however they were encoded."""

    def __init__(self, key: suites.SignerPublicKey, suite: suites.Suite) -> None:
        self._key = key
        self._suite = suite
        self.suite = suite.name
        self.spki = _spki(key)
        self.pem = _spki_pem(key)
        self.key_id = _key_id([self.spki])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SignerPublic) and self.spki == other.spki

    def __hash__(self) -> int:
        return hash(self.spki)

    def __repr__(self) -> str:
        return f"SignerPublic({self.key_id})"

    def verify(self, signature: bytes, pae: bytes) -> None:
        """Accept a good signature over `pae`.

        Raises:
            TrustError: it is not this key's signature over these bytes.
        """
        if not self.made(signature, pae):
            raise TrustError(f"the signature of key {self.key_id} does not match what it signs")

    def made(self, signature: bytes, pae: bytes) -> bool:
        """Tell whether this key made the signature, where a no is not the end (`trust.gate` looks for aliases)."""
        return self._suite.signature.verify(self._key, signature, pae)


class Signer:
    """A private signing key."""

    def __init__(self, key: suites.SignerKey, suite: suites.Suite) -> None:
        self._key = key
        self._suite = suite
        self.suite = suite.name
        self.public = SignerPublic(key.public_key(), suite)
        self.key_id = self.public.key_id
        self.public_pem = self.public.pem

    def __repr__(self) -> str:
        return f"Signer({self.key_id})"

    def sign(self, pae: bytes) -> bytes:
        """Return the signature over `pae`; the same bytes give the same signature in suite ``default``."""
        return self._suite.signature.sign(self._key, pae)

    def private_keys(self) -> tuple[_PrivateKey, ...]:
        """Return what goes into the key file."""
        return (self._key,)


class Recipient:
    """A public key to which data keys are sealed."""

    def __init__(self, parts: Sequence[suites.RecipientPart], suite: suites.Suite) -> None:
        self._parts = tuple(parts)
        self._suite = suite
        self.suite = suite.name
        encoded = [_spki(part) for part in self._parts]
        self.pem = b"".join(_spki_pem(part) for part in self._parts)
        self.key_id = _key_id(encoded)

    def __repr__(self) -> str:
        return f"Recipient({self.key_id})"

    def seal(self, secret: bytes, info: bytes) -> bytes:
        """Return `secret` sealed to this key, bound to `info`."""
        return self._suite.kem.seal(self._parts, secret, info)


class Identity:
    """The private half of a recipient."""

    def __init__(self, parts: Sequence[suites.IdentityPart], suite: suites.Suite) -> None:
        self._parts = tuple(parts)
        self._suite = suite
        self.suite = suite.name
        self.recipient = Recipient([part.public_key() for part in self._parts], suite)
        self.key_id = self.recipient.key_id
        self.public_pem = self.recipient.pem

    def __repr__(self) -> str:
        return f"Identity({self.key_id})"

    def open(self, sealed: bytes, info: bytes) -> bytes:
        """Return what was sealed to this key.

        Raises:
            cryptography.exceptions.InvalidTag: another key, another info, or spoilt bytes.
        """
        return self._suite.kem.open(self._parts, sealed, info)

    def private_keys(self) -> tuple[_PrivateKey, ...]:
        """Return what goes into the key file."""
        return self._parts


def generate(kind: Literal["signer", "identity"], *, suite: str = suites.DEFAULT) -> Signer | Identity:
    """Return a new key pair.

    Raises:
        UsageError: the suite is not known.
    """
    return generate_signer(suite=suite) if kind == "signer" else generate_identity(suite=suite)


def generate_signer(*, suite: str = suites.DEFAULT) -> Signer:
    """Return a new signing key.

    Raises:
        UsageError: the suite is not known.
    """
    row = _suite(suite)
    return Signer(row.signature.generate(), row)


def generate_identity(*, suite: str = suites.DEFAULT) -> Identity:
    """Return a new identity.

    Raises:
        UsageError: the suite is not known.
    """
    row = _suite(suite)
    return Identity(row.kem.generate(), row)


def _suite(name: str) -> suites.Suite:
    row = suites.SUITES.get(name)
    if row is None:
        raise UsageError(f"suite {name!r} is not known; known are: {', '.join(suites.SUITES)}")
    return row


def write_key(directory: Path, name: str, key: Signer | Identity, *, passphrase: bytes | None) -> tuple[Path, Path]:
    """Write ``NAME.key`` (mode 0600) and ``NAME.pub``; both or none.

    Args:
        directory: where; it must exist.
        name: letters, digits, dot, dash and underscore.
        key: the pair.
        passphrase: what encrypts the private half; None leaves it in the clear.

    Returns:
        The two paths.

    Raises:
        UsageError: the name is no file name, the passphrase is empty, or one of the files exists already.
        StoreError: the disk refuses.
    """
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} is no name for a key", hint="use letters, digits, dot, dash and underscore")
    if passphrase is not None and not passphrase:
        raise UsageError("the passphrase is empty", hint="put one line of text into the file of --passphrase-file")
    private, public = directory / f"{name}.key", directory / f"{name}.pub"
    body = b"".join(_private_pem(part, passphrase) for part in key.private_keys())
    # Of two that write one name at once, the halves must not be mixed.
    with fs.alone(directory, lambda: None):
        for path in (private, public):
            if path.exists() or path.is_symlink():
                raise UsageError(
                    f"{path} exists already and is not overwritten", hint="choose another name, or move it away"
                )
        fs.write(private, body, mode=0o600)
        try:
            fs.write(public, key.public_pem)
        except StoreError:
            with contextlib.suppress(OSError):
                private.unlink()
            raise
    return private, public


def _private_pem(key: _PrivateKey, passphrase: bytes | None) -> bytes:
    if passphrase is not None:
        return encrypted_pem(
            key.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            passphrase,
        )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_signer(path: Path, passphrase: Passphrase) -> Signer:
    """Read a private signing key.

    Args:
        path: the ``.key`` file.
        passphrase: the passphrase, or what asks for it; asked only when the file is encrypted.

    Raises:
        UsageError: it is another kind of file, or the passphrase is missing or wrong.
        StoreError: it cannot be read.
    """
    parts = _load_private(path, passphrase, wanted="signer")
    if len(parts) == 1 and isinstance(parts[0], ec.EllipticCurvePrivateKey):
        for row in suites.SUITES.values():
            if row.signature.owns(parts[0]):
                return Signer(parts[0], row)
    raise _wrong_kind(path, parts, wanted="signer")


def needs_passphrase(path: Path) -> bool:
    """Tell whether a private key's file is encrypted.

    Raises:
        StoreError: it cannot be read.
    """
    return any("ENCRYPTED" in label for label, _ in _blocks(fs.read_bounded(path, _FILE_LIMIT)))


def load_identity(path: Path, passphrase: Passphrase) -> Identity:
    """Read an identity.

    Args:
        path: the ``.key`` file.
        passphrase: the passphrase, or what asks for it; asked only when the file is encrypted.

    Raises:
        UsageError: it is another kind of file, or the passphrase is missing or wrong.
        StoreError: it cannot be read.
    """
    parts = _load_private(path, passphrase, wanted="identity")
    usable = [part for part in parts if isinstance(part, mlkem.MLKEM768PrivateKey | x25519.X25519PrivateKey)]
    for row in suites.SUITES.values():
        if len(usable) == len(parts) and row.kem.owns(usable):
            return Identity(usable, row)
    raise _wrong_kind(path, parts, wanted="identity")


def load_signer_public(source: Path | bytes) -> SignerPublic:
    """Read a signer's public key from a file or from PEM.

    Raises:
        UsageError: it is another kind of file.
        StoreError: it cannot be read.
    """
    subject, parts = _load_public(source, wanted="signer")
    if len(parts) == 1 and isinstance(parts[0], ec.EllipticCurvePublicKey):
        for row in suites.SUITES.values():
            if row.signature.owns(parts[0]):
                return SignerPublic(parts[0], row)
    raise _wrong_kind(subject, parts, wanted="signer")


def load_recipient(source: Path | bytes) -> Recipient:
    """Read a recipient's public key from a file or from PEM.

    Raises:
        UsageError: it is another kind of file.
        StoreError: it cannot be read.
    """
    subject, parts = _load_public(source, wanted="recipient")
    usable = [part for part in parts if isinstance(part, mlkem.MLKEM768PublicKey | x25519.X25519PublicKey)]
    for row in suites.SUITES.values():
        if len(usable) == len(parts) and row.kem.owns(usable):
            return Recipient(usable, row)
    raise _wrong_kind(subject, parts, wanted="recipient")


def _blocks(data: bytes) -> list[tuple[str, bytes]]:
    return [(match[1].decode("ascii"), match[0] + b"\n") for match in _BLOCK.finditer(data)]


def _load_private(path: Path, passphrase: Passphrase, *, wanted: str) -> list[object]:
    blocks = _blocks(fs.read_bounded(path, _FILE_LIMIT))
    if blocks and all(label == "PUBLIC KEY" for label, _ in blocks):
        raise UsageError(f"{path} is a public key, a private {wanted} key is needed", hint="give the .key file")
    if not blocks or any("PRIVATE KEY" not in label for label, _ in blocks):
        raise UsageError(f"{path} is not a private key in PEM")
    secret: bytes | None = None
    if any("ENCRYPTED" in label for label, _ in blocks):
        secret = _asked(path, passphrase)
        if not secret:
            raise UsageError(f"{path} is encrypted and no passphrase was given", hint="give it with --passphrase-file")
    parts: list[object] = []
    for label, block in blocks:
        try:
            parts.append(serialization.load_pem_private_key(block, secret if "ENCRYPTED" in label else None))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            # The cause may speak of the key's content: it is not passed on.
            if "ENCRYPTED" in label:
                raise UsageError(
                    f"{path} does not open with this passphrase", hint="check the file given with --passphrase-file"
                ) from None
            raise UsageError(f"{path} is not a private key that this version reads") from None
    return parts


def _asked(path: Path, passphrase: Passphrase) -> bytes | None:
    if not callable(passphrase):
        return passphrase
    try:
        return passphrase()
    except UsageError as error:
        error.message = f"{path}: {error.message}"
        raise


def _load_public(source: Path | bytes, *, wanted: str) -> tuple[str, list[object]]:
    subject = "the public key" if isinstance(source, bytes) else str(source)
    blocks = _blocks(source if isinstance(source, bytes) else fs.read_bounded(source, _FILE_LIMIT))
    if any("PRIVATE KEY" in label for label, _ in blocks):
        raise UsageError(f"{subject} is a private key, a public {wanted} key is needed", hint="give the .pub file")
    if not blocks or any(label != "PUBLIC KEY" for label, _ in blocks):
        raise UsageError(f"{subject} is not a public key in PEM")
    parts: list[object] = []
    for _, block in blocks:
        try:
            parts.append(serialization.load_pem_public_key(block))
        except (ValueError, UnsupportedAlgorithm):
            raise UsageError(
                f"{subject} is not a public key that this version reads",
                hint="write a curve by its name: openssl ec -pubin -pubout -param_enc named_curve",
            ) from None
    return subject, parts


def _wrong_kind(subject: Path | str, parts: Sequence[object], *, wanted: str) -> UsageError:
    found = "a key of a suite that this version does not know"
    if len(parts) == 1 and any(row.signature.owns(parts[0]) for row in suites.SUITES.values()):
        found = "a signer's key"
    elif any(row.kem.owns(parts) for row in suites.SUITES.values()):
        is_private = all(hasattr(part, "private_bytes") for part in parts)
        found = "an identity" if is_private else "a recipient's key"
    article = "an" if wanted == "identity" else "a"
    return UsageError(
        f"{subject} is {found}, {article} {wanted} is needed",
        hint=f"make one with: airlift keys generate NAME --kind {'signer' if wanted == 'signer' else 'identity'}",
    )
