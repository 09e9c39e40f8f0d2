"""Container images: from registries, from OCI layouts beside the manifest, from a docker daemon."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from airlift import oci
from airlift.artifact import Artifact, Kind
from airlift.connected import daemon, image_tree
from airlift.connected.image_origin import Origin, RegistryOrigin
from airlift.connected.layouts import Layout, LayoutOrigin
from airlift.connected.registries import Registries
from airlift.connected.source import BlobSink, Settings
from airlift.errors import IntegrityError, ResolveError
from airlift.kinds import images
from airlift.lock import Component, LockedArtifact, LockedBlob, LockedEntry, made
from airlift.manifest import Image
from airlift.oci import Platform
from airlift.reference import Reference, parse
from airlift.transport.http import HttpClient

_LAYOUT: Final = "oci-layout:"
_DAEMON: Final = "docker-daemon:"
_LOCAL: Final = "local"
_MANIFESTS: Final = oci.INDEX_TYPES | oci.MANIFEST_TYPES


class ImageSource:
    """Pins and fetches images."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http = HttpClient(settings.http, settings.progress)
        self._lock = threading.Lock()
        self._registries = Registries(settings, self._http)
        self._layouts: dict[str, Layout] = {}
        self._saved: dict[str, daemon.Saved] = {}

    def resolve(self, request: Image, previous: LockedEntry | None) -> LockedEntry:  # noqa: ARG002 - a tag is asked anew
        """Pin an image and what refers to it.

        Raises:
            ResolveError: there is no such image, digest or platform, or the layout lacks a part.
            FetchError: the registry or daemon does not answer, or wants another login.
            IntegrityError: bytes are not what their digest says.
        """
        name = request.site_name.without_digest()
        wanted = self._wanted(request)
        if request.ref.startswith(_DAEMON):
            image = request.ref.removeprefix(_DAEMON)
            artifacts: tuple[LockedArtifact, ...] = (self._from_daemon(image, name, wanted),)
            source = _DAEMON.rstrip(":")
        else:
            origin, source = self._origin(request)
            is_pinned = request.is_remote and parse(request.ref).digest is not None
            artifacts = image_tree.pin(origin, name, wanted, is_pinned=is_pinned, progress=self._settings.progress)
        component = self._component(request, name, artifacts[0].artifact)
        return LockedEntry(Kind.IMAGE, str(name), {}, source, artifacts, (component,))

    def _wanted(self, request: Image) -> tuple[Platform, ...] | None:
        if request.platforms == "all":
            return None
        return tuple(oci.parse_platform(text) for text in request.platforms or self._settings.platforms)

    def _origin(self, request: Image) -> tuple[Origin, str]:
        if request.ref.startswith(_LAYOUT):
            path, _, reference = request.ref.removeprefix(_LAYOUT).partition(":")
            if "@" in path:
                path, _, pin = path.partition("@")
                reference = f"@{pin}:{reference}"
            return LayoutOrigin(self._layout(path), path, reference or None), _LOCAL
        reference_ = parse(request.ref)
        client = self._registries.client(reference_.registry, plain_http=request.plain_http)
        return RegistryOrigin(client, reference_, plain_http=request.plain_http), reference_.registry

    def _layout(self, path: str) -> Layout:
        with self._lock:
            if path not in self._layouts:
                self._layouts[path] = Layout(self._settings.base / Path(path), f"{_LAYOUT}{path}")
            return self._layouts[path]

    def _component(self, request: Image, name: Reference, artifact: Artifact) -> Component:
        upstream = parse(request.ref) if request.is_remote else name
        digest = artifact.root.digest
        version = upstream.tag or digest
        return Component(images.purl(upstream, digest), "container", upstream.name, version, digest)

    def _from_daemon(self, image: str, name: Reference, wanted: Sequence[Platform] | None) -> LockedArtifact:
        saved = daemon.save(
            image,
            environment=self._settings.environment,
            work=self._settings.work,
            progress=self._settings.progress,
        )
        try:
            subject = f"{_DAEMON}{image}"
            platform = images.platform_of(saved.config_data, subject=subject)
            if wanted is not None:
                images.choose({saved.config.descriptor.digest: platform}, wanted, subject=subject)
            if self._settings.cache is not None:
                saved.put_into(self._settings.cache)
        finally:
            saved.close()
        config = saved.config.descriptor
        layers = {part.descriptor.digest: part.descriptor for part in saved.layers}
        data = images.manifest(config, [part.descriptor for part in saved.layers])
        origin = {"image": image}
        return LockedArtifact(
            Artifact(Kind.IMAGE, str(name), oci.describe(data, oci.MANIFEST)),
            (made(data, oci.MANIFEST), LockedBlob(config.digest, config.size, config.media_type, None, origin)),
            tuple(LockedBlob(item.digest, item.size, item.media_type, None, origin) for item in layers.values()),
        )

    def fetch(self, entry: LockedEntry, blob: LockedBlob, sink: BlobSink) -> None:
        """Stream a blob.

        Raises:
            FetchError: the registry or daemon does not give it.
            ResolveError: what only resolve could make is not in the cache any more.
            IntegrityError: it is another.
        """
        if "image" in blob.origin:
            self._fetch_saved(entry, blob, sink)
        elif "path" in blob.origin:
            for chunk in self._layout(blob.origin["path"]).chunks(blob.digest, sink.written):
                sink.write(chunk)
        else:
            self._fetch_remote(entry, blob, sink)

    def _fetch_remote(self, entry: LockedEntry, blob: LockedBlob, sink: BlobSink) -> None:
        repository = blob.origin["repository"]
        client = self._registries.client(entry.source, plain_http=blob.origin.get("plain_http") == "true")
        if blob.media_type in _MANIFESTS:
            sink.write(client.manifest(repository, blob.digest).data[sink.written :])
        elif "url" in blob.origin and not client.has_blob(repository, blob.digest):
            self._http.download(blob.origin["url"], sink, size=blob.size, subject=f"{entry.name}, {blob.digest}")
        else:
            client.blob(repository, blob.digest, blob.size, sink)

    def _fetch_saved(self, entry: LockedEntry, blob: LockedBlob, sink: BlobSink) -> None:
        image = blob.origin["image"]
        if self._settings.cache is not None:
            raise ResolveError(
                f"{entry.name}: {blob.digest} of docker-daemon:{image} is not in the cache any more",
                hint=f"run airlift resolve --update {entry.name}",
            )
        saved = self._save_once(image)
        part = saved.find(blob.digest)
        if part is None:
            raise IntegrityError(
                f"docker-daemon:{image}",
                expected=f"{blob.digest}, as the lock says",
                actual=f"an image with config {saved.config.descriptor.digest}",
                hint=f"the image was built again; run airlift resolve --update {entry.name}",
            )
        for chunk in saved.chunks(part.member, sink.written):
            sink.write(chunk)

    def _save_once(self, image: str) -> daemon.Saved:
        with self._lock:
            if image not in self._saved:
                self._saved[image] = daemon.save(
                    image,
                    environment=self._settings.environment,
                    work=self._settings.work,
                    progress=self._settings.progress,
                )
            return self._saved[image]
