"""The pinned trust file: who may sign for a site, how many of them it takes, and for what.

* It comes from outside of any bundle, and its fingerprint is compared with paper.
* Persons are counted, not keys. A key that is held twice, however it is encoded, is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from airlift import canonical, limits, yamldoc
from airlift.errors import ManifestError, TrustError, UnsupportedVersionError, UsageError
from airlift.trust import suites
from airlift.trust.keys import SignerPublic, load_signer_public
from airlift.trust.signing import CHANNEL

API_VERSION: Final = "airlift/v1"
KIND: Final = "Trust"
MAX_PERSONS: Final = 100
MAX_KEYS: Final = 20
_NAME_MOST: Final = 200
_STEP: Final = re.compile(r"\[([0-9]{1,9})\]|([^.\[\]]+)")
_KEYS: Final = ("apiVersion", "kind", "signers", "threshold", "channels", "suites", "allow_plain")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whose signature counts once, with whichever of the keys it is made."""

    name: str
    keys: tuple[SignerPublic, ...]


@dataclass(frozen=True, slots=True)
class Channel:
    """A line of releases that the site takes.

    Attributes:
        min_sequence: the lowest sequence it ever accepts.
    """

    min_sequence: int


@dataclass(frozen=True, slots=True)
class Trust:
    """What a site accepts. No key is held twice, and the threshold can be reached.

    Attributes:
        signers: the persons.
        threshold: how many different persons have to sign.
        channels: by name.
        suites: the algorithm suites the site accepts.
        allow_plain: whether a bundle without encryption is accepted.
    """

    signers: tuple[Person, ...]
    threshold: int
    channels: Mapping[str, Channel]
    suites: tuple[str, ...]
    allow_plain: bool

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical form, in sixteen groups of four, to be read aloud."""
        digits = hashlib.sha256(canonical.encode(self._canonical())).hexdigest()
        return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))

    def check_fingerprint(self, given: str) -> None:
        """Compare the fingerprint with one that a person typed; case, spaces and colons do not matter.

        Raises:
            TrustError: it is another.
        """
        if "".join(self.fingerprint.split()) != re.sub(r"[\s:]", "", given).lower():
            raise TrustError(
                f"the trust file has the fingerprint {self.fingerprint}, expected {given[:100]}",
                hint="it is not the one of your paper; go no further, and ask the release engineer",
            )

    def owner(self, key_id: str) -> tuple[Person, SignerPublic] | None:
        """Return who holds the key with this id."""
        return next((pair for pair in self.held_keys() if pair[1].key_id == key_id), None)

    def held_keys(self) -> Iterator[tuple[Person, SignerPublic]]:
        """Yield every key with its person."""
        for person in self.signers:
            for key in person.keys:
                yield person, key

    def _canonical(self) -> dict[str, Any]:
        """Return a form in which neither order nor encoding plays a part."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "signers": [
                {"person": one.name, "keys": sorted(base64.b64encode(key.spki).decode("ascii") for key in one.keys)}
                for one in sorted(self.signers, key=lambda one: one.name)
            ],
            "threshold": self.threshold,
            "channels": {name: {"min_sequence": one.min_sequence} for name, one in self.channels.items()},
            "suites": sorted(self.suites),
            "allow_plain": self.allow_plain,
        }


def make_trust(
    channels: Sequence[str],
    signers: Sequence[tuple[str, Sequence[bytes]]],
    threshold: int = 1,
    min_sequence: int = 1,
    *,
    allow_plain: bool = False,
) -> Trust:
    """Return a trust for some channels.

    Args:
        channels: their names.
        signers: each person with the PEM of their public keys; the same person may come more than once.
        threshold: how many persons have to sign.
        min_sequence: the lowest sequence that is accepted in each.
        allow_plain: whether bundles without encryption are accepted.

    Returns:
        The trust; it accepts the suites of these keys.

    Raises:
        UsageError: a key cannot be read, is held twice, or the threshold cannot be reached.
    """
    persons: dict[str, list[str]] = {}
    accepted: set[str] = set()
    for person, pems in signers:
        for pem in pems:
            key = load_signer_public(pem)
            accepted.add(key.suite)
            persons.setdefault(person, []).append(key.pem.decode("ascii"))
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "signers": [{"person": person, "keys": keys} for person, keys in persons.items()],
        "threshold": threshold,
        "channels": {channel: {"min_sequence": min_sequence} for channel in channels},
        "suites": sorted(accepted) or [suites.DEFAULT],
        "allow_plain": allow_plain,
    }
    try:
        return parse_trust(document, file=None)
    except ManifestError as error:
        raise UsageError(error.message, hint=error.hint) from None


def dump_trust(trust: Trust) -> bytes:
    """Return the file of a trust: JSON that a person can read."""
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "signers": [
            {"person": one.name, "keys": [key.pem.decode("ascii") for key in one.keys]} for one in trust.signers
        ],
        "threshold": trust.threshold,
        "channels": {name: {"min_sequence": one.min_sequence} for name, one in trust.channels.items()},
        "suites": list(trust.suites),
        "allow_plain": trust.allow_plain,
    }
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def load_trust(path: Path) -> Trust:
    """Read a trust file, JSON or YAML.

    Raises:
        ManifestError: it cannot be read or is malformed, with line and place.
    """
    document = yamldoc.load(path)
    return parse_trust(document.value, file=document.name, line_of=document.line_of)


