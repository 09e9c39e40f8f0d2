"""Versions and ranges as Helm understands them (Masterminds/semver v3.5): ``^ ~ x || -``, a ``v`` in front, short ones.

* Build metadata does not order versions.
* A pre-release answers only a range that names a pre-release itself: ``>=1`` never takes ``2.0.0-rc.1``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

_MAX_NUMBER = 2**64 - 1
_MAX_VERSION = 256
_MAX_RANGE = 512
_MAX_ALTERNATIVES = 32

_WORDS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"v?([0-9]+)(?:\.([0-9]+))?(?:\.([0-9]+))?(?:-({_WORDS}))?(?:\+({_WORDS}))?")
_PART = r"[0-9|xX*]+"
_WILD_TEXT = rf"v?{_PART}(?:\.{_PART})?(?:\.{_PART})?(?:-{_WORDS})?(?:\+{_WORDS})?"
_WILD = re.compile(rf"v?({_PART})(?:\.({_PART}))?(?:\.({_PART}))?(?:-({_WORDS}))?(?:\+({_WORDS}))?")
_HYPHEN = re.compile(rf"\s*({_WILD_TEXT})\s+-\s+({_WILD_TEXT})\s*", re.ASCII)
_OPERATOR = re.compile(r"!=|>=|=>|<=|=<|~>|=|>|<|~|\^|")
_SPACE = re.compile(r"\s*", re.ASCII)


@functools.total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version; equality and order are its precedence, so ``v1.2`` equals ``1.2.0+meta``.

    Attributes:
        text: as it was written.
        major, minor, patch: its numbers.
        pre: the pre-release, "" for a release.
    """

    text: str
    major: int
    minor: int
    patch: int
    pre: str
    _key: tuple[object, ...] = field(repr=False)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def __hash__(self) -> int:
        return hash(self._key)


def parse_version(text: str) -> Version:
    """Return a version; a ``v`` in front and missing numbers are accepted.

    Raises:
        ValueError: it is not a version.
    """
    match = _VERSION.fullmatch(text) if len(text) <= _MAX_VERSION else None
    if match is None:
        raise ValueError(f"{text[:_MAX_VERSION]!r} is not a semantic version")
    numbers = [int(part or 0) for part in match.group(1, 2, 3)]
    pre = match[4] or ""
    if max(numbers) > _MAX_NUMBER or any(part.isdigit() and part[0] == "0" and part != "0" for part in pre.split(".")):
        raise ValueError(f"{text!r} is not a semantic version")
    words = tuple(_word_key(part) for part in pre.split(".")) if pre else ()
    return Version(text, numbers[0], numbers[1], numbers[2], pre, (*numbers, not pre, words))


def _word_key(part: str) -> tuple[int, int, str]:
    if part.isdigit() and int(part) <= _MAX_NUMBER:
        return (0, int(part), "")
    return (1, 0, part)


def newest(versions: list[Version]) -> Version:
    """Return the highest version; among equals the one whose text needs no ``v``, then the last by its text."""
    return max(versions, key=lambda version: (version, not version.text.startswith("v"), version.text))


@dataclass(frozen=True, slots=True)
class _Bound:
    """One comparison; `any_*` say which numbers the range leaves open."""

    check: Callable[[Version, _Bound], bool]
    version: Version
    any_major: bool
    any_minor: bool
    any_patch: bool

    @property
    def is_open(self) -> bool:
        return self.any_major or self.any_minor or self.any_patch


@dataclass(frozen=True, slots=True)
class Range:
    """A set of versions, made by `parse_range`."""

    text: str
    _alternatives: tuple[tuple[_Bound, ...], ...] = field(repr=False)

    def __contains__(self, version: Version) -> bool:
        return any(
            (not version.pre or any(bound.version.pre for bound in group))
            and all(bound.check(version, bound) for bound in group)
            for group in self._alternatives
        )


