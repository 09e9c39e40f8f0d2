"""How a Harbor is talked to: its login, what its refusals mean, and its own API beside that of a registry.

Every request carries Basic: Harbor's tokens expire into a challenge for Basic, and 401 there may as well mean that a
project is missing. See docs/site-harbor.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from airlift import limits
from airlift.errors import FetchError
from airlift.oci import Descriptor
from airlift.transport import urls
from airlift.transport.credentials import Credentials
from airlift.transport.harbor_login import HarborLogin, Meaning, Refusals, RefusedError
from airlift.transport.http import HttpClient, HttpStatusError, Response
from airlift.transport.refusals import POLICY, delivering
from airlift.transport.registry import RegistryClient
from airlift.transport.tokens import Login, Scope

_ANY: Final = range(200, 600)
_REDIRECTS: Final = range(300, 400)
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_BLOCKED: Final = 412


class HarborApi(RegistryClient):
    """One Harbor with one account. Safe to use from many threads.

    Args:
        registry: ``host[:port]``.
        http: the client.
        credentials: the account, a user or a robot.
        plain_http: use http.
    """

    takes_sparse = False
    # Its 401 may as well mean that the database is away.
    no_referrers: tuple[int, ...] = (_NOT_FOUND,)

    def __init__(self, registry: str, *, http: HttpClient, credentials: Credentials, plain_http: bool = False) -> None:
        super().__init__(registry, http=http, credentials=credentials, plain_http=plain_http)
        self._user = credentials.username
        self._refusals: Refusals | None = None

    def scope(self, *scopes: str) -> Scope:
        """Return the authorizer: Basic for all scopes, which say what a 401 is about."""
        if self._login is None or self._refusals is None:
            self._login = Login(self.registry, self.base, self.http, self._credentials)
            self._refusals = Refusals(
                self.registry,
                self._user,
                self.http,
                base=self.base,
                basic=self._login.basic(),
                plain_http=self.plain_http,
            )
        return HarborLogin(self._login, self._refusals, scopes)

    def head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest is right now, or None; a missing project has none.

        Raises:
            FetchError: the registry does not answer.
        """
        try:
            return super().head(repository, reference)
        except RefusedError as error:
            if error.meaning is Meaning.PROJECT:
                return None
            raise
        except HttpStatusError as error:
            if error.status == _BLOCKED:
                raise FetchError(error.message, hint=POLICY) from None
            raise

    def ready(self) -> None:
        """Ask whether this is a Harbor that knows the account and may be written to.

        Raises:
            DeliveryError: it is not.
        """
        with delivering(self.registry):
            self._refuse_another_place()
            info = self.document(self.api("GET", "/systeminfo"), "systeminfo")
            if not isinstance(info, dict) or "auth_mode" not in info:
                raise FetchError(
                    f"{self.registry}: this is no Harbor", hint="leave out kind: harbor in site.yaml, or mend its url"
                )
            # A refused login is answered as if nobody had asked; the registry says what is wrong with it.
            self.ping()
            if self._refusals is not None:
                self._refusals.let_in()
            self._refuse_read_only(info)

    def _refuse_another_place(self) -> None:
        """Ask without the login, which may be about to go in clear to a proxy that only knows the way."""
        url = self.url("/api/v2.0/systeminfo")
        answer = self.http.exchange(
            "GET",
            url,
            limit=limits.DOCUMENT,
            plain_http=self.plain_http,
            subject=self.registry,
            accept=_ANY,
            is_followed=False,
        )
        target = urls.joined(url, answer.headers.get("Location") or url)
        if answer.status in _REDIRECTS and urls.origin(target) != urls.origin(url):
            parts = urlsplit(target)
            raise FetchError(
                f"{self.registry}: {urls.shown(url)} redirects to {urls.shown(target)}",
                hint=f"if this is the Harbor that is meant, give url: {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
                " in site.yaml, and ca: where its certificate is of a private authority",
            )

    def _refuse_read_only(self, info: Mapping[str, Any]) -> None:
        if info.get("read_only") is True:
            raise FetchError(
                f"{self.registry}: the registry is in read-only mode",
                hint="let its administrator end the read-only mode, then run the same command again",
            )

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> None:
        """See `airlift.transport.push.PushHalf.put_manifest`."""
        try:
            super().put_manifest(repository, reference, data, media_type)
        except HttpStatusError as error:
            # An index without its manifests never comes here; what an image lacks was there a moment ago.
            if error.status == _BAD_REQUEST and "MANIFEST_BLOB_UNKNOWN" in error.said:
                raise FetchError(
                    error.message,
                    hint="Harbor's garbage collection took a blob before its manifest came; run the same command again,"
                    " which sends what is missing",
                ) from None
            raise

    def api(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        accept: Iterable[int] = (),
        retries: int | None = None,
    ) -> Response:
        """Ask Harbor's API; `path` is what follows ``/api/v2.0``.

        Raises:
            RefusedError: it answers 401.
            HttpStatusError: it answers with another error that is not in `accept`.
            FetchError: it does not answer.
        """
        headers = {"X-Is-Resource-Name": "true"}
        return self.http.exchange(
            method,
            self.url(f"/api/v2.0{path}"),
            limit=0 if method == "HEAD" else limits.DOCUMENT,
            body=body,
            headers=headers if body is None else {**headers, "Content-Type": "application/json"},
            auth=self.scope(),
            plain_http=self.plain_http,
            subject=f"{self.registry}: {path.partition('?')[0].strip('/')}",
            accept=tuple(accept),
            retries=retries,
        )

    def document(self, answer: Response, name: str) -> Any:
        """Return what an answer of the API holds.

        Raises:
            FetchError: it is no JSON.
        """
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            raise FetchError(f"{self.registry}: the answer about {name} is no JSON", hint="is this a Harbor?") from None