class _Reader:
    """Reads the document's values and complains with file and path."""

    def __init__(self, file: str | None, line_of: Callable[[yamldoc.Where], int | None] | None) -> None:
        self._file = file
        self._line_of = line_of

    def error(self, where: str, message: str, *, hint: str | None = None) -> ManifestError:
        return ManifestError(message, file=self._file, line=self._line(where), where=where, hint=hint)

    def _line(self, where: str) -> int | None:
        if self._line_of is None:
            return None
        steps = tuple(int(number) if number else key for number, key in _STEP.findall(where))
        found = (self._line_of(steps[:length]) for length in range(len(steps), -1, -1))
        return next((line for line in found if line is not None), None)

    def mapping(
        self, value: object, where: str, required: Sequence[str], optional: Sequence[str] = ()
    ) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(where, "a mapping was expected")
        for key in value:
            if key not in (*required, *optional):
                raise self.error(
                    f"{where}.{key}" if where else str(key),
                    f"unknown key; known are: {', '.join((*required, *optional))}",
                )
        for key in required:
            if key not in value:
                raise self.error(f"{where}.{key}" if where else key, "is missing")
        return value

    def sequence(self, value: object, where: str, limit: int) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= limit:
            raise self.error(where, f"a list of 1 to {limit} entries was expected")
        return value

    def integer(self, value: object, where: str, low: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**53:
            raise self.error(where, f"a whole number from {low} was expected, got {str(value)[:40]!r}")
        return value

    def text(self, value: object, where: str) -> str:
        if not isinstance(value, str):
            raise self.error(where, "a text was expected")
        return value


def parse_trust(
    document: object, *, file: str | None, line_of: Callable[[yamldoc.Where], int | None] | None = None
) -> Trust:
    """Return the trust that a document describes.

    Args:
        document: plain JSON values.
        file: the document's name for messages.
        line_of: gives the line of a place, where there are lines.

    Raises:
        ManifestError: an unknown or missing key, a wrong type, a key held twice, an unreachable threshold.
    """
    reader = _Reader(file, line_of)
    if isinstance(document, dict) and document.get("apiVersion", API_VERSION) != API_VERSION:
        raise UnsupportedVersionError(
            f"expected {API_VERSION}, got {str(document['apiVersion'])[:80]!r}", file=file, where="apiVersion"
        )
    top = reader.mapping(document, "", _KEYS[:5], _KEYS[5:])
    if top["kind"] != KIND:
        raise reader.error("kind", f"expected {KIND}, got {str(top['kind'])[:80]!r}")
    persons = _persons(reader, top["signers"])
    threshold = reader.integer(top["threshold"], "threshold", 1)
    if threshold > len(persons):
        raise reader.error("threshold", f"{threshold} persons have to sign, but only {len(persons)} are listed")
    allow_plain = top.get("allow_plain", False)
    if not isinstance(allow_plain, bool):
        raise reader.error("allow_plain", "true or false was expected")
    return Trust(
        signers=persons,
        threshold=threshold,
        channels=_channels(reader, top["channels"]),
        suites=_suites(reader, top.get("suites", [suites.DEFAULT])),
        allow_plain=allow_plain,
    )


def _persons(reader: _Reader, value: object) -> tuple[Person, ...]:
    persons: list[Person] = []
    holders: dict[SignerPublic, str] = {}
    ids: dict[str, str] = {}
    for index, entry in enumerate(reader.sequence(value, "signers", MAX_PERSONS)):
        where = f"signers[{index}]"
        fields = reader.mapping(entry, where, ("person", "keys"))
        name = reader.text(fields["person"], f"{where}.person")
        if not 1 <= len(name) <= _NAME_MOST or not name.isprintable() or name != name.strip():
            raise reader.error(f"{where}.person", f"a name of 1 to {_NAME_MOST} printable characters was expected")
        if any(_compared(one.name) == _compared(name) for one in persons):
            raise reader.error(f"{where}.person", f"{name} is listed twice", hint="list all keys of a person together")
        keys: list[SignerPublic] = []
        for number, pem in enumerate(reader.sequence(fields["keys"], f"{where}.keys", MAX_KEYS)):
            place = f"{where}.keys[{number}]"
            try:
                key = load_signer_public(reader.text(pem, place).encode("utf-8"))
            except UsageError as error:
                raise reader.error(place, error.message, hint=error.hint) from None
            holder = holders.get(key) or ids.get(key.key_id)
            if holder is not None:
                raise reader.error(place, f"key {key.key_id} is held twice; {holder} has it already")
            holders[key] = ids[key.key_id] = name
            keys.append(key)
        persons.append(Person(name, tuple(keys)))
    return tuple(persons)


def _compared(name: str) -> str:
    """Return what two spellings of one person's name have in common: they are counted as one, so they are refused."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _channels(reader: _Reader, value: object) -> dict[str, Channel]:
    if not isinstance(value, dict) or not 1 <= len(value) <= limits.NAME:
        raise reader.error("channels", "a mapping of at least one channel was expected")
    channels: dict[str, Channel] = {}
    for name, entry in value.items():
        if not isinstance(name, str) or CHANNEL.fullmatch(name) is None:
            raise reader.error("channels", f"{str(name)[:80]!r} is not 1 to 64 of a-z, 0-9, dot, dash and underscore")
        where = f"channels.{name}"
        fields = reader.mapping(entry, where, ("min_sequence",))
        channels[name] = Channel(reader.integer(fields["min_sequence"], f"{where}.min_sequence", 0))
    return channels


def _suites(reader: _Reader, value: object) -> tuple[str, ...]:
    names: list[str] = []
    for index, entry in enumerate(reader.sequence(value, "suites", 16)):
        name = reader.text(entry, f"suites[{index}]")
        if name not in suites.SUITES:
            raise reader.error(f"suites[{index}]", f"{name[:64]!r} is not known; known are: {', '.join(suites.SUITES)}")
        if name in names:
            raise reader.error(f"suites[{index}]", f"{name} is listed twice")
        names.append(name)
    return tuple(names)
