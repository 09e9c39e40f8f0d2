"""The innermost cause of a failed connection: requests and urllib3 wrap several times, with addresses of objects."""

from __future__ import annotations

import ssl
from typing import Final

_DEPTH: Final = 8


def tls_reason(error: Exception) -> str:
    """Return why TLS failed, in one line."""
    cause: object = error
    while isinstance(cause, Exception):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {cause.reason or cause}"
        inner = getattr(cause, "reason", None)
        cause = (
            inner if isinstance(inner, Exception) else next((a for a in cause.args if isinstance(a, Exception)), None)
        )
    return "TLS failed"


def is_silence(error: Exception) -> bool:
    """Say whether a connection failed because nothing went on it for too long."""
    return isinstance(_innermost(error), TimeoutError)


def reason(error: Exception) -> str:
    """Return why a connection failed, in one line."""
    cause = _innermost(error)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    text = str(cause)
    return text.rpartition(">: ")[2] or type(cause).__name__


def _innermost(error: Exception) -> Exception:
    cause: Exception = error
    for _ in range(_DEPTH):
        inner = getattr(cause, "reason", None)
        if not isinstance(inner, Exception):
            inner = next((a for a in cause.args if isinstance(a, Exception)), None)
        if inner is None:
            inner = cause.__cause__
        if not isinstance(inner, Exception):
            break
        cause = inner
    return cause
