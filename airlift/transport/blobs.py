"""Blobs on their way into an OCI registry: whether it has them, mounting, and uploads."""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from airlift import digest as digests
from airlift import limits
from airlift.digest import Digest
from airlift.errors import DeliveryError, FetchError
from airlift.transport import urls
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient, HttpStatusError, Response
from airlift.transport.refusals import NO_REPOSITORY, delivering
from airlift.transport.tokens import Login, Scope
from airlift.transport.upload import BlobUpload, Body, Whole

_CREATED: Final = 201
_ACCEPTED: Final = 202
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405
_INTERNAL: Final = 500
_NOT_IMPLEMENTED: Final = 501
_SLOWEST: Final = 10 * limits.MIB
"""Bytes a second that a registry is expected to settle at the end of an upload (object storage copies them)."""

PROBE: Final = b"airlift asks whether digests are compared here"


def with_digest(place: str, digest: Digest) -> str:
    """Return where an upload is closed."""
    return f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': digest})}"


class BlobHalf(ABC):
    """Names, login and blobs."""

    def __init__(self, registry: str, http: HttpClient, credentials: Credentials | None, *, plain_http: bool) -> None:
        self.registry = registry
        self.http = http
        self.plain_http = plain_http
        self._credentials = credentials
        self._login: Login | None = None
        self._compares: bool | None = None
        self._comparing = threading.Lock()

    @property
    @abstractmethod
    def base(self) -> str:
        """``scheme://host[:port]``."""

    def name(self, repository: str, reference: str) -> str:
        """Return the full reference, for messages."""
        return f"{self.registry}/{repository}{'@' if ':' in reference else ':'}{reference}"

    def url(self, path: str) -> str:
        """Return the URL of a path of this registry."""
        return self.base + path

    def own(self, url: str) -> str:
        """Return a URL that the registry gave, on the address that we know it by: proxies lose ports and schemes."""
        parts = urlsplit(url)
        return self.base + urlunsplit(("", "", parts.path, parts.query, ""))

    def scope(self, *scopes: str) -> Scope:
        """Return the authorizer for these scopes."""
        if self._login is None:
            self._login = Login(self.registry, self.base, self.http, self._credentials)
        return self._login.scope(*scopes)

    def _push_scope(self, repository: str, *more: str) -> Scope:
        return self.scope(f"repository:{repository}:pull,push", *more)

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Say whether a repository has a blob.

        Raises:
            DeliveryError: the registry does not answer.
        """
        with delivering(self.registry):
            return self._has_blob(repository, digest)

    def _has_blob(self, repository: str, digest: Digest) -> bool:
        answer = self.http.head(
            self.url(f"/v2/{repository}/blobs/{digest}"),
            auth=self.scope(f"repository:{repository}:pull"),
            plain_http=self.plain_http,
            subject=self.name(repository, digest),
            # 500: a docker-registry whose disk was full has links without content, until the blob is put again.
            accept=(_NOT_FOUND, _INTERNAL),
        )
        return answer.status not in (_NOT_FOUND, _INTERNAL)

    def mount(self, repository: str, digest: Digest, source: str) -> bool:
        """Let a repository have a blob that another repository of this registry has; return whether it worked.

        Raises:
            DeliveryError: the registry refuses.
        """
        with delivering(self.registry):
            answer = self._post(
                repository,
                digest,
                {"mount": digest, "from": source},
                f"repository:{source}:pull",
                # Of who does not know it at all.
                accept=(_BAD_REQUEST, _NOT_FOUND, _NOT_ALLOWED, _NOT_IMPLEMENTED),
            )
        if answer.status != _ACCEPTED:
            return answer.status == _CREATED
        with contextlib.suppress(FetchError):
            # An upload was begun instead.
            self._ask_once("DELETE", self.place_in(answer, repository, digest), repository, digest)
        return False

    def _post(
        self,
        repository: str,
        digest: Digest,
        query: dict[str, str],
        *more: str,
        accept: tuple[int, ...] = (),
        retries: int | None = None,
    ) -> Response:
        # With the slash: without it Harbor answers 301.
        path = f"/v2/{repository}/blobs/uploads/" + (f"?{urlencode(query)}" if query else "")
        return self.http.exchange(
            "POST",
            self.url(path),
            limit=limits.ERROR_BODY,
            body=b"",
            auth=self._push_scope(repository, *more),
            plain_http=self.plain_http,
            subject=self.name(repository, digest),
            accept=accept,
            retries=retries,
        )

    def push_blob(
        self, repository: str, digest: Digest, size: int, chunks: Callable[[], Iterable[bytes | memoryview]]
    ) -> bool:
        """Give a blob to a repository, unless it has it; return whether bytes were sent.

        Args:
            repository: its path.
            digest: what the registry checks.
            size: in bytes.
            chunks: yields the content from its beginning; called again for another attempt.

        Raises:
            DeliveryError: the registry does not take it.
            IntegrityError: the chunks are not `size` bytes.
        """
        failures = 0
        while not self.has_blob(repository, digest):
            with delivering(self.registry):
                # Repeats by itself; what it cannot get that way is not worth this loop as well.
                place = self._place(repository, digest)
            try:
                with delivering(self.registry):
                    self._put(repository, digest, size, place, Whole(self.name(repository, digest), size, chunks()))
            except DeliveryError as error:
                failures += 1
                if not error.temporary or failures > self.http.settings.retries:
                    raise
                self.http.pause(failures, self.base)
            else:
                return True
        return False

    def compares_digests(self, repository: str) -> bool:
        """Say whether the registry compares a blob with its digest before it takes it; asked once, by a wrong digest.

        Where that gets no clear answer at once, it counts as no.

        Args:
            repository: where an upload may be begun. What stays of it is what the registry keeps of any that was ended.
        """
        with self._comparing:
            if self._compares is None:
                self._compares = self._refuses_wrong_digest(repository)
            return self._compares

    def _refuses_wrong_digest(self, repository: str) -> bool:
        digest = digests.of(PROBE)
        try:
            place = self._place(repository, digest, retries=0)
        except FetchError:
            return False

        try:
            # Nothing instead of the probe: with bytes in it, docker-registry does not let an upload be ended.
            self._ask_once("PUT", with_digest(place, digest), repository, digest)
        except HttpStatusError as error:
            if error.status != _BAD_REQUEST or "DIGEST_INVALID" not in error.said:
                return False
        except FetchError:
            return False
        else:
            return False
        with contextlib.suppress(FetchError):
            self._ask_once("DELETE", place, repository, digest)
        return True

    def _ask_once(self, method: str, url: str, repository: str, digest: Digest) -> None:
        """Ask something of an upload, at once or not at all: others wait for this."""
        self.http.exchange(
            method,
            url,
            limit=limits.ERROR_BODY,
            body=b"",
            auth=self._push_scope(repository),
            plain_http=self.plain_http,
            subject=self.name(repository, digest),
            retries=0,
        )

    def _place(self, repository: str, digest: Digest, *, retries: int | None = None) -> str:
        """Begin an upload and return where the bytes go."""
        try:
            answer = self._post(repository, digest, {}, retries=retries)
        except HttpStatusError as error:
            if error.status == _NOT_FOUND:
                error.hint = NO_REPOSITORY
            raise
        return self.place_in(answer, repository, digest)

    def place_in(self, answer: Response, repository: str, digest: Digest) -> str:
        """Return where an upload goes on.

        Raises:
            FetchError: the answer does not say.
        """
        location = answer.headers.get("Location")
        if not location:
            raise FetchError(f"{self.name(repository, digest)}: the registry names no place for the upload")
        # Resolved against what was asked, since it may be relative.
        return self.own(urls.joined(self.url(f"/v2/{repository}/blobs/uploads/"), location))

    def blob_upload(self, repository: str, digest: Digest, size: int) -> BlobUpload:
        """Begin to give a blob to a repository, piece by piece; a context manager.

        Leaving the block without `commit` gives it up. It is one request (nothing resumes inside a body), sent by a
        thread of its own while `write` is fed; at most a few MiB wait in between.

        Raises:
            DeliveryError: the registry does not take it, here or in a later `write` or `commit`.
        """
        with delivering(self.registry):
            place = self._place(repository, digest)

        def send(body: Body) -> None:
            with delivering(self.registry):
                self._put(repository, digest, size, place, body)

        def is_there() -> bool:
            with contextlib.suppress(DeliveryError):
                return self.has_blob(repository, digest)
            return False

        return BlobUpload(self.name(repository, digest), size, send, is_there)

    def _put(self, repository: str, digest: Digest, size: int, place: str, body: Body | Whole) -> None:
        self.send_blob("PUT", repository, digest, with_digest(place, digest), body if size else b"", size=size)

    def send_blob(
        self, method: str, repository: str, digest: Digest, url: str, body: Body | Whole | bytes, *, size: int
    ) -> Response:
        """Make a request of an upload that carries bytes of its blob, or ends it.

        Args:
            method: PUT or PATCH.
            repository: its path.
            digest: of the blob.
            url: where the upload goes on.
            body: what of the blob is sent.
            size: of the whole blob, which says how long the registry may take.

        Raises:
            FetchError: the registry does not take them.
        """
        try:
            return self.http.exchange(
                method,
                url,
                limit=limits.ERROR_BODY,
                body=body,
                headers={"Content-Type": "application/octet-stream"},
                auth=self._push_scope(repository),
                plain_http=self.plain_http,
                subject=self.name(repository, digest),
                timeout_s=max(120, self.http.settings.timeout_s) + size / _SLOWEST,
            )
        except HttpStatusError as error:
            if error.status in (_BAD_REQUEST, _NOT_FOUND) and "BLOB_UPLOAD_" in error.said:
                # Lost by a restart, or begun at another of several registries: a new one may live.
                error.temporary = True
            raise
