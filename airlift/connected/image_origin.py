"""Where an image is read from: the port that registries, layouts and archives have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from airlift.digest import Collector, Digest
from airlift.errors import ResolveError
from airlift.kinds import images
from airlift.oci import Descriptor, Manifest
from airlift.reference import Reference
from airlift.transport.http import HttpStatusError
from airlift.transport.registry import RegistryClient

_ABSENT: Final = frozenset({400, 401, 403, 404, 405})
_NOT_FOUND: Final = 404


class Origin(Protocol):
    """One repository."""

    @property
    def name(self) -> str:
        """The full reference that is read, for messages."""

    def root(self) -> Manifest:
        """Return what the reference names.

        Raises:
            ResolveError: it is not there.
        """

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """Return a manifest by digest, verified.

        Raises:
            ResolveError: it is not there.
        """

    def small(self, descriptor: Descriptor) -> bytes:
        """Return a small blob, verified.

        Raises:
            ResolveError: it is not there.
        """

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what refers to a digest."""

    def tagged(self, tag: str) -> Descriptor | None:
        """Return what a tag of the repository names, or None."""

    def found_at(self, blob: Descriptor) -> Mapping[str, str]:
        """Return what the lock notes, so that the blob is found again.

        Raises:
            ResolveError: it can be seen already that it is not there.
        """


class RegistryOrigin:
    """A repository of a registry."""

    def __init__(self, client: RegistryClient, reference: Reference, *, plain_http: bool) -> None:
        self._client = client
        self._reference = reference
        self._plain_http = plain_http

    @property
    def name(self) -> str:
        """The full reference."""
        return str(self._reference)

    def root(self) -> Manifest:
        """See `Origin`. With a digest it decides, wherever the tag points by now."""
        try:
            return self._client.manifest(self._reference.repository, self._reference.target)
        except HttpStatusError as error:
            if error.status != _NOT_FOUND:
                raise
            what = f"digest {self._reference.digest}" if self._reference.digest else f"tag {self._reference.tag}"
            raise ResolveError(
                f"{self.name}: {self._reference.registry} does not have the {what}"
                + (error.said and f" ({error.said})"),
                hint="check the reference; what was deleted at its registry cannot be fetched",
            ) from None

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """See `Origin`."""
        try:
            return self._client.manifest(self._reference.repository, descriptor.digest)
        except HttpStatusError as error:
            if error.status != _NOT_FOUND:
                raise
            platform = f" ({descriptor.platform})" if descriptor.platform else ""
            raise ResolveError(
                f"{self.name}: {self._reference.registry} does not have "
                f"{descriptor.digest}{platform}, which its index names"
            ) from None

    def small(self, descriptor: Descriptor) -> bytes:
        """See `Origin`."""
        sink = Collector(descriptor.digest, descriptor.size, subject=f"{self.name}, config")
        try:
            self._client.blob(self._reference.repository, descriptor.digest, descriptor.size, sink)
        except HttpStatusError as error:
            if error.status != _NOT_FOUND:
                raise
            raise ResolveError(f"{self.name}: {self._reference.registry} does not have {descriptor.digest}") from None
        return sink.finish()

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """See `Origin`."""
        return self._client.referrers(self._reference.repository, digest)

    def tagged(self, tag: str) -> Descriptor | None:
        """See `Origin`. What a registry forbids to ask for is as good as absent: it is an extra."""
        try:
            return self._client.head(self._reference.repository, tag)
        except HttpStatusError as error:
            if error.status in _ABSENT:
                return None
            raise

    def found_at(self, blob: Descriptor) -> Mapping[str, str]:
        """See `Origin`."""
        origin = {"repository": self._reference.repository}
        if self._plain_http:
            origin["plain_http"] = "true"
        if images.is_foreign(blob):
            origin["url"] = blob.urls[0]
        return origin
