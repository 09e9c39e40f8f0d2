"""Helm charts from HTTP repositories, OCI registries, archives and directories.

* A published archive keeps its bytes; a directory is packed with its dependencies, always alike.
* The images that a chart's pod specifications show are looked for with helm, where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from airlift import canonical, digest, fs, helm, limits, oci
from airlift.artifact import HELM_CONFIG, Artifact, Kind
from airlift.canonical import JsonObject
from airlift.connected import chart_directory, chart_repository, image_tree
from airlift.connected.chart_directory import Assembled
from airlift.connected.chart_repository import HttpRepositories
from airlift.connected.image_origin import RegistryOrigin
from airlift.connected.registries import Registries
from airlift.connected.source import BlobSink, Settings
from airlift.errors import ResolveError
from airlift.kinds import charts, podspecs
from airlift.kinds.chart_metadata import Chart, Dependency
from airlift.lock import Component, LockedArtifact, LockedBlob, LockedEntry, made
from airlift.manifest import Chart as ChartRequest
from airlift.oci import Descriptor
from airlift.transport.http import HttpClient

_LOCAL: Final = "local"


class ChartSource:
    """See `airlift.connected.source.Source`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http = HttpClient(settings.http, settings.progress)
        self._repositories = HttpRepositories(self._http, settings.docker_config, settings.environment)
        self._registries = Registries(settings, self._http)
        self._helm = helm.find(settings.environment, settings.work)

    def resolve(self, request: ChartRequest, previous: LockedEntry | None) -> LockedEntry:  # noqa: ARG002 - by design
        """Pin a chart; see `Source.resolve`.

        Raises:
            ResolveError: it is not there, a dependency is missing, or helm cannot render it.
            FetchError: a repository does not answer.
            IntegrityError: it is not what its repository promises, or no chart.
        """
        if request.path is not None:
            return self._local(request, request.path)
        if request.ref is not None:
            return self._registry(request, request.ref, request.version)
        repository, name, version = str(request.repo), str(request.name), str(request.version)
        pulled = self._repositories.pull(repository, name, version, plain_http=request.plain_http)
        origin = {"index": repository, "url": pulled.url}
        if request.plain_http:
            origin["plain_http"] = "true"
        return self._wrapped(
            request, pulled.chart, pulled.data, provenance=pulled.provenance, source=repository, origin=origin
        )

    def fetch(self, entry: LockedEntry, blob: LockedBlob, sink: BlobSink) -> None:
        """Stream a blob; see `Source.fetch`.

        Raises:
            ResolveError: a file or directory is not there any more.
            FetchError: a repository does not answer.
        """
        origin = blob.origin
        subject = f"chart {entry.name}"
        plain_http = origin.get("plain_http") == "true"
        if "repository" in origin:
            client = self._registries.client(entry.source, plain_http=plain_http)
            if blob.media_type in oci.MANIFEST_TYPES:
                _rest(client.manifest(origin["repository"], blob.digest).data, sink)
            else:
                client.blob(origin["repository"], blob.digest, blob.size, sink)
        elif "index" in origin:
            self._repositories.fetch(
                origin["index"], origin["url"], sink, size=blob.size, plain_http=plain_http, subject=subject
            )
        elif "pins" in origin:
            pins = json.loads(origin["pins"])
            _rest(self._assemble(origin["path"], plain_http=plain_http, pins=pins).data, sink)
        else:
            _rest(self._read(origin["path"], limits.CHART), sink)

    # From a path

    def _local(self, request: ChartRequest, path: str) -> LockedEntry:
        place = self._settings.base / path
        if not place.is_dir():
            data = self._read(path, limits.CHART)
            chart = charts.read_archive(data, subject=f"chart {path}")
            provenance = None
            if place.with_name(f"{place.name}.prov").is_file():
                provenance = self._read(f"{path}.prov", limits.MIB)
                if not charts.check_provenance(provenance, place.name, digest.of(data), subject=f"chart {path}"):
                    provenance = None
            return self._wrapped(request, chart, data, provenance=provenance, source=_LOCAL, origin={"path": path})
        packed = self._assemble(path, plain_http=request.plain_http, pins=None)
        self._keep(packed.data)
        origin = {"path": path, "pins": canonical.encode(dict(packed.pins)).decode()}
        if request.plain_http:
            origin["plain_http"] = "true"
        return self._wrapped(request, packed.chart, packed.data, provenance=None, source=_LOCAL, origin=origin)

    def _assemble(self, path: str, *, plain_http: bool, pins: Mapping[str, str] | None) -> Assembled:
        def pull(dependency: Dependency, wanted: str) -> tuple[Chart, bytes]:
            if dependency.repository.startswith("oci://"):
                ref, _ = chart_repository.parse_oci(f"{dependency.repository.rstrip('/')}/{dependency.name}")
                client = self._registries.client(ref.registry, plain_http=plain_http)
                pulled, _ = chart_repository.pull_oci(client, ref, wanted)
            else:
                pulled = self._repositories.pull(dependency.repository, dependency.name, wanted, plain_http=plain_http)
            return pulled.chart, pulled.data

        return chart_directory.assemble(self._settings.base / path, subject=f"chart {path}", pull=pull, pins=pins)

    def _read(self, path: str, limit: int) -> bytes:
        place = self._settings.base / path
        if not place.is_file():
            raise ResolveError(f"chart {path}: not there", hint="paths are relative to the manifest")
        return fs.read_bounded(place, limit)

    def _keep(self, data: bytes) -> None:
        if self._settings.cache is not None:
            self._settings.cache.put_bytes(data)

    # From a registry

    def _registry(self, request: ChartRequest, text: str, version: str | None) -> LockedEntry:
        ref, is_exact = chart_repository.parse_oci(text)
        if is_exact and version is not None:
            raise ResolveError(f"chart {text}: it has a version, and `version: {version}` beside it", hint="drop one")
        client = self._registries.client(ref.registry, plain_http=request.plain_http)
        wanted = None if is_exact else version or "*"
        pulled, name = chart_repository.pull_oci(client, ref, wanted)
        origin = RegistryOrigin(client, name, plain_http=request.plain_http)
        # Pinned like an image, with its signatures and whatever else refers to it.
        own, *referring = image_tree.pin(
            origin, name.without_digest(), None, is_pinned=True, progress=self._settings.progress
        )
        facts = self._facts(request, pulled.chart, pulled.data)
        item = replace(own, artifact=replace(own.artifact, kind=Kind.CHART, facts=facts))
        return _entry(request, pulled.chart, pulled.data, ref.registry, (item, *referring))

    # What all have

    def _wrapped(
        self,
        request: ChartRequest,
        chart: Chart,
        data: bytes,
        *,
        provenance: bytes | None,
        source: str,
        origin: Mapping[str, str],
    ) -> LockedEntry:
        """Return the entry of a chart that gets its manifest from us."""
        archive = oci.describe(data, charts.CHART_LAYER)
        large = [_blob(archive, origin)]
        signed = None
        if provenance is not None:
            signed = oci.describe(provenance, charts.PROVENANCE_LAYER)
            key = "url" if "url" in origin else "path"
            large.append(_blob(signed, {**origin, key: _signature_of(origin[key])}))
        manifest = made(charts.wrap(chart, archive, signed), oci.MANIFEST)
        artifact = Artifact(
            Kind.CHART, charts.artifact_name(chart), manifest.descriptor, self._facts(request, chart, data)
        )
        small = (manifest, made(charts.config_blob(chart), HELM_CONFIG))
        return _entry(request, chart, data, source, (LockedArtifact(artifact, small, tuple(large)),))

    def _facts(self, request: ChartRequest, chart: Chart, data: bytes) -> JsonObject:
        if chart.missing:
            names = ", ".join(f"{item.name} {item.version}" for item in chart.missing)
            raise ResolveError(
                f"chart {chart.name} {chart.version}: missing in its charts/: {names}",
                hint="it was published without its dependencies; run helm dependency build and package it again",
            )
        return {
            "name": chart.name,
            "version": chart.version,
            "images": self._images(request, chart, data),
            "dependencies": [{"name": item.name, "version": item.version} for item in chart.subcharts],
        }

    def _images(self, request: ChartRequest, chart: Chart, data: bytes) -> list[JsonObject] | None:
        subject = f"chart {chart.name} {chart.version}"
        if chart.is_library:
            return []
        if self._helm is None:
            self._settings.progress.warn(
                f"{subject}: its images are not known, because there is no helm on the PATH; deploy will refuse it"
            )
            return None
        seen: list[podspecs.Seen] = []
        for names in self._value_sets(request, chart):
            values = {name: self._values(name, subject) for name in names}
            seen += podspecs.find(self._helm.render(chart, data, values), subject=f"{subject}, rendered")
        seen = list(dict.fromkeys(seen))
        for item in seen:
            if not item.is_reference:
                self._settings.progress.warn(f"{subject}: {item.where}: {item.image!r} is no image reference")
        images = podspecs.group([item for item in seen if item.is_reference])
        if not images:
            self._settings.progress.warn(f"no image found in {subject}; give it values files if it should have some")
        return images

    def _value_sets(self, request: ChartRequest, chart: Chart) -> list[tuple[str, ...]]:
        """Return the lists of values files to render with: what a cluster runs depends on what it deploys with."""
        names = (chart.name, request.ref, charts.artifact_name(chart))
        deployed = [values for name, values in self._settings.deployed if name in names]
        # A deployment without values may get them at the site; then those of the chart stand for them.
        own = [tuple(request.values)] if request.values or not all(deployed) or not deployed else []
        return list(dict.fromkeys([*own, *(values for values in deployed if values)]))

    def _values(self, name: str, subject: str) -> bytes:
        if not (self._settings.base / name).is_file():
            raise ResolveError(f"{subject}: values file {name}: not there", hint="paths are relative to the manifest")
        return fs.read_bounded(self._settings.base / name, limits.DOCUMENT)


