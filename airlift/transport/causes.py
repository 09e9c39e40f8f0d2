"""The innermost cause of a failed connection: requests and urllib3 wrap several times, with addresses of objects."""

from __future__ import annotations

import re
import ssl
from http.client import BadStatusLine, RemoteDisconnected
from typing import Final

from airlift.transport import answers

_DEPTH: Final = 8
_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3}) ?([ -~]{,100})")
PROXY_LOGIN: Final = "the proxy wants a login; put it into the proxy's URL"
_PROXY_HINT: Final = "see that the proxy runs, and whether no_proxy should name the server"
_PROXY_HINTS: Final = {
    403: "the proxy does not let this machine reach the server; have it allowed, or name the server in no_proxy",
    407: PROXY_LOGIN,
}
_OTHER_NAME: Final = "reach the server by a name that its certificate has, or let it be issued for this one, too"
_CERTIFICATE_HINTS: Final = {
    # X509_V_ERR_..., in OpenSSL's x509_vfy.h
    9: "set this machine's clock, or the one where the certificate was made",
    10: "renew the server's certificate; if it is valid, set this machine's clock",
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}
_TLS_HINTS: Final = {
    "WRONG_VERSION_NUMBER": "the server does not speak TLS there: see scheme and port of its address",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "give it a certificate of this machine, as docker does: NAME.cert and NAME.key in certs.d/HOST[:PORT]"
    ),
}


def tls_reason(error: Exception) -> str:
    """Return why TLS failed, in one line."""
    cause = _tls_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {cause.verify_message}"
    return "TLS failed" if cause is None else f"TLS failed: {cause.reason or cause}"


def tls_hint(error: Exception, unknown_authority: str) -> str | None:
    """Return what to do where TLS failed.

    Args:
        error: the failure.
        unknown_authority: what to do where nobody is known who vouches for the certificate.
    """
    cause = _tls_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _CERTIFICATE_HINTS.get(cause.verify_code, unknown_authority)
    return None if cause is None else _TLS_HINTS.get(cause.reason)


def is_cut(error: Exception) -> bool:
    """Say whether TLS failed because the other side ended the connection, which says nothing about TLS."""
    return isinstance(_tls_cause(error), (ssl.SSLEOFError, ssl.SSLZeroReturnError))


def _tls_cause(error: Exception) -> ssl.SSLError | None:
    cause: object = error
    while isinstance(cause, Exception):
        if isinstance(cause, ssl.SSLError):
            return cause
        inner = getattr(cause, "reason", None)
        cause = (
            inner if isinstance(inner, Exception) else next((a for a in cause.args if isinstance(a, Exception)), None)
        )
    return None


def is_silence(error: Exception) -> bool:
    """Say whether a connection failed because nothing went on it for too long."""
    return isinstance(_innermost(error), TimeoutError)


def reason(error: Exception) -> str:
    """Return why a connection failed, in one line."""
    cause = _innermost(error)
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    # A server's own bytes may be in it: the line that should have been its status.
    text = answers.line(str(cause).rpartition(">: ")[2]) or type(cause).__name__
    is_no_answer = isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected)
    return f"the answer is not HTTP: {text}" if is_no_answer else text


def proxy_reason(error: Exception) -> tuple[str, int | None, str]:
    """Return why there is no way through a proxy, the status that it refused with if it did, and what to do."""
    found = _TUNNEL.match(str(_innermost(error)))
    if found is None:
        return f"the proxy does not answer: {reason(error)}", None, _PROXY_HINT
    status = int(found[1])
    return (
        f"the proxy makes no way to the server: {status} {found[2]}".rstrip(),
        status,
        _PROXY_HINTS.get(status, _PROXY_HINT),
    )


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
