"""An OCI registry, asked as the distribution specification 1.1 says. Manifests are returned byte for byte, verified.

`RegistryClient` reads here; what it writes is in `airlift.transport.push`, and lists of referrers in
`airlift.transport.referrers`.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlencode

from airlift import digest as digests
from airlift import limits, oci
from airlift.digest import Digest
from airlift.errors import FetchError, IntegrityError
from airlift.oci import Descriptor, Manifest
from airlift.reference import DEFAULT_REGISTRY
from airlift.transport import urls
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient, HttpStatusError, Response, Sink
from airlift.transport.push import PushHalf
from airlift.transport.refusals import delivering
from airlift.transport.tokens import Scope

_HOSTS: Final = {DEFAULT_REGISTRY: "registry-1.docker.io"}
_NEXT: Final = re.compile(r"<([^<>]+)>\s*;\s*rel=\"?next\"?")
_NO_REFERRERS: Final = (400, 401, 403, 404, 405, 406, 501)
"""What registries without the referrers API say when it is asked, and to who asks for a list that is not there."""

_NOT_FOUND: Final = 404
_OK: Final = 200
_TAGS_PAGE: Final = 1000
_MAX_PAGES: Final = 1000


def fallback_tag(digest: Digest, suffix: str = "") -> str:
    """Return the tag that stands for what refers to a digest: ``sha256-<hex>``, with ``.sig`` and so on."""
    return f"sha256-{digests.hex_of(digest)}{suffix}"


class RegistryClient(PushHalf):
    """One registry with one login. Safe to use from many threads.

    Args:
        registry: ``host[:port]``; ``docker.io`` for Docker Hub.
        http: the client.
        credentials: the login, or None.
        plain_http: use http. Without it a registry on this machine is asked which of the two it speaks.

    Attributes:
        takes_sparse: whether it takes an index some of whose manifests it does not have.
        no_referrers: the statuses with which it says that it has no referrers API.
    """

    takes_sparse = True
    no_referrers: tuple[int, ...] = _NO_REFERRERS

    def __init__(
        self, registry: str, *, http: HttpClient, credentials: Credentials | None = None, plain_http: bool = False
    ) -> None:
        super().__init__(registry, http, credentials, plain_http=plain_http)
        self._probe = threading.Lock()
        self._base: str | None = None

    @property
    def base(self) -> str:
        """``scheme://host[:port]``.

        Raises:
            FetchError: a registry on this machine does not answer.
        """
        with self._probe:
            if self._base is None:
                host = _HOSTS.get(self.registry, self.registry)
                name = urls.split(f"https://{host}").hostname or ""
                is_plain = self.plain_http or (urls.is_loopback(name) and self._speaks_http(host))
                self._base = f"{'http' if is_plain else 'https'}://{host}"
            return self._base

    def _speaks_http(self, host: str) -> bool:
        """Say whether a registry on this machine takes plain http: one with TLS says 400, or nothing."""
        try:
            answer = self.http.exchange(
                "GET",
                f"http://{host}/v2/",
                limit=limits.ERROR_BODY,
                accept=range(300, 600),
                subject=self.registry,
                retries=0,
            )
        except FetchError:
            return False
        return answer.status != 400  # noqa: PLR2004 - what Go and nginx say to http on a TLS port

    def manifest(self, repository: str, reference: str) -> Manifest:
        """Return a manifest or index.

        Args:
            repository: its path.
            reference: a tag or digest.

        Raises:
            HttpStatusError: the registry does not have it, or does not give it.
            FetchError: the registry does not answer.
            IntegrityError: what came is not what was asked for, or no manifest.
        """
        name = self.name(repository, reference)
        answer = self.http.get_bytes(
            self.url(f"/v2/{repository}/manifests/{reference}"),
            limit=limits.SMALL_BLOB,
            headers={"Accept": oci.ACCEPT},
            auth=self.pull_scope(repository),
            plain_http=self.plain_http,
            subject=name,
        )
        announced = answer.headers.get("Docker-Content-Digest")
        actual = digests.of(answer.body)
        expected = reference if reference.startswith("sha256:") else announced
        if expected is not None and expected.startswith("sha256:") and expected != actual:
            raise IntegrityError(name, expected=expected, actual=actual)
        return oci.parse_manifest(answer.body, subject=name, media_type=_media_type(answer))

    def head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest is right now, or None when the registry does not have it.

        Raises:
            FetchError: the registry does not answer.
            IntegrityError: its answer contradicts itself.
        """
        name = self.name(repository, reference)
        answer = self.http.head(
            self.url(f"/v2/{repository}/manifests/{reference}"),
            headers={"Accept": oci.ACCEPT},
            auth=self.pull_scope(repository),
            plain_http=self.plain_http,
            subject=name,
            accept=(_NOT_FOUND,),
        )
        if answer.status == _NOT_FOUND:
            return None
        announced = answer.headers.get("Docker-Content-Digest")
        length = answer.headers.get("Content-Length", "")
        if announced is None or not re.fullmatch(r"[0-9]{1,9}", length):
            return self.manifest(repository, reference).descriptor
        return Descriptor(_media_type(answer) or oci.MANIFEST, digests.parse(announced, subject=name), int(length))

    def blob(self, repository: str, digest: Digest, size: int, sink: Sink) -> None:
        """Stream a blob into `sink`, from byte ``sink.written`` on. The sink verifies.

        Raises:
            FetchError: the registry does not have it, or stops answering.
            IntegrityError: it has another size.
        """
        self.http.download(
            self.url(f"/v2/{repository}/blobs/{digest}"),
            sink,
            size=size,
            auth=self.pull_scope(repository),
            plain_http=self.plain_http,
            subject=self.name(repository, digest),
        )

    def referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to a digest: by the referrers API, else by the tag ``sha256-<hex>``.

        Raises:
            FetchError: the registry does not answer.
            IntegrityError: its answer is no index.
        """
        listed = self.listed_referrers(repository, digest)
        return self._fallback(repository, digest) if listed is None else listed

    def listed_referrers(self, repository: str, digest: Digest) -> tuple[Descriptor, ...] | None:
        """Return what the referrers API lists for a digest, of all pages; None where there is no such API.

        Raises:
            FetchError: the registry does not answer.
            IntegrityError: its answer is no index.
        """
        found: dict[Digest, Descriptor] = {}
        for answer in self._pages(repository, f"/v2/{repository}/referrers/{digest}", self.no_referrers):
            if answer.status != _OK:
                return None
            name = f"referrers of {self.name(repository, digest)}"
            index = oci.parse_manifest(answer.body, subject=name, media_type=oci.INDEX)
            found |= {item.digest: item for item in index.manifests}
            if len(found) > limits.ARTIFACTS:
                raise IntegrityError(name, expected=f"at most {limits.ARTIFACTS} of them", actual="more")
        return tuple(found.values())

    def _fallback(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        try:
            index = self.manifest(repository, fallback_tag(digest))
        except HttpStatusError as error:
            if error.status in self.no_referrers:
                return ()
            raise
        return index.manifests if index.is_index else ()

    def tags(self, repository: str) -> tuple[str, ...]:
        """Return all tags of a repository, of all pages.

        Raises:
            FetchError: the registry does not have the repository, or does not answer.
            IntegrityError: its answer is no list of tags.
        """
        found: dict[str, None] = {}
        name = f"tags of {self.registry}/{repository}"
        for answer in self._pages(repository, f"/v2/{repository}/tags/list?{urlencode({'n': _TAGS_PAGE})}", ()):
            for tag in _tags(answer.body, name):
                found.setdefault(tag)
            if len(found) > limits.ARTIFACTS:
                raise IntegrityError(name, expected=f"at most {limits.ARTIFACTS} tags", actual="more")
        return tuple(found)

    def _pages(self, repository: str, path: str, accept: tuple[int, ...]) -> Iterator[Response]:
        url = self.url(path)
        seen: set[str] = set()
        while len(seen) < _MAX_PAGES:
            seen.add(url)
            answer = self.http.exchange(
                "GET",
                url,
                limit=limits.SMALL_BLOB,
                auth=self.pull_scope(repository),
                plain_http=self.plain_http,
                subject=f"{self.registry}/{repository}",
                accept=accept,
            )
            yield answer
            match = _NEXT.search(answer.headers.get("Link") or "")
            if answer.status != _OK or match is None:
                return
            url = self.own(urls.joined(url, match[1]))
            if url in seen:
                raise FetchError(f"{self.registry}/{repository}: the pages of {urls.shown(url)} turn in circles")
        raise FetchError(f"{self.registry}/{repository}: more than {_MAX_PAGES} pages")

    def ping(self) -> None:
        """Ask whether this is a registry that lets us in.

        Raises:
            FetchError: it is not, or does not.
        """
        self.http.get_bytes(
            self.url("/v2/"),
            limit=limits.ERROR_BODY,
            auth=self.scope(),
            plain_http=self.plain_http,
            subject=self.registry,
        )

    def ready(self) -> None:
        """Ask whether this is a registry that lets us in and, where it tells, may be written to.

        Raises:
            DeliveryError: it is not.
        """
        with delivering(self.registry):
            self.ping()

    def pull_scope(self, repository: str) -> Scope:
        """Return the authorizer for reading a repository."""
        return self.scope(f"repository:{repository}:pull")


def _media_type(answer: Response) -> str | None:
    kind = (answer.headers.get("Content-Type") or "").partition(";")[0].strip()
    return kind or None


def _tags(body: bytes, subject: str) -> list[str]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = body[:40]
    tags = value.get("tags") if isinstance(value, dict) else value
    if tags is None:
        return []
    if not isinstance(tags, list) or not all(isinstance(tag, str) and len(tag) <= limits.NAME for tag in tags):
        raise IntegrityError(subject, expected="a list of tags", actual=repr(tags)[:100])
    return tags
