"""Logging in to one registry: basic, or a bearer token for each scope (distribution's token specification).

* A token is used until the registry refuses it: its stated life may be absent or wrong.
* One 401 makes one token request, however many transfers met it.
* The token service is the one that the registry named when it was asked without a login: some name another once a
  token has expired, which gives nothing (nvcr.io, Harbor).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from airlift import limits
from airlift.errors import FetchError
from airlift.transport import challenges, urls
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient, HttpStatusError, Response

if TYPE_CHECKING:
    from airlift.transport.challenges import Challenge

_NO_POST: Final = frozenset({404, 405})
_CLIENT: Final = "airlift"
_REALM: Final = (
    "a login goes there only by https, or to the registry's own host; let the registry's administrator set the address"
    " that it tells of itself (Harbor: external_url, GitLab: token_realm)"
)


class Login:
    """The state of a login to one registry; `scope` gives what a request needs."""

    def __init__(self, registry: str, base: str, http: HttpClient, credentials: Credentials | None) -> None:
        self._registry = registry
        self._base = base
        self._http = http
        self._credentials = credentials
        self._scopes: dict[str, Scope] = {}
        self._lock = threading.Lock()

    def scope(self, *scopes: str) -> Scope:
        """Return the authorizer for requests that need these scopes, such as ``repository:library/redis:pull``."""
        key = " ".join(scopes)
        with self._lock:
            return self._scopes.setdefault(key, Scope(self, scopes))

    def basic(self) -> str | None:
        """Return the Basic value of the login, or None without one."""
        login = self._credentials
        if login is None or not login.username or login.identity_token:
            return None
        return urls.basic(login.username, login.password)

    def token(self, challenge: Challenge, scopes: tuple[str, ...]) -> str:
        """Ask the token service.

        Raises:
            FetchError: the realm is not to be trusted, or gives no token.
        """
        realm = self._realm(challenge)
        service = challenge.parameters.get("service")
        login = self._credentials
        subject = f"{self._registry}: login"
        try:
            answer = None
            if login is not None and login.identity_token:
                answer = self._refresh(realm, service, scopes, login, subject)
            if answer is None:
                answer = self._http.get_bytes(
                    _with_query(realm, service, scopes, login),
                    limit=limits.ERROR_BODY,
                    auth=self.basic() or self._token_as_password(),
                    plain_http=urlsplit(realm).scheme == "http",
                    subject=subject,
                )
        except HttpStatusError as error:
            if error.status in (401, 403):
                who = "the login is refused" if login else "without a login there is no token"
                hint = self._http.settings.login_hint or f"run docker login {self._registry}, or check the name"
                raise FetchError(f"{error.message} ({who})", hint=hint) from None
            raise
        return _token(answer.body, subject)

    def _refresh(
        self, realm: str, service: str | None, scopes: tuple[str, ...], login: Credentials, subject: str
    ) -> Response | None:
        form = {"grant_type": "refresh_token", "client_id": _CLIENT, "refresh_token": login.identity_token}
        form |= {"scope": " ".join(scopes)} | ({"service": service} if service else {})
        answer = self._http.exchange(
            "POST",
            realm,
            limit=limits.ERROR_BODY,
            body=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            plain_http=urlsplit(realm).scheme == "http",
            subject=subject,
            accept=_NO_POST,
        )
        return None if answer.status in _NO_POST else answer

    def _token_as_password(self) -> str | None:
        login = self._credentials
        if login is None or not login.identity_token:
            return None
        return urls.basic(login.username or "oauth2accesstoken", login.identity_token)

    def _realm(self, challenge: Challenge) -> str:
        """Return the token service's URL: credentials go there, so a registry must not point it anywhere."""
        realm = challenge.parameters.get("realm", "")
        own_scheme, own_host, _ = urls.origin(self._base)
        try:
            scheme, host, _ = urls.origin(realm)
        except FetchError:
            raise FetchError(
                f"{self._registry}: the token service {urls.shown(realm)!r} is no URL", hint=_REALM
            ) from None
        ip = urls.address(host)
        is_inside = host == "localhost" or (ip is not None and not ip.is_global)
        if "@" in urlsplit(realm).netloc:
            raise FetchError(f"{self._registry}: the token service {urls.shown(realm)} carries credentials")
        if scheme == "http" and not (own_scheme == "http" and (host == own_host or urls.is_loopback(host))):
            raise FetchError(f"{self._registry}: the token service {urls.shown(realm)} is plain http", hint=_REALM)
        if is_inside and host != own_host and not (urls.is_loopback(own_host) and urls.is_loopback(host)):
            raise FetchError(
                f"{self._registry}: the token service {urls.shown(realm)} is an address inside a network", hint=_REALM
            )
        return realm


class Scope:
    """Authorizes the requests of one scope (`airlift.transport.http.Authorizer`)."""

    def __init__(self, login: Login, scopes: tuple[str, ...]) -> None:
        self._login = login
        self._scopes = scopes
        self._lock = threading.Lock()
        self._value: str | None = None
        self._challenge: Challenge | None = None

    def header(self) -> str | None:
        """Return the current Authorization value."""
        return self._value

    def challenged(self, used: str | None, headers: Mapping[str, str]) -> bool:
        """Take a 401 for `used`; return whether there is another value to try.

        Raises:
            FetchError: there is no way to log in.
        """
        with self._lock:
            if used != self._value:
                # Another transfer met the same 401 and has been there already.
                return True
            given = challenges.parse(headers.get("WWW-Authenticate") or "")
            bearer = next((c for c in given if c.scheme == "bearer" and c.parameters.get("realm")), None)
            if used is None or self._challenge is None:
                self._challenge = bearer
            if self._challenge is not None:
                self._value = "Bearer " + self._login.token(self._challenge, self._wanted(bearer))
                return True
            basic = self._login.basic()
            if basic is not None and basic != used and any(c.scheme == "basic" for c in given):
                self._value = basic
                return True
            return False

    def refused(self, error: HttpStatusError) -> FetchError:
        """Return a 401 that stays as it is."""
        return error

    def _wanted(self, challenge: Challenge | None) -> tuple[str, ...]:
        """Return our scopes, after what the registry says is missing: some services read the first only."""
        missing = (challenge.parameters.get("scope") or "").split() if challenge else []
        return tuple(dict.fromkeys([*missing, *self._scopes]))


def _with_query(realm: str, service: str | None, scopes: tuple[str, ...], login: Credentials | None) -> str:
    parts = urlsplit(realm)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if service:
        query.append(("service", service))
    query += [("scope", scope) for scope in scopes]
    if login is not None and login.username:
        query.append(("account", login.username))
    return urlunsplit(parts._replace(query=urlencode(query), fragment=""))


def _token(body: bytes, subject: str) -> str:
    try:
        value: Any = json.loads(body)
        token = value.get("token") or value.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or " " in token:
        raise FetchError(f"{subject}: the token service's answer holds no token")
    return token
