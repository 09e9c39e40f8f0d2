"""Writing to an OCI registry: the half of `airlift.transport.registry.RegistryClient` that a site uses.

Every method raises `DeliveryError`, with the registry's own words. Nothing here makes a name visible but
`push_manifest` with a tag.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from airlift import digest as digests
from airlift import limits
from airlift.digest import Digest
from airlift.errors import IntegrityError
from airlift.oci import Descriptor
from airlift.transport.blobs import BlobHalf
from airlift.transport.http import HttpStatusError
from airlift.transport.refusals import delivering

_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405
_IMMUTABLE: Final = 412
_INTERNAL: Final = 500


class PushHalf(BlobHalf):
    """Manifests, and taking away."""

    @abstractmethod
    def head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest is right now, or None."""

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
                accept=(_NOT_FOUND, _NOT_ALLOWED),
            )
        return answer.status != _NOT_ALLOWED

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
