"""Drops made in a store without bundle, network or clock, for tests of what comes after an import."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airlift import oci
from airlift.artifact import HELM_CONFIG, MODEL_TYPE, Artifact, DropConfig, Kind
from airlift.digest import of as digest_of
from airlift.kinds import chart_pack, models
from airlift.kinds.models import ModelFile
from airlift.oci import Descriptor, Platform
from airlift.store import Store

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"


def tar_of(entries: Mapping[str, bytes | str]) -> bytes:
    """A tar of files (bytes, mode 0755) and symbolic links (text); names that end with / are directories."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode = 0o755
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def bare_chart(name: str, version: str) -> bytes:
    """The archive of a chart without templates and values, the same bytes everywhere."""
    return chart_pack.pack(name, {"Chart.yaml": f"apiVersion: v2\nname: {name}\nversion: {version}\n".encode()})


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass
class Drops:
    """Puts artifacts into a store and collects them for a drop's config."""

    store: Store
    artifacts: list[Artifact] = field(default_factory=list)
    deploy: list[dict[str, Any]] = field(default_factory=list)
    preload: list[str] = field(default_factory=list)

    def put(self, data: bytes, media_type: str, **more: Any) -> Descriptor:
        self.store.put_bytes(data)
        return Descriptor(media_type, digest_of(data), len(data), **more)

    def manifest(
        self, layers: Sequence[bytes], platform: Platform, command: Sequence[str] = (), **more: Any
    ) -> Descriptor:
        config = {
            "architecture": platform.architecture,
            "os": platform.os,
            **({"variant": platform.variant} if platform.variant else {}),
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"], **more},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        body = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": self.put(compact(config), oci.CONFIG).to_json(),
            "layers": [self.put(layer, oci.LAYER).to_json() for layer in layers],
        }
        return self.put(compact(body), oci.MANIFEST, platform=platform)

    def image(
        self,
        name: str,
        content: bytes | Mapping[str, bytes | str] = b"x",
        *,
        platforms: Sequence[Platform] | None = (AMD64, ARM64),
        command: Sequence[str] = (),
        **more: Any,
    ) -> Artifact:
        """An image of one layer; with `platforms` None it is a single manifest for amd64, else an index.

        `more` is what its config has besides, such as User.
        """
        entries = {"data": content} if isinstance(content, bytes) else content
        if platforms is None:
            root = self.manifest([tar_of(entries)], AMD64, command, **more)
            root = Descriptor(root.media_type, root.digest, root.size)
        else:
            children = [self.manifest([tar_of(entries)], platform, command, **more) for platform in platforms]
            index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [item.to_json() for item in children]}
            root = self.put(compact(index), oci.INDEX)
        artifact = Artifact(Kind.IMAGE, name, root)
        self.artifacts.append(artifact)
        return artifact

    def chart(
        self,
        name: str,
        version: str,
        images: Sequence[str | dict[str, Any]] | None,
        *,
        archive: bytes | None = None,
        at: str | None = None,
    ) -> Artifact:
        held = bare_chart(name, version) if archive is None else archive
        body = {
            "schemaVersion": 2,
            "config": self.put(compact({"name": name, "version": version}), HELM_CONFIG).to_json(),
            "layers": [self.put(held, CHART_LAYER).to_json()],
        }
        shown = None
        if images is not None:
            where = ["Deployment/web: spec.template.spec.containers[0]"]
            shown = [item if isinstance(item, dict) else {"image": item, "where": where} for item in images]
        root = self.put(compact(body), oci.MANIFEST)
        facts = {"name": name, "version": version, "images": shown, "dependencies": []}
        artifact = Artifact(Kind.CHART, at or f"charts/{name}:{version.replace('+', '_')}", root, facts)
        self.artifacts.append(artifact)
        return artifact

    def model(self, name: str, files: Mapping[str, bytes], *, revision: str = "a" * 40) -> Artifact:
        """A model of these files, on branch main."""
        held = [ModelFile(path, self.store.put_bytes(data), len(data)) for path, data in files.items()]
        packed = models.pack(name, held, revision=revision)
        self.store.put_bytes(packed.config)
        root = Descriptor(
            oci.MANIFEST, self.store.put_bytes(packed.manifest), len(packed.manifest), artifact_type=MODEL_TYPE
        )
        facts = {"id": name, "revision": revision, "branch": "main", "licence": None, "source": "local"}
        artifact = Artifact(Kind.MODEL, f"models/{name}:{revision[:12]}", root, facts)
        self.artifacts.append(artifact)
        return artifact

    def release(self, chart: str, *, namespace: str = "default", release: str | None = None, **values: bytes) -> None:
        """A deploy entry; `values` are files by name."""
        files = [{"name": name, "digest": self.store.put_bytes(data)} for name, data in values.items()]
        self.deploy.append({"chart": chart, "namespace": namespace, "release": release, "values": files})

    def config(self, *, name: str = "vision", channel: str = "stable") -> DropConfig:
        """The drop, as an import would give it back."""
        k3s = {"preload": list(self.preload)}
        return DropConfig(name, channel, {}, tuple(self.artifacts), tuple(self.deploy), k3s)


def drops_at(folder: Path) -> Drops:
    return Drops(Store(folder).create())
