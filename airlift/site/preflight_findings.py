"""What `airlift preflight` tells: each thing that was looked at, how grave it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from airlift.errors import AirliftError


class Severity(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was looked at.

    Attributes:
        check: what.
        severity: how much it matters.
        message: what was found.
        remedy: what to do, or empty.
        error: what the import would raise, None where it would not.
    """

    check: str
    severity: Severity
    message: str
    remedy: str = ""
    error: AirliftError | None = None

    def to_json(self) -> dict[str, str]:
        """Return what ``--json`` says of it."""
        return {
            "check": self.check,
            "severity": self.severity.value,
            "message": self.message,
            "remedy": self.remedy,
        }


def ok(check: str, message: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(check, Severity.OK, message)


def failed(check: str, error: AirliftError) -> Finding:
    """Return what the import would end with."""
    return Finding(check, Severity.ERROR, error.message, error.hint or "", error)


def gravest(findings: list[Finding]) -> AirliftError | None:
    """Return what the import would raise first, or None."""
    return next((item.error for item in findings if item.error is not None), None)
