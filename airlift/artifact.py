"""What a drop holds, in the words that both ends share.

A drop is an OCI image layout. Its ``index.json`` starts with the drop's own artifact, whose config (`DropConfig`) says
what the other entries are; the entries follow in the lock's order. See docs/bundle-format.md, "The drop".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from airlift import canonical, limits, oci
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.errors import BundleError
from airlift.oci import Descriptor

DROP_TYPE: Final = "application/vnd.airlift.drop.v1+json"
PYTHON_TYPE: Final = "application/vnd.airlift.python.v1"
FILE_TYPE: Final = "application/vnd.airlift.file.v1"
MODEL_TYPE: Final = "application/vnd.cncf.model.manifest.v1+json"
HELM_CONFIG: Final = "application/vnd.cncf.helm.config.v1+json"


class Kind(StrEnum):
    """The five kinds; the value is what the drop's config and the site's journal say."""

    IMAGE = "image"
    WHEELS = "wheels"
    CHART = "chart"
    MODEL = "model"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Artifact:
    """One entry of a drop.

    Attributes:
        kind: which of the five.
        name: full reference (``docker.io/library/redis:7.4``, ``charts/site:1.0.0``, ``python/inference:set``,
            ``models/acme/fraud:<revision>``, ``files/k3s:<12 hex>``); what ``org.opencontainers.image.ref.name`` says.
        root: descriptor of its manifest or index.
        facts: what its kind says to the site, JSON: for a chart ``images`` (list of {image, where} or null), for a
            set of wheels ``targets`` (list of {target, wheels: [digest of each manifest]}), for a model ``id``,
            ``revision``, ``branch``, ``licence``; for a file ``name``.
    """

    kind: Kind
    name: str
    root: Descriptor
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> JsonObject:
        """Return the form the drop's config has."""
        return {
            "kind": self.kind.value,
            "name": self.name,
            "root": self.root.to_json(),
            "facts": dict(self.facts),
        }


