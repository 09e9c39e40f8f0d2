"""One request on the wire: certificates, proxies, redirects, challenges, and reading what comes.

Always true: credentials reach only the origin they were given for; no netrc, no cookies; plain http only to this
machine or where it was asked for; a body comes as it was sent and within a bound.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Final, Protocol

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.util.ssl_ import create_urllib3_context

from airlift import limits
from airlift.errors import FetchError, IntegrityError
from airlift.transport import answers, urls
from airlift.transport.causes import PROXY_LOGIN, is_cut, is_silence, proxy_reason, reason, tls_hint, tls_reason
from airlift.transport.connections import Connections
from airlift.transport.settings import HttpSettings

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_HOPS: Final = 8
_MAX_CHALLENGES: Final = 3
"""Two, and one for a token that another request got and that has ended since."""

_READ: Final = 256 * limits.KIB
_LEAST: Final = 1 * limits.KIB
"""What has to arrive within each `timeout_s`, else the transfer counts as stalled."""

_HINTS: Final = {
    401: "log in first (docker login, or the credentials that this source reads)",
    403: "the account that is used may not read this",
    407: PROXY_LOGIN,
    429: "the server limits requests; log in, or try again later",
}

_SILENT: Final = (
    "the server takes connections and then neither answers nor reads; see to it, and run this command again"
)
_UNREACHED: Final = "see that it runs, and that this machine reaches it"
_MEND_DISK: Final = "make room there, or make it writable, and run the same command again"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `headers` ignores case; `url` is where the last redirect led; `body` is b"" after a download."""

    body: bytes
    headers: Mapping[str, str]
    url: str
    status: int


class HttpStatusError(FetchError):
    """A server answered with an error.

    Attributes:
        status: the HTTP status.
        headers: of the answer.
        said: what the server says about it, one line, may be empty.
    """

    def __init__(
        self, message: str, *, response: Response, said: str, temporary: bool = False, hint: str | None = None
    ) -> None:
        super().__init__(message, temporary=temporary, hint=hint)
        self.status = response.status
        self.headers = response.headers
        self.said = said


class SilentError(FetchError):
    """A server neither answered nor took what was sent to it in time.

    Attributes:
        is_last: whether it was silent before, so that it is not asked once more.
    """

    def __init__(self, message: str, *, hint: str | None = _SILENT, is_last: bool = False) -> None:
        super().__init__(message, temporary=True, hint=hint)
        self.is_last = is_last


class Authorizer(Protocol):
    """Gives Authorization values and is told when one is refused. Used from many threads."""

    def header(self) -> str | None:
        """Return the value to send, or None for none."""

    def challenged(self, used: str | None, headers: Mapping[str, str]) -> bool:
        """A 401 came for `used`, with these headers; return whether another value is worth an attempt.

        Raises:
            FetchError: the login itself fails.
        """

    def refused(self, error: HttpStatusError) -> FetchError:
        """Return what a 401 that stays means, to be raised."""


Auth = str | Authorizer | None
"""An Authorization value, or what gives one; sent to the origin of the URL it was passed with and to no other."""


class _Adapter(HTTPAdapter):
    """Connections that trust some authorities beside the bundle, as docker does with a registry's own."""

    def __init__(self, authorities: tuple[Path, ...], connections: Connections) -> None:
        self._pools = connections.pools()
        self._options: dict[str, Any] = {}
        if authorities:
            context = create_urllib3_context()
            for path in authorities:
                try:
                    context.load_verify_locations(path)
                except OSError as error:
                    raise FetchError(f"{path} is not a certificate that can be used: {reason(error)}") from None
            self._options["ssl_context"] = context
        super().__init__(pool_connections=16, pool_maxsize=16, max_retries=0)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:  # noqa: FBT001, FBT002 - the library's signature
        """See `HTTPAdapter`."""
        super().init_poolmanager(connections, maxsize, block, **options, **self._options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """See `HTTPAdapter`."""
        manager: Any = super().proxy_manager_for(proxy, **options, **self._options)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _new_session(authorities: tuple[Path, ...], connections: Connections) -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(authorities, connections))
    return session


