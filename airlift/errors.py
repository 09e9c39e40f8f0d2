"""Every error airlift raises on purpose.

::

    AirliftError
      UsageError                 the call itself is off
      ManifestError              .where, the path in the document; .file, .line
        UnsupportedVersionError
      ResolveError               nothing, or more than one thing, answers
      FetchError                 .temporary
      IntegrityError             .subject, .expected, .actual
      BundleError                malformed, truncated, wrong key, too large
      TrustError                 unsigned, untrusted, below threshold, expired, older than the last import
        NotAcceptedError         by this trust file; another one may accept it
      PolicyError                .violations
      StoreError                 the local disk: full, read-only, damaged
      DeliveryError              .mirror, .temporary
        PartialDeliveryError     some of it is there
      DeployError

A message is lower case, has no final stop, and says what was being done, to what, what was got and what was
wanted. The remedy goes into ``hint``. Exit codes live in `airlift.cli.exit` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_SHOWN: Final = 20
"""How many violations a message has."""


def first_of(names: Sequence[str], most: int) -> str:
    """Return the first of some names for a message: ``a, b and 3 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class AirliftError(Exception):
    """Base of all errors that a caller is expected to show.

    Attributes:
        message: one or more lines for a person, without a final stop.
        hint: what to do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(AirliftError):
    """The arguments contradict each other or name something that does not exist."""


class ManifestError(AirliftError):
    """A document that a person wrote (manifest, site file, trust file) is wrong.

    Attributes:
        file: the document's name as the user gave it, or None.
        line: 1-based line, or None when it is not known.
        where: path inside the document, such as ``images[3].ref``; empty for the whole.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        line: int | None = None,
        where: str = "",
        hint: str | None = None,
    ) -> None:
        place = "" if file is None else file if line is None else f"{file}:{line}"
        parts = [part for part in (place, where) if part]
        super().__init__(": ".join([*parts, message]), hint=hint)
        self.file = file
        self.line = line
        self.where = where


class UnsupportedVersionError(ManifestError):
    """The document is of a version that this airlift does not read."""


class ResolveError(AirliftError):
    """Nothing answers a request, or more than one thing does, or the lock is stale."""


class FetchError(AirliftError):
    """Content could not be fetched.

    Attributes:
        temporary: whether trying again later may help.
    """

    def __init__(self, message: str, *, temporary: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.temporary = temporary


class IntegrityError(AirliftError):
    """Bytes are not what their digest, size or structure says.

    Attributes:
        subject: what was checked.
        expected: the wanted digest or property.
        actual: what was found.
    """

    def __init__(self, subject: str, *, expected: str, actual: str, hint: str | None = None) -> None:
        super().__init__(f"{subject}: expected {expected}, got {actual}", hint=hint)
        self.subject = subject
        self.expected = expected
        self.actual = actual


class BundleError(AirliftError):
    """A bundle is malformed, truncated, too large, or not for this identity."""


class TrustError(AirliftError):
    """A bundle is unsigned, signed by the wrong persons, expired or too old."""


class NotAcceptedError(TrustError):
    """No signature is bad, but they are not what the trust file demands: another one may accept the very same bytes."""


class PolicyError(AirliftError):
    """A policy says no.

    Attributes:
        violations: one line each; the message has the first of many.
    """

    def __init__(self, message: str, *, violations: Sequence[str] = (), hint: str | None = None) -> None:
        more = [f"and {len(violations) - _SHOWN} more"] if len(violations) > _SHOWN else []
        super().__init__("\n".join([message, *(f"  {line}" for line in (*violations[:_SHOWN], *more))]), hint=hint)
        self.violations = tuple(violations)


class StoreError(AirliftError):
    """The local disk refuses: full, read-only, or damaged."""


class DeliveryError(AirliftError):
    """A mirror did not take what was given to it.

    Attributes:
        mirror: the mirror's address, without credentials.
        temporary: whether a re-run may succeed.
        status: the mirror's HTTP status, where that is all there is to say.
    """

    def __init__(
        self,
        message: str,
        *,
        mirror: str = "",
        temporary: bool = False,
        status: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.mirror = mirror
        self.temporary = temporary
        self.status = status


class PartialDeliveryError(DeliveryError):
    """Some of the drop is in the mirror, under no name, or some of its names have moved; a re-run goes on."""


class DeployError(AirliftError):
    """The cluster's files or resources cannot be written as asked."""