def parse_range(text: str) -> Range:
    """Return a range such as ``^1.2``, ``~4.11``, ``1.x``, ``>=1 <3 || 5 - 6``.

    Raises:
        ValueError: it is not a range.
    """
    if len(text) > _MAX_RANGE:
        raise ValueError(f"a version range of {len(text)} characters, at most {_MAX_RANGE} are accepted")
    groups = _HYPHEN.sub(r">= \1, <= \2 ", text).split("||")
    if len(groups) > _MAX_ALTERNATIVES:
        raise ValueError(f"a version range of {len(groups)} alternatives, at most {_MAX_ALTERNATIVES} are accepted")
    return Range(text, tuple(tuple(_group(group, text)) for group in groups))


def _group(group: str, text: str) -> list[_Bound]:
    bounds: list[_Bound] = []
    position = 0
    while True:
        position = _skip(group, position)
        operator = _OPERATOR.match(group, position)
        start = _skip(group, operator.end() if operator else position)
        wild = _WILD.match(group, start)
        if operator is None or wild is None:
            raise ValueError(f"{text!r} is not a version range")
        bounds.append(_bound(operator[0], wild, text))
        position = _skip(group, wild.end())
        if position == len(group):
            return bounds
        if group[position] == ",":
            position += 1
        elif position == wild.end():
            raise ValueError(f"{text!r} is not a version range")


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _bound(operator: str, wild: re.Match[str], text: str) -> _Bound:
    major, minor, patch, pre, meta = wild.groups()
    any_major = _is_any(major)
    any_minor = not any_major and (minor is None or _is_any(minor))
    any_patch = not any_major and not any_minor and (patch is None or _is_any(patch))
    if any_major:
        numbers = ["0", "0", "0"]
    elif any_minor:
        numbers = [major, "0", "0"]
    else:
        numbers = [major, minor, "0" if any_patch else patch]
    suffix = (f"-{pre}" if pre else "") + (f"+{meta}" if meta and not (any_major or any_minor or any_patch) else "")
    try:
        version = parse_version(".".join(numbers) + suffix)
    except ValueError:
        raise ValueError(f"{text!r} is not a version range") from None
    return _Bound(_CHECKS[operator], version, any_major, any_minor, any_patch)


def _is_any(part: str) -> bool:
    return part in ("x", "X", "*")


def _equal(version: Version, bound: _Bound) -> bool:
    return _tilde(version, bound) if bound.is_open else version == bound.version


def _not_equal(version: Version, bound: _Bound) -> bool:
    wanted = bound.version
    if not bound.any_minor and not bound.any_patch:
        return version != wanted
    if version.major != wanted.major:
        return True
    if bound.any_minor:
        return False
    return version.minor != wanted.minor or (bool(version.pre or wanted.pre) and version.pre != wanted.pre)


def _greater(version: Version, bound: _Bound) -> bool:
    if bound.any_minor:
        return version.major > bound.version.major
    if bound.any_patch:
        return (version.major, version.minor) > (bound.version.major, bound.version.minor)
    return version > bound.version


def _less(version: Version, bound: _Bound) -> bool:
    return version < bound.version


def _at_least(version: Version, bound: _Bound) -> bool:
    return version >= bound.version


def _at_most(version: Version, bound: _Bound) -> bool:
    if bound.any_minor:
        return version.major <= bound.version.major
    if bound.is_open:
        return (version.major, version.minor) <= (bound.version.major, bound.version.minor)
    return version <= bound.version


def _tilde(version: Version, bound: _Bound) -> bool:
    wanted = bound.version
    if version < wanted:
        return False
    if (wanted.major, wanted.minor, wanted.patch) == (0, 0, 0) and not bound.any_minor and not bound.any_patch:
        return True
    return version.major == wanted.major and (bound.any_minor or version.minor == wanted.minor)


def _caret(version: Version, bound: _Bound) -> bool:
    wanted = bound.version
    if version < wanted or version.major != wanted.major:
        return False
    if wanted.major > 0 or bound.any_minor:
        return True
    if version.minor != wanted.minor:
        return False
    return wanted.minor > 0 or bound.any_patch or version.patch == wanted.patch


_CHECKS: Final[Mapping[str, Callable[[Version, _Bound], bool]]] = {
    "": _equal,
    "=": _equal,
    "!=": _not_equal,
    ">": _greater,
    "<": _less,
    ">=": _at_least,
    "=>": _at_least,
    "<=": _at_most,
    "=<": _at_most,
    "~": _tilde,
    "~>": _tilde,
    "^": _caret,
}
