"""``WWW-Authenticate``: several challenges in one line, values quoted or not (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_NEXT: Final = re.compile(
    rf"\s*(?:,\s*)?(?:(?P<key>{_WORD})\s*=\s*(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<plain>[^\s,\"]+))"
    rf"|(?P<scheme>{_WORD})(?=\s|,|$))"
)
_MAX: Final = 8192


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in: a scheme in lower case and its parameters."""

    scheme: str
    parameters: Mapping[str, str]


def parse(header: str) -> tuple[Challenge, ...]:
    """Return the challenges of a header; what cannot be read ends the list."""
    found: list[tuple[str, dict[str, str]]] = []
    text, at = header[:_MAX], 0
    while at < len(text) and (match := _NEXT.match(text, at)):
        at = match.end()
        if match["scheme"]:
            found.append((match["scheme"].lower(), {}))
        elif found:
            value = match["plain"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
            found[-1][1].setdefault(match["key"].lower(), value)
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)
