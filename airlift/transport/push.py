"""Writing to an OCI registry: the half of `airlift.transport.registry.RegistryClient` that a site uses.

Every method raises `DeliveryError`, with the registry's own words. Nothing here makes a name visible but
`push_manifest` with a tag.
"""

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
from airlift.errors import DeliveryError, FetchError, IntegrityError
from airlift.oci import Descriptor
from airlift.transport import urls
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient, HttpStatusError, Response
from airlift.transport.refusals import delivering
from airlift.transport.tokens import Login, Scope
from airlift.transport.upload import BlobUpload, Body, Whole

_CREATED: Final = 201
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_NO_DELETION: Final = 405
_IMMUTABLE: Final = 412
_INTERNAL: Final = 500
_SLOWEST: Final = 10 * limits.MIB
"""Bytes a second that a registry is expected to settle at the end of an upload (object storage copies them)."""

PROBE: Final = b"airlift asks whether digests are compared here"


def with_digest(place: str, digest: Digest) -> str:
    """Return where an upload is closed."""
    return f"{place}{'&' if '?' in place else '?'}{urlencode({'digest': digest})}"


class PushHalf(ABC):
    """Names, login and writing."""

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

    @abstractmethod
    def head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest is right now, or None."""

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
            answer = self._post(repository, digest, {"mount": digest, "from": source}, f"repository:{source}:pull")
        if answer.status == _CREATED:
            return True
        with contextlib.suppress(FetchError):
            # An upload was begun instead.
            self._ask_once("DELETE", self.place_in(answer, repository, digest), repository, digest)
        return False

    def _post(
        self, repository: str, digest: Digest, query: dict[str, str], *more: str, retries: int | None = None
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
        return self.place_in(self._post(repository, digest, {}, retries=retries), repository, digest)

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

    def push_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> bool:
        """Give a manifest or index, unless it is there already; return whether it was sent.

        Args:
            repository: its path.
            reference: a tag, which becomes visible, or its digest.
            data: the bytes.
            media_type: their type.

        Raises:
            DeliveryError: the registry does not take it.
            IntegrityError: the reference is the digest of other bytes.
        """
        digest = digests.of(data)
        name = self.name(repository, reference)
        if reference.startswith("sha256:") and reference != digest:
            raise IntegrityError(name, expected=reference, actual=digest)
        with delivering(self.registry):
            # First, since an immutable tag refuses the same digest too.
            if self._is_there(repository, reference, digest):
                return False
            try:
                self.put_manifest(repository, reference, data, media_type)
            except HttpStatusError as error:
                # After a lost answer: it is there, and that is what counts.
                if error.status != _IMMUTABLE or not self._holds(repository, reference, digest):
                    raise
        return True

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> None:
        """Give a manifest or index, whatever is there; see `push_manifest`.

        Raises:
            HttpStatusError: the registry does not take it.
            FetchError: it does not answer.
        """
        self.http.exchange(
            "PUT",
            self.url(f"/v2/{repository}/manifests/{reference}"),
            limit=limits.ERROR_BODY,
            body=data,
            headers={"Content-Type": media_type},
            auth=self._push_scope(repository),
            plain_http=self.plain_http,
            subject=self.name(repository, reference),
        )

    def delete_tag(self, repository: str, tag: str, digest: Digest) -> bool:
        """Take a tag away and leave what it points at; return whether it is gone.

        Here never: what registries do with a DELETE by tag differs, and some take the manifest with it.

        Raises:
            DeliveryError: the registry refuses.
        """
        del repository, tag, digest
        return False

    def delete_manifest(self, repository: str, digest: Digest) -> bool:
        """Delete a manifest with all its tags; one that is not there is deleted already.

        Returns:
            Whether it is gone; False where the registry deletes nothing.

        Raises:
            DeliveryError: the registry refuses this one.
        """
        with delivering(self.registry):
            answer = self.http.exchange(
                "DELETE",
                self.url(f"/v2/{repository}/manifests/{digest}"),
                limit=limits.ERROR_BODY,
                auth=self.scope(f"repository:{repository}:pull,push,delete"),
                plain_http=self.plain_http,
                subject=self.name(repository, digest),
                accept=(_NOT_FOUND, _NO_DELETION),
            )
        return answer.status != _NO_DELETION

    def _is_there(self, repository: str, reference: str, digest: Digest) -> bool:
        try:
            return self._holds(repository, reference, digest)
        except HttpStatusError as error:
            # A docker-registry that lost its power has links without content, and says this until they are put again.
            if error.status != _INTERNAL:
                raise
            return False

    def _holds(self, repository: str, reference: str, digest: Digest) -> bool:
        found = self.head(repository, reference)
        return found is not None and found.digest == digest