def _rest(data: bytes, sink: BlobSink) -> None:
    sink.write(memoryview(data)[sink.written :])


def _blob(descriptor: Descriptor, origin: Mapping[str, str]) -> LockedBlob:
    return LockedBlob(descriptor.digest, descriptor.size, descriptor.media_type, None, origin)


def _signature_of(place: str) -> str:
    head, question, query = place.partition("?")
    return f"{head}.prov{question}{query}"


def _entry(
    request: ChartRequest, chart: Chart, data: bytes, source: str, items: tuple[LockedArtifact, ...]
) -> LockedEntry:
    name = request.ref or (request.name if request.repo else None) or chart.name
    return LockedEntry(Kind.CHART, name, {}, source, items, _components(chart, data))


def _components(chart: Chart, data: bytes) -> tuple[Component, ...]:
    found: dict[str, Component] = {}
    for number, item in enumerate(chart.everything()):
        found.setdefault(
            _purl(item),
            Component(
                _purl(item),
                "application",
                item.name,
                item.version,
                digest.of(data) if number == 0 else None,
                item.licence,
                tuple(sorted({_purl(inner) for inner in item.subcharts})),
            ),
        )
    return tuple(found.values())


def _purl(chart: Chart) -> str:
    return f"pkg:helm/{chart.name}@{chart.version.replace('+', '%2B')}"
