"""Encrypted PKCS#8 (RFC 5958, RFC 8018) with a key derivation that costs an attacker something.

The library's own encoder stops at 2,048 rounds of PBKDF2. What is written here is read by it and by openssl.
"""

from __future__ import annotations

import base64
import hashlib
import os
import textwrap
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

ROUNDS: Final = 600_000
"""PBKDF2-HMAC-SHA256 iterations (OWASP's figure of 2023)."""

_PBES2: Final = bytes.fromhex("06092a864886f70d01050d")
_PBKDF2: Final = bytes.fromhex("06092a864886f70d01050c")
_HMAC_SHA256: Final = bytes.fromhex("06082a864886f70d0209")
_AES256_CBC: Final = bytes.fromhex("060960864801650304012a")
_NULL: Final = b"\x05\x00"


def _tlv(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    size = len(body)
    if size < 0x80:  # noqa: PLR2004 - X.690, 8.1.3.4: short form
        return bytes([tag, size]) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _sequence(*content: bytes) -> bytes:
    return _tlv(0x30, *content)


def encrypted_pem(private_key_der: bytes, passphrase: bytes) -> bytes:
    """Return an ``ENCRYPTED PRIVATE KEY`` block of an unencrypted PKCS#8 structure."""
    salt, vector = os.urandom(16), os.urandom(16)
    key = hashlib.pbkdf2_hmac("sha256", passphrase, salt, ROUNDS, 32)
    pad = PKCS7(128).padder()
    cipher = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    sealed = cipher.update(pad.update(private_key_der) + pad.finalize()) + cipher.finalize()
    rounds = ROUNDS.to_bytes((ROUNDS.bit_length() // 8) + 1, "big")
    derivation = _sequence(_PBKDF2, _sequence(_tlv(0x04, salt), _tlv(0x02, rounds), _sequence(_HMAC_SHA256, _NULL)))
    scheme = _sequence(_PBES2, _sequence(derivation, _sequence(_AES256_CBC, _tlv(0x04, vector))))
    text = base64.b64encode(_sequence(scheme, _tlv(0x04, sealed))).decode("ascii")
    lines = "\n".join(textwrap.wrap(text, 64))
    return f"-----BEGIN ENCRYPTED PRIVATE KEY-----\n{lines}\n-----END ENCRYPTED PRIVATE KEY-----\n".encode("ascii")
