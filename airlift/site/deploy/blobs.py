"""Where deploy reads the content of images and charts: the site's store, or the registry that the site fills."""

from __future__ import annotations

from typing import Protocol

from airlift import fs, limits, oci
from airlift.artifact import Artifact
from airlift.digest import Collector, Verifier
from airlift.errors import DeployError
from airlift.oci import Descriptor, Manifest
from airlift.site.deploy.files import Sink
from airlift.store import Store


class BlobSource(Protocol):
    """Content of a drop's images and charts, by digest."""

    def has(self, artifact: Artifact, blob: Descriptor) -> bool:
        """Say whether a blob (or manifest) of the artifact can be read."""

    def copy(self, artifact: Artifact, blob: Descriptor, sink: Sink) -> None:
        """Stream one blob (or manifest) into `sink`. The caller checks digest and size. Must be safe to repeat."""


class StoreBlobs:
    """Reads from the site's own store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def has(self, artifact: Artifact, blob: Descriptor) -> bool:  # noqa: ARG002 - one store for all artifacts
        """Say whether the store has it, with the right size."""
        return self._store.has(blob.digest) and self._store.size(blob.digest) == blob.size

    def copy(self, artifact: Artifact, blob: Descriptor, sink: Sink) -> None:  # noqa: ARG002 - as above
        """Stream it, unchecked: the caller does that.

        Raises:
            StoreError: it is not here, or the disk cannot be read.
        """
        with self._store.open(blob.digest) as stream, fs.guarded(f"reading {blob.digest}"):
            while chunk := stream.read(limits.CHUNK):
                sink.write(chunk)


class FirstOf:
    """Reads from the first of several sources that has a blob."""

    def __init__(self, *sources: BlobSource) -> None:
        self._sources = sources

    def has(self, artifact: Artifact, blob: Descriptor) -> bool:
        """Say whether any of them has it.

        Raises:
            DeliveryError: one does not answer.
        """
        return any(source.has(artifact, blob) for source in self._sources)

    def copy(self, artifact: Artifact, blob: Descriptor, sink: Sink) -> None:
        """Stream it from the first that has it.

        Raises:
            StoreError, IntegrityError, DeliveryError: what that one says.
        """
        source = next((item for item in self._sources if item.has(artifact, blob)), self._sources[-1])
        source.copy(artifact, blob, sink)


class _Checked:
    """Passes bytes on and compares at the end."""

    def __init__(self, sink: Sink, verifier: Verifier) -> None:
        self._sink = sink
        self._verifier = verifier

    @property
    def written(self) -> int:
        return self._verifier.seen

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._verifier.update(data)
        self._sink.write(data)


def copy_checked(source: BlobSource, artifact: Artifact, blob: Descriptor, sink: Sink) -> None:
    """Stream one blob into `sink` and check its size and digest.

    Raises:
        IntegrityError: it is damaged.
        StoreError, DeliveryError: it cannot be read.
    """
    verifier = Verifier(blob.digest, blob.size, subject=f"{blob.digest} of {artifact.name}")
    source.copy(artifact, blob, _Checked(sink, verifier))
    verifier.finish()


def read_small(source: BlobSource, artifact: Artifact, blob: Descriptor) -> bytes:
    """Return a blob that is held in memory whole, checked.

    Raises:
        DeployError: it is not there, or larger than such a blob may be.
        IntegrityError: it is damaged.
        StoreError, DeliveryError: it cannot be read.
    """
    if blob.size > limits.SMALL_BLOB:
        raise DeployError(f"{artifact.name}: {blob.digest} has {blob.size} bytes, at most {limits.SMALL_BLOB} expected")
    if not source.has(artifact, blob):
        raise DeployError(
            f"{artifact.name}: {blob.digest} is not at this site", hint="import the bundle again; airlift mends the gap"
        )
    return _read(source, artifact, blob)


def read_archive(source: BlobSource, artifact: Artifact, blob: Descriptor) -> bytes:
    """Return a chart's archive, checked; the caller bounds its size.

    Raises:
        IntegrityError: it is damaged.
        StoreError, FetchError: it cannot be read.
    """
    return _read(source, artifact, blob)


def _read(source: BlobSource, artifact: Artifact, blob: Descriptor) -> bytes:
    sink = Collector(blob.digest, blob.size, subject=f"{blob.digest} of {artifact.name}")
    source.copy(artifact, blob, sink)
    return sink.finish()


def read_manifest(source: BlobSource, artifact: Artifact, blob: Descriptor) -> Manifest:
    """Return a manifest or index of an artifact, checked and parsed.

    Raises:
        DeployError: it is not there or too large.
        IntegrityError: it is damaged or no manifest.
        StoreError, DeliveryError: it cannot be read.
    """
    data = read_small(source, artifact, blob)
    return oci.parse_manifest(data, subject=f"{artifact.name}, {blob.digest}", media_type=blob.media_type)
