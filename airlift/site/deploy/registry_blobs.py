"""Content of images and charts, read from the registry that the site fills (see `airlift.site.deploy.blobs`)."""

from __future__ import annotations

from collections.abc import Callable

from airlift import oci
from airlift.artifact import Artifact
from airlift.oci import Descriptor
from airlift.site.deploy.files import Sink
from airlift.transport.refusals import delivering
from airlift.transport.registry import RegistryClient


class RegistryBlobs:
    """Reads from a registry.

    Args:
        client: the registry.
        repository: gives an artifact's repository in that registry.
    """

    def __init__(self, client: RegistryClient, repository: Callable[[Artifact], str]) -> None:
        self._client = client
        self._repository = repository

    def has(self, artifact: Artifact, blob: Descriptor) -> bool:
        """Say whether the registry has it.

        Raises:
            DeliveryError: the registry does not answer.
        """
        repository = self._repository(artifact)
        if not _is_manifest(blob):
            return self._client.has_blob(repository, blob.digest)
        with delivering(self._client.registry):
            return self._client.head(repository, blob.digest) is not None

    def copy(self, artifact: Artifact, blob: Descriptor, sink: Sink) -> None:
        """Stream it.

        Raises:
            DeliveryError: the registry does not give it.
        """
        repository = self._repository(artifact)
        with delivering(self._client.registry):
            if _is_manifest(blob):
                sink.write(self._client.manifest(repository, blob.digest).data)
            else:
                self._client.blob(repository, blob.digest, blob.size, sink)


def _is_manifest(blob: Descriptor) -> bool:
    return blob.media_type in oci.INDEX_TYPES | oci.MANIFEST_TYPES
