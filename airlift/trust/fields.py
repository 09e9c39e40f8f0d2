"""Values of JSON that somebody else made, each with one spelling (docs/bundle-format.md, section 1)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from airlift.errors import BundleError, UsageError

_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def format_time(value: datetime) -> str:
    """Return a time as the format writes it; fractions of a second are dropped.

    Raises:
        UsageError: it has no time zone.
    """
    if value.tzinfo is None:
        raise UsageError(f"time {value} has no time zone")
    # Not by strftime, which writes a year before 1000 in fewer digits.
    return value.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat() + "Z"


def parse_time(text: str, *, subject: str = "time") -> datetime:
    """Return a time written as ``2026-11-25T12:00:00Z``.

    Raises:
        BundleError: it is written in another way.
    """
    if _TIME.fullmatch(text) is None:
        raise BundleError(f"{subject}: {text[:40]!r} is not written as YYYY-MM-DDTHH:MM:SSZ")
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise BundleError(f"{subject}: {text!r} does not exist") from None


class Fields:
    """Typed access to a JSON object that somebody else made."""

    def __init__(self, value: object, subject: str) -> None:
        if not isinstance(value, dict):
            raise BundleError(f"{subject}: an object was expected")
        self._value: Mapping[str, Any] = value
        self._subject = subject

    def exactly(self, *names: str) -> Fields:
        """Refuse missing and unknown keys."""
        if set(self._value) != set(names):
            raise BundleError(
                f"{self._subject}: expected the keys {', '.join(sorted(names))},"
                f" got {', '.join(sorted(self._value))[:200] or 'none'}"
            )
        return self

    def get(self, name: str) -> object:
        """Return a value that must be there."""
        if name not in self._value:
            raise BundleError(f"{self._subject}: {name} is missing")
        return self._value[name]

    def text(self, name: str) -> str:
        """Return a string."""
        value = self.get(name)
        if not isinstance(value, str):
            raise BundleError(f"{self._subject}.{name}: a string was expected")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """Return an integer within bounds."""
        value = self.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BundleError(f"{self._subject}.{name}: an integer from {low} to {high} was expected")
        return value

    def constant(self, name: str, wanted: str | int, *, hint: str | None = None) -> None:
        """Refuse any other value."""
        value = self.get(name)
        if type(value) is not type(wanted) or value != wanted:
            raise BundleError(f"{self._subject}.{name}: expected {wanted!r}, got {str(value)[:80]!r}", hint=hint)

    def time(self, name: str) -> datetime | None:
        """Return a time or None."""
        if self.get(name) is None:
            return None
        return parse_time(self.text(name), subject=f"{self._subject}.{name}")

    def hex(self, name: str, size: int) -> str:
        """Return `size` bytes in lower-case hex."""
        value = self.text(name)
        if re.fullmatch(rf"[0-9a-f]{{{2 * size}}}", value) is None:
            raise BundleError(f"{self._subject}.{name}: {size} bytes in lower-case hex were expected")
        return value


def strict_base64(text: str, *, subject: str) -> bytes:
    """Return what `text` encodes, when it is its one encoding.

    Raises:
        BundleError: it is another spelling, or none at all.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise BundleError(f"{subject}: not Base64") from None
    if base64.b64encode(data).decode("ascii") != text:
        raise BundleError(f"{subject}: not the one Base64 encoding of its content")
    return data