class Wire:
    """Sends requests. Safe to use from many threads; connections are pooled."""

    def __init__(self, settings: HttpSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._sessions: dict[tuple[Path, ...], requests.Session] = {}
        self._lock = threading.Lock()
        self._connections = Connections(clock)

    def break_off(self) -> None:
        """Let every request that is under way fail, and every later one."""
        self._connections.break_off()

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            for session in self._sessions.values():
                session.close()

    def _session(self, authorities: tuple[Path, ...]) -> requests.Session:
        """Return the session whose connections trust these certificates too."""
        with self._lock:
            if authorities not in self._sessions:
                self._sessions[authorities] = _new_session(authorities, self._connections)
            return self._sessions[authorities]

    @contextlib.contextmanager
    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        auth: Auth,
        body: bytes | Iterable[bytes | memoryview] | None,
        *,
        plain_http: bool,
        subject: str,
        timeout_s: float | None = None,
        is_followed: bool = True,
    ) -> Iterator[requests.Response]:
        """Send, follow redirects unless told not to, answer challenges; yield the answer unread."""
        url, own = urls.without_user(url)
        auth = auth or own
        challenges = 0
        while True:
            value = auth if isinstance(auth, str) or auth is None else auth.header()
            raw = self._follow(
                method,
                url,
                headers,
                value,
                body,
                hops=_MAX_HOPS if is_followed else 1,
                plain_http=plain_http,
                subject=subject,
                timeout_s=timeout_s,
            )
            try:
                if (
                    raw.status_code == requests.codes.unauthorized
                    and auth is not None
                    and not isinstance(auth, str)
                    and challenges < _MAX_CHALLENGES
                    and urls.origin(raw.url) == urls.origin(url)
                    and auth.challenged(value, raw.headers)
                ):
                    if not (body is None or isinstance(body, bytes)):
                        # Who streams a body begins anew, and then with the new login.
                        error = self.error(raw, method, subject)
                        error.temporary = True
                        raise error
                    challenges += 1
                    self.drain(raw)
                    continue
                yield raw
                return
            finally:
                raw.close()

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        value: str | None,
        body: bytes | Iterable[bytes | memoryview] | None,
        *,
        hops: int,
        plain_http: bool,
        subject: str,
        timeout_s: float | None = None,
    ) -> requests.Response:
        home = urls.origin(url)
        for _ in range(hops):
            given = {k: v for k, v in headers.items() if k.lower() != "authorization" or urls.origin(url) == home}
            if value is not None and urls.origin(url) == home:
                given["Authorization"] = value
            raw = self._send(method, url, given, body, plain_http=plain_http, subject=subject, timeout_s=timeout_s)
            location = raw.headers.get("Location")
            is_whole = body is None or isinstance(body, bytes)
            if raw.status_code not in _REDIRECTS or not location or not is_whole or hops == 1:
                return raw
            self.drain(raw)
            target, _user = urls.without_user(urls.joined(url, location))
            if urls.origin(url)[0] == "https" and urls.origin(target)[0] == "http":
                raise FetchError(f"{subject}: {urls.shown(url)} redirects from https to {urls.shown(target)}")
            if body and urls.origin(target) != home:
                # What is in a body (a refresh token) is for nobody else either.
                raise FetchError(f"{subject}: {urls.shown(url)} redirects what we send to {urls.shown(target)}")
            if raw.status_code == requests.codes.see_other and method != "HEAD":
                method, body = "GET", None
            url = target
        raise FetchError(f"{subject}: more than {_MAX_HOPS} redirects, the last to {urls.shown(url)}")

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Iterable[bytes | memoryview] | None,
        *,
        plain_http: bool,
        subject: str,
        timeout_s: float | None = None,
    ) -> requests.Response:
        scheme, host, port = urls.origin(url)
        if scheme == "http" and not plain_http and not urls.is_loopback(host):
            raise FetchError(
                f"{subject}: {urls.shown(url)} is plain http to another machine",
                hint="use https, or set plain_http: true for this entry of the manifest",
            )
        basis = {"User-Agent": self._settings.user_agent, "Accept-Encoding": "identity"}
        request = requests.Request(method, url, headers={**basis, **headers}, data=body)
        authorities, pair = self._certificates(host, port)
        where = f"{subject}: {method} {urls.shown(url)}"
        try:
            return self._session(authorities).send(
                request.prepare(),
                stream=True,
                allow_redirects=False,
                timeout=(self._settings.timeout_s, timeout_s or self._settings.timeout_s),
                verify=str(self._settings.ca_bundle) if self._settings.ca_bundle else True,
                cert=pair,
                proxies=urls.proxies_for(url, self._settings.proxies, self._settings.no_proxy),
            )
        except requests.exceptions.SSLError as error:
            if is_cut(error):
                message = f"{where}: the connection was cut while TLS was set up"
                raise FetchError(message, temporary=True, hint=_UNREACHED) from None
            raise FetchError(
                f"{where}: {tls_reason(error)}",
                hint=tls_hint(error, self._settings.ca_hint),
            ) from None
        except requests.exceptions.ProxyError as error:
            message, status, hint = proxy_reason(error)
            is_passing = status is None or status in _PASSING
            raise FetchError(f"{where}: {message}", temporary=is_passing, hint=hint) from None
        except requests.exceptions.ConnectTimeout:
            message = f"{where}: no connection within {self._settings.timeout_s:g} s"
            raise SilentError(message, hint=_UNREACHED) from None
        except requests.exceptions.Timeout:
            raise SilentError(f"{where}: no answer within {timeout_s or self._settings.timeout_s:g} s") from None
        except (requests.exceptions.ConnectionError, urllib3.exceptions.HTTPError) as error:
            if is_silence(error):
                message = f"{where}: nothing of what is sent was taken for {self._settings.timeout_s:g} s"
                raise SilentError(message) from None
            raise FetchError(f"{where}: {reason(error)}", temporary=True, hint=_UNREACHED) from None
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            raise FetchError(f"{where}: {reason(error)}") from None

    def _certificates(self, host: str, port: int) -> tuple[tuple[Path, ...], tuple[str, str] | None]:
        """Return further authorities of a server, and the certificate and key to show to it."""
        if self._settings.certs_dir is not None:
            for name in (f"{host}:{port}", host):
                folder = self._settings.certs_dir / name
                authorities = tuple(sorted(folder.glob("*.crt")))
                pairs = [(c, c.with_suffix(".key")) for c in sorted(folder.glob("*.cert"))]
                if authorities or pairs:
                    return authorities, next(((str(c), str(k)) for c, k in pairs if k.is_file()), None)
        own = str(self._settings.client_cert) if self._settings.client_cert else None
        return (), None if own is None else (own, own)

    def read(self, raw: requests.Response, subject: str, limit: int, *, strict: bool) -> Iterator[bytes]:
        """Yield the body as it was sent; at most `limit` bytes.

        When `strict`, more of them is an error; else that, or a wait that is over, is the end.
        """
        where = f"{subject}: {urls.shown(raw.url)}"
        seen, window, since = 0, 0, self._clock()
        while True:
            try:
                chunk = raw.raw.read1(_READ, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError) as error:
                if isinstance(error, (urllib3.exceptions.TimeoutError, TimeoutError)):
                    message = f"{where}: nothing came for {self._settings.timeout_s:g} s after {seen} bytes"
                    raise SilentError(message) from None
                raise FetchError(f"{where}: the connection was cut after {seen} bytes", temporary=True) from None
            if not chunk:
                return
            seen += len(chunk)
            if seen > limit:
                if strict:
                    raise IntegrityError(where, expected=f"at most {limit} bytes", actual="more")
                return
            window += len(chunk)
            elapsed = self._clock() - since
            if elapsed > self._settings.timeout_s:
                if not strict:
                    # What is only to be told, or thrown away, is worth one wait.
                    yield chunk
                    return
                if window < _LEAST:
                    raise FetchError(f"{where}: stalled, {window} bytes in {elapsed:.0f} s", temporary=True)
                window, since = 0, self._clock()
            yield chunk

    def drain(self, raw: requests.Response) -> None:
        """Take the rest of an answer that nobody wants, so that the connection can be used again."""
        with contextlib.suppress(FetchError):
            for _ in self.read(raw, "", limits.ERROR_BODY, strict=False):
                pass
        raw.close()

    def error(self, raw: requests.Response, method: str, subject: str) -> HttpStatusError:
        """Return the error that an answer is, with what the server says about it."""
        try:
            body = b"".join(self.read(raw, subject, limits.ERROR_BODY, strict=False))
        except FetchError:
            body = b""
        said = answers.excerpt(body)
        status = raw.status_code
        fault = answers.disk_fault(body) if status >= requests.codes.internal_server_error else None
        message = (
            f"{subject}: {method} {urls.shown(raw.url)} answered {status} {answers.line(raw.reason or '')}".rstrip()
        )
        return HttpStatusError(
            f"{message}: {said}" if said else message,
            response=Response(body, CaseInsensitiveDict(raw.headers), raw.url, status),
            said=said,
            temporary=status in _PASSING and fault is None,
            hint=_HINTS.get(status) if fault is None else f"the server's disk says: {fault}; {_MEND_DISK}",
        )