@dataclass(frozen=True, slots=True)
class DropConfig:
    """The drop's own description, its artifact's config blob.

    Attributes:
        name: ``metadata.name`` of the manifest.
        channel: the channel it is meant for.
        labels: ``metadata.labels``.
        artifacts: in the order of ``index.json``.
        deploy: the manifest's ``deploy`` entries: {chart, namespace, release, values: [{name, digest}]}.
        k3s: the manifest's ``k3s`` section: {preload: [full references]}.
    """

    name: str
    channel: str
    labels: Mapping[str, str]
    artifacts: Sequence[Artifact]
    deploy: Sequence[JsonObject] = ()
    k3s: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the config blob."""
        return canonical.encode(
            {
                "name": self.name,
                "channel": self.channel,
                "labels": dict(self.labels),
                "artifacts": [item.to_json() for item in self.artifacts],
                "deploy": list(self.deploy),
                "k3s": dict(self.k3s),
            }
        )


def decode_drop_config(data: bytes) -> DropConfig:
    """Read a drop's config blob.

    Raises:
        BundleError: it is not canonical, or a field is missing or has the wrong type.
    """
    value = canonical.decode(data, limit=limits.INDEX_DOCUMENT, subject="the drop's config")
    shape = {
        "name": str,
        "channel": str,
        "labels": dict,
        "artifacts": list,
        "deploy": list,
        "k3s": dict,
    }
    if not isinstance(value, dict) or {key: type(item) for key, item in value.items()} != shape:
        raise BundleError(f"the drop's config: expected exactly the fields {', '.join(shape)}")
    if not all(isinstance(item, str) for item in value["labels"].values()):
        raise BundleError("the drop's config: expected labels from text to text")
    if not all(isinstance(item, dict) for item in value["deploy"]):
        raise BundleError("the drop's config: expected objects under deploy")
    if len(value["artifacts"]) > limits.ARTIFACTS:
        raise BundleError(f"the drop's config: {len(value['artifacts'])} artifacts, at most {limits.ARTIFACTS}")
    return DropConfig(
        value["name"],
        value["channel"],
        value["labels"],
        tuple(_artifact(item, number) for number, item in enumerate(value["artifacts"])),
        tuple(value["deploy"]),
        value["k3s"],
    )


def _artifact(value: object, number: int) -> Artifact:
    where = f"the drop's config, artifacts[{number}]"
    if not isinstance(value, dict) or set(value) != {"kind", "name", "root", "facts"}:
        raise BundleError(f"{where}: expected exactly the fields kind, name, root, facts")
    name = value["name"]
    if not isinstance(name, str) or not 0 < len(name) <= limits.NAME or not isinstance(value["facts"], dict):
        raise BundleError(f"{where}: expected a name and an object of facts")
    if value["kind"] not in list(Kind):
        raise BundleError(
            f"{where}: unknown kind {value['kind']!r}",
            hint="this bundle needs a newer airlift",
        )
    return Artifact(
        Kind(value["kind"]),
        name,
        oci.parse_descriptor(value["root"], subject=where),
        value["facts"],
    )


@dataclass(frozen=True, slots=True)
class DropLayout:
    """The generated documents of a drop: everything in its layout that is not an artifact's own.

    Attributes:
        index: bytes of ``index.json``; its digest is the drop's content-id.
        manifest: bytes of the drop artifact's manifest.
        config: bytes of its config.
    """

    index: bytes
    manifest: bytes
    config: bytes

    @property
    def content_id(self) -> Digest:
        """Digest of ``index.json``."""
        return oci.describe(self.index, oci.INDEX).digest


def lay_out(config: DropConfig, values: Sequence[Descriptor]) -> DropLayout:
    """Return the generated documents of a drop; the same input gives the same bytes everywhere.

    Args:
        config: what the drop holds.
        values: descriptors of the values files that ``deploy`` names, in order (layers of the drop's artifact).
    """
    data = config.encode()
    layers = [layer.to_json() for layer in values] or [oci.describe(oci.EMPTY_CONFIG, oci.EMPTY).to_json()]
    manifest = canonical.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": DROP_TYPE,
            "config": oci.describe(data, DROP_TYPE).to_json(),
            "layers": layers,
        }
    )
    own = Descriptor(
        oci.MANIFEST,
        oci.describe(manifest, oci.MANIFEST).digest,
        len(manifest),
        artifact_type=DROP_TYPE,
    )
    entries = [
        own.to_json(),
        *(_index_entry(item).to_json() for item in config.artifacts),
    ]
    index = canonical.encode({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": entries})
    return DropLayout(index, manifest, data)


def _index_entry(artifact: Artifact) -> Descriptor:
    annotations = {**artifact.root.annotations, oci.REF_NAME: artifact.name}
    _, colon, tag = artifact.name.rpartition(":")
    if artifact.kind is Kind.IMAGE and colon and "@" not in artifact.name and "/" not in tag:
        annotations[oci.IMAGE_NAME] = artifact.name
    root = artifact.root
    return Descriptor(
        root.media_type,
        root.digest,
        root.size,
        annotations,
        root.platform,
        root.artifact_type,
    )


def drop_entry(index: bytes) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    """Split a drop's ``index.json`` into the drop's own entry and the others.

    Raises:
        BundleError: it is not canonical or its first entry is not a drop.
        IntegrityError: it is not an index.
    """
    canonical.decode(index, limit=limits.INDEX_DOCUMENT, subject="index.json")
    parsed = oci.parse_manifest(index, subject="index.json", media_type=oci.INDEX, limit=limits.INDEX_DOCUMENT)
    if not parsed.manifests or parsed.manifests[0].artifact_type != DROP_TYPE:
        raise BundleError(f"index.json: expected the drop's own artifact ({DROP_TYPE}) as the first entry")
    return parsed.manifests[0], parsed.manifests[1:]
