"""Whole bundles of small drops, and sites that take them: for tests of the importer and of what it serves."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airlift import artifact, oci
from airlift.artifact import Artifact, DropConfig, Kind
from airlift.bundle.layout import Member, PayloadPlan
from airlift.bundle.writer import BundleWriter
from airlift.digest import Digest
from airlift.digest import of as digest_of
from airlift.kinds import charts, models, wheels
from airlift.kinds.models import ModelFile
from airlift.oci import Descriptor
from airlift.progress import Progress, Silent
from airlift.site.config import Site, init_site
from airlift.site.importer import Imported, import_bundle
from airlift.site.site_yaml import IndexConfig, RegistryConfig, SiteConfig
from airlift.trust.keys import write_key
from airlift.trust.roots import dump_trust
from airlift.trust.signing import Release
from tests.support.bundles import ANN, NOW, SITE, trust

URL = "http://mirror.example:8080"
SBOM = b'{"bomFormat":"CycloneDX","specVersion":"1.6"}'


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass
class Cargo:
    """A drop being made: blobs in the payload's order, artifacts in the index's."""

    channel: str = "stable"
    small: dict[Digest, bytes] = field(default_factory=dict)
    large: dict[Digest, bytes] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)

    def put(self, data: bytes, media_type: str, *, large: bool = False, **more: Any) -> Descriptor:
        (self.large if large else self.small)[digest_of(data)] = data
        return Descriptor(media_type, digest_of(data), len(data), **more)

    def reserve(self, descriptor_of: Mapping[str, Any], media_type: str, **more: Any) -> Descriptor:
        """A manifest; it stands before what was put after this call only."""
        return self.put(compact(descriptor_of), media_type, **more)

    def image_manifest(self, *layers: bytes, **extra: Any) -> Descriptor:
        config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
        body = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": self.put(compact({**config, "n": len(self.artifacts)}), oci.CONFIG).to_json(),
            "layers": [self.put(layer, oci.LAYER, large=True).to_json() for layer in layers],
            **extra,
        }
        return self.reserve(body, oci.MANIFEST)

    def image(self, name: str, *layers: bytes, **extra: Any) -> Artifact:
        return self.add(Kind.IMAGE, name, self.image_manifest(*layers, **extra))

    def referrer(self, repository: str, subject: Descriptor, text: bytes) -> Descriptor:
        """What says something about an image; by itself, as a pack carries it.

        An index that lists an image with its accessory cannot be deleted in some Harbors.
        """
        body = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": "application/vnd.example.v1",
            "config": self.put(oci.EMPTY_CONFIG, oci.EMPTY).to_json(),
            "layers": [self.put(text, "text/plain", large=True).to_json()],
            "subject": subject.to_json(),
            "annotations": {"said": text.decode()},
        }
        made = self.put(compact(body), oci.MANIFEST)
        self.add(Kind.IMAGE, f"{repository}@{made.digest}", made)
        return made

    def index(self, name: str, *children: Descriptor, absent: int = 0) -> Artifact:
        listed = [child.to_json() for child in children]
        listed += [oci.describe(f"absent {number}".encode(), oci.MANIFEST).to_json() for number in range(absent)]
        return self.add(
            Kind.IMAGE, name, self.reserve({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": listed}, oci.INDEX)
        )

    def file(self, name: str, data: bytes) -> Artifact:
        body = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": artifact.FILE_TYPE,
            "config": self.put(oci.EMPTY_CONFIG, oci.EMPTY).to_json(),
            "layers": [self.put(data, "application/octet-stream", large=True, annotations={oci.TITLE: name}).to_json()],
        }
        full = f"files/{name}:{digest_of(data)[7:19]}"
        return self.add(Kind.FILE, full, self.reserve(body, oci.MANIFEST), {"name": name, "source": "local"})

    def wheels(self, name: str, files: Mapping[str, tuple[bytes, bytes]]) -> Artifact:
        """A set of wheels: file name to its bytes and its METADATA."""
        manifests = []
        for filename, (data, metadata) in files.items():
            self.put(data, wheels.WHEEL_TYPE, large=True)
            self.put(metadata, wheels.METADATA_TYPE)
            said = wheels.parse_metadata(metadata, wheel=wheels.parse_filename(filename))
            file = wheels.DistributionFile(
                wheels.parse_filename(filename),
                digest_of(data),
                len(data),
                digest_of(metadata),
                len(metadata),
                requires_python=said.requires_python,
            )
            manifests.append(file.manifest())
        for data in manifests:
            self.put(data, oci.MANIFEST)
        root = self.put(wheels.set_index(manifests), oci.INDEX)
        return self.add(Kind.WHEELS, f"python/{name}:set", root, {"name": name, "targets": []})

    def chart(self, archive: bytes, provenance: bytes | None = None) -> Artifact:
        chart = charts.read_archive(archive, subject="chart")
        layer = self.put(archive, charts.CHART_LAYER, large=True)
        signed = None if provenance is None else self.put(provenance, charts.PROVENANCE_LAYER, large=True)
        self.put(charts.config_blob(chart), artifact.HELM_CONFIG)
        root = self.put(charts.wrap(chart, layer, signed), oci.MANIFEST)
        facts = {"name": chart.name, "version": chart.version, "images": [], "dependencies": []}
        return self.add(Kind.CHART, charts.artifact_name(chart), root, facts)

    def model(
        self,
        model_id: str,
        files: Mapping[str, bytes],
        *,
        lfs: Container[str] = (),
        branch: str = "main",
        commit: str | None = None,
    ) -> Artifact:
        """A model: path to bytes; without a commit it gets the one that a model without a hub has."""
        listed = []
        for path, data in files.items():
            blob = models.git_blob(len(data))
            blob.update(data)
            file = ModelFile(path, digest_of(data), len(data), None if path in lfs else blob.hexdigest())
            self.put(data, file.media_type, large=True)
            listed.append(file)
        packed = models.pack(model_id, listed, revision=commit)
        self.put(packed.config, models.CONFIG_TYPE)
        self.put(packed.manifest, oci.MANIFEST)
        revision = commit or packed.revision
        facts = {"id": model_id, "revision": revision, "branch": branch, "licence": "mit", "source": None}
        return self.add(Kind.MODEL, f"models/{model_id}:{revision[:12]}", packed.root, facts)

    def add(self, kind: Kind, name: str, root: Descriptor, facts: Mapping[str, Any] | None = None) -> Artifact:
        item = Artifact(kind, name, root, facts or {})
        self.artifacts.append(item)
        return item

    def config(self) -> DropConfig:
        return DropConfig("vision", self.channel, {}, self.artifacts, (), {"preload": []})

    def members(self) -> dict[str, bytes]:
        layout = artifact.lay_out(self.config(), [])
        first = [layout.manifest, layout.config, oci.EMPTY_CONFIG]
        blobs = {digest_of(data): data for data in first} | self.small | self.large
        named = {f"blobs/sha256/{digest[7:]}": data for digest, data in blobs.items()}
        return {"oci-layout": oci.LAYOUT_FILE, "index.json": layout.index, **named}


def seal(members: Mapping[str, bytes], path: Path, *, sequence: int = 1, channel: str = "stable") -> Release:
    """Make a bundle of exactly these members."""
    plan = PayloadPlan([Member(name, len(data)) for name, data in members.items()])
    with BundleWriter(path, plan, encrypted=True) as writer:
        for name, data in members.items():
            with writer.member(name) as sink:
                sink.write(data)
        return writer.finish(
            channel=channel,
            sequence=sequence,
            attest_files={"sbom.cdx.json": SBOM},
            signers=[ANN],
            recipients=[SITE.recipient],
        )


def ship(cargo: Cargo, path: Path, *, sequence: int = 1) -> Path:
    seal(cargo.members(), path, sequence=sequence, channel=cargo.channel)
    return path


def month(folder: Path, number: int) -> Path:
    """The bundle of a month's drop, which has one file, another one each month."""
    cargo = Cargo()
    cargo.file("tool", b"tool of month %d" % number)
    return ship(cargo, folder / f"{number}.airlift", sequence=number)


def make_site(
    root: Path,
    *,
    registry: RegistryConfig | None = None,
    python: IndexConfig | None = None,
    channels: tuple[str, ...] = ("stable",),
    allow_plain: bool = False,
) -> Site:
    """A site that believes ann, with the identity that `ship` seals for."""
    keys = root.with_name(f"{root.name}.keys")
    keys.mkdir()
    key, _ = write_key(keys, "site", SITE, passphrase=None)
    document = json.loads(dump_trust(trust(allow_plain=allow_plain)))
    document["channels"] = {name: {"min_sequence": 1} for name in channels}
    (keys / "trust.json").write_text(json.dumps(document))
    config = SiteConfig(url=URL, identity=str(key), registry=registry, python=python)
    return init_site(root, keys / "trust.json", config)


def take(site: Site, bundle: Path, *, dry_run: bool = False, progress: Progress | None = None) -> Imported:
    return import_bundle(site, bundle, now=NOW, passphrase=b"", progress=progress or Silent(), dry_run=dry_run)
