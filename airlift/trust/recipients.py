"""Stanzas: the data key, sealed to each recipient (docs/bundle-format.md, section 5).

They stand outside of the signature and prove nothing by themselves: HPKE's info binds each to its release, and the
opened key has to match the signed commitment, which the caller checks.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag

from airlift import canonical
from airlift.errors import BundleError, UsageError
from airlift.trust import suites
from airlift.trust.fields import strict_base64
from airlift.trust.keys import Identity, Recipient
from airlift.trust.signing import Release

MAX_STANZAS: Final = 100
MAX_STANZAS_SIZE: Final = 256 * 1024
KEY_SIZE: Final = 32
_INFO: Final = b"airlift/v1 dek"
_KEY_ID: Final = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Stanza:
    """A data key sealed to the recipient with this key id."""

    key_id: str
    kem: str
    sealed: bytes


def seal(data_key: bytes, release: Release, recipients: Sequence[Recipient]) -> tuple[Stanza, ...]:
    """Return one stanza per recipient.

    Raises:
        UsageError: there is none, one twice, too many, or one of another suite.
    """
    check_recipients(release, recipients)
    kem = suites.get(release.suite).kem.name
    info = _INFO + release.digest_bytes
    return tuple(
        Stanza(one.key_id, kem, one.seal(data_key, info)) for one in sorted(recipients, key=lambda one: one.key_id)
    )


def check_recipients(release: Release, recipients: Sequence[Recipient]) -> None:
    """Find out whether a bundle can be sealed to these.

    Raises:
        UsageError: there is none, one twice, too many, or one of another suite.
    """
    if not recipients:
        raise UsageError("an encrypted bundle needs at least one recipient", hint="give one with --recipient PUB")
    if len(recipients) > MAX_STANZAS:
        raise UsageError(f"{len(recipients)} recipients were given, at most {MAX_STANZAS} can be")
    seen: set[str] = set()
    for one in recipients:
        if one.key_id in seen:
            raise UsageError(f"recipient {one.key_id} was given twice")
        if one.suite != release.suite:
            raise UsageError(f"recipient {one.key_id} is of suite {one.suite}, the bundle of {release.suite}")
        seen.add(one.key_id)


def encode(stanzas: Sequence[Stanza]) -> bytes:
    """Return the content of ``keys.json``."""
    return canonical.encode(
        [
            {"key": one.key_id, "kem": one.kem, "sealed": base64.b64encode(one.sealed).decode("ascii")}
            for one in sorted(stanzas, key=lambda one: one.key_id)
        ]
    )


def parse(data: bytes) -> tuple[Stanza, ...]:
    """Read ``keys.json``.

    Raises:
        BundleError: it is malformed.
    """
    entries = canonical.decode(data, limit=MAX_STANZAS_SIZE, subject="keys.json")
    if not isinstance(entries, list) or len(entries) > MAX_STANZAS:
        raise BundleError(f"keys.json: an array of at most {MAX_STANZAS} stanzas was expected")
    stanzas: list[Stanza] = []
    for index, entry in enumerate(entries):
        subject = f"keys.json[{index}]"
        if not isinstance(entry, dict) or set(entry) != {"key", "kem", "sealed"}:
            raise BundleError(f"{subject}: an object with key, kem and sealed was expected")
        key_id, kem, sealed = entry["key"], entry["kem"], entry["sealed"]
        if not (isinstance(key_id, str) and isinstance(kem, str) and isinstance(sealed, str)):
            raise BundleError(f"{subject}: key, kem and sealed have to be strings")
        if _KEY_ID.fullmatch(key_id) is None:
            raise BundleError(f"{subject}.key: 16 lower-case hex digits were expected")
        if stanzas and stanzas[-1].key_id >= key_id:
            raise BundleError("keys.json: not in the order of their key ids, or one twice")
        stanzas.append(Stanza(key_id, kem, strict_base64(sealed, subject=f"{subject}.sealed")))
    return tuple(stanzas)


def open_data_key(stanzas: Sequence[Stanza], release: Release, identity: Identity) -> bytes:
    """Return the data key that is sealed to `identity`; the commitment is still to be checked.

    Raises:
        BundleError: there is no stanza for it, or it does not open.
    """
    found = next((one for one in stanzas if one.key_id == identity.key_id), None)
    if found is None:
        raise BundleError(
            f"no stanza for this identity ({identity.key_id}); the bundle is for"
            f" {', '.join(one.key_id for one in stanzas) or 'nobody'}",
            hint="give the identity of this site, or ask the release engineer for a bundle with this site as a"
            " recipient",
        )
    suite = suites.get(release.suite)
    if identity.suite != suite.name or found.kem != suite.kem.name:
        raise BundleError(f"the stanza for identity {identity.key_id} is not of suite {suite.name}")
    try:
        data_key = identity.open(found.sealed, _INFO + release.digest_bytes)
    except (InvalidTag, ValueError):
        raise BundleError(
            f"the stanza for identity {identity.key_id} does not open: it was altered, or sealed for another release",
            hint="the medium or the copy may be damaged; copy the bundle again",
        ) from None
    if len(data_key) != KEY_SIZE:
        raise BundleError(f"the stanza for identity {identity.key_id} holds {len(data_key)} bytes, not {KEY_SIZE}")
    return data_key
