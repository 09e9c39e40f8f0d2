"""The images of the active drops, and whether everything that a chart shows is among them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from airlift import oci, reference
from airlift.artifact import Artifact, DropConfig, Kind
from airlift.digest import Digest
from airlift.errors import DeployError, ManifestError
from airlift.oci import Descriptor, Platform
from airlift.reference import Reference
from airlift.site.deploy.blobs import BlobSource, read_manifest, read_small


@dataclass(frozen=True, slots=True)
class NodeImage:
    """An image as a node of one platform sees it.

    Attributes:
        artifact: the drop's entry.
        reference: its name.
        configs: digests of its image configs, one per variant of the platform; to containerd, images that share one
            are one image.
        blobs: all that the node needs, each once: root, the platform's manifests, configs, layers.
    """

    artifact: Artifact
    reference: Reference
    configs: tuple[Digest, ...]
    blobs: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Bytes of all its blobs."""
        return sum(blob.size for blob in self.blobs)


class Images:
    """Images of the active drops by name and by digest."""

    def __init__(self, drops: Sequence[DropConfig], blobs: BlobSource) -> None:
        self._blobs = blobs
        self._by_name: dict[str, Artifact] = {}
        self._by_repository: dict[str, list[Artifact]] = defaultdict(list)
        for drop in drops:
            for artifact in drop.artifacts:
                if artifact.kind is Kind.IMAGE:
                    self._by_name[str(reference.parse(artifact.name))] = artifact
                    self._by_repository[reference.parse(artifact.name).name].append(artifact)

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self._by_name.values())

    def find(self, image: Reference) -> Artifact | None:
        """Return the drop's image that a node gets when it is asked for `image`, or None.

        A digest decides where there is one, and only within its repository: a mirror serves it nowhere else.
        """
        if image.digest is None:
            return self._by_name.get(str(image))
        for artifact in self._by_repository.get(image.name, ()):
            if image.digest == artifact.root.digest or image.digest in self._children(artifact):
                return artifact
        return None

    def _children(self, artifact: Artifact) -> set[Digest]:
        if artifact.root.media_type not in oci.INDEX_TYPES:
            return set()
        children = read_manifest(self._blobs, artifact, artifact.root).manifests
        return {child.digest for child in children if self._blobs.has(artifact, child)}

    def identities(self, artifact: Artifact) -> tuple[frozenset[Digest], frozenset[Digest]]:
        """Return the digests of an image's index and manifests, and those of its configs, for all platforms here.

        Raises:
            DeployError, IntegrityError, StoreError, FetchError: a manifest cannot be read.
        """
        root = read_manifest(self._blobs, artifact, artifact.root)
        names, carried = {artifact.root.digest}, [root]
        if root.is_index:
            children = [item for item in root.manifests if self._blobs.has(artifact, item)]
            names |= {item.digest for item in children}
            carried = [read_manifest(self._blobs, artifact, item) for item in children]
        return frozenset(names), frozenset(item.config.digest for item in carried if item.config is not None)

    def on_node(self, artifact: Artifact, platform: Platform) -> NodeImage:
        """Return what a node of this platform needs of an image, after a look at each piece.

        Raises:
            DeployError: the image is not for this platform, or a piece of it is not at this site.
            IntegrityError: a piece is damaged.
            StoreError, DeliveryError: a piece cannot be read.
        """
        found = self._look(artifact, platform)
        if isinstance(found, NodeImage):
            return found
        have = ", ".join(str(item) for item in found if item.os != "unknown") or "none"
        raise DeployError(
            f"{artifact.name}: not for {platform}; the drop has it for {have}",
            hint="name the node's with --platform, or the release engineer has to add it to the manifest and build"
            " again",
        )

    def fitting(self, artifacts: Iterable[Artifact], platform: Platform) -> tuple[NodeImage, ...]:
        """Return those that are for this platform; a cluster may have nodes of several.

        Raises:
            DeployError: a piece of an image is not at this site.
            IntegrityError: a piece is damaged.
            StoreError, DeliveryError: a piece cannot be read.
        """
        found = (self._look(artifact, platform) for artifact in artifacts)
        return tuple(item for item in found if isinstance(item, NodeImage))

    def _look(self, artifact: Artifact, platform: Platform) -> NodeImage | Sequence[Platform]:
        """Return the image, or the platforms that it is for when `platform` is not among them."""
        root = read_manifest(self._blobs, artifact, artifact.root)
        carried = [(artifact.root, root)]
        pieces = [artifact.root]
        if root.is_index:
            # An index names platforms that nobody asked for; of those that the node may choose from, all are needed.
            children = [item for item in root.manifests if item.platform and self._blobs.has(artifact, item)]
            fitting = [item for item in children if item.platform and item.platform.matches(platform)]
            if not fitting:
                return [item.platform for item in children if item.platform]
            pieces += fitting
            carried = [(item, read_manifest(self._blobs, artifact, item)) for item in fitting]
        configs = []
        for descriptor, manifest in carried:
            if manifest.config is None:
                raise DeployError(f"{artifact.name}: {descriptor.digest} is no image manifest")
            own = _platform_of(read_small(self._blobs, artifact, manifest.config), artifact)
            if own is not None and not own.matches(platform):
                return [own]
            configs.append(manifest.config.digest)
            pieces += [manifest.config, *manifest.layers]
        self._check_there(artifact, pieces)
        unique = tuple({piece.digest: piece for piece in pieces}.values())
        return NodeImage(artifact, reference.parse(artifact.name), tuple(configs), unique)

    def _check_there(self, artifact: Artifact, pieces: Sequence[Descriptor]) -> None:
        lost = [piece.digest for piece in pieces if not self._blobs.has(artifact, piece)]
        if lost:
            raise DeployError(
                "\n".join([f"{artifact.name}: pieces of the image are not at this site", *(f"  {d}" for d in lost)]),
                hint="import the bundle again; airlift mends the gap",
            )


def _platform_of(config: bytes, artifact: Artifact) -> Platform | None:
    try:
        value = json.loads(config)
    except (ValueError, RecursionError):
        raise DeployError(f"{artifact.name}: the image's config is not JSON, no node can run it") from None
    system, processor = (value.get("os"), value.get("architecture")) if isinstance(value, dict) else (None, None)
    if not isinstance(system, str) or not isinstance(processor, str) or not system or not processor:
        return None
    variant = value.get("variant")
    return Platform(system, processor, variant if isinstance(variant, str) and variant else None)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An image that a deployed chart shows.

    Attributes:
        image: its name as the chart has it, in full.
        chart: the chart's artifact.
        where: where in the rendered chart it was seen.
    """

    image: str
    chart: str
    where: tuple[str, ...]


def shown_by(chart: Artifact) -> tuple[Wanted, ...]:
    """Return the images that a chart was seen to use.

    Raises:
        DeployError: nobody looked, or the drop's word about it is malformed.
    """
    seen = chart.facts.get("images")
    if seen is None:
        raise DeployError(
            f"{chart.name}: its images were not discovered, so nobody knows whether the drop has them",
            hint="the release engineer has to resolve again with helm there, then build; import that bundle",
        )
    if not isinstance(seen, list):
        raise _malformed(chart)
    found = []
    for item in seen:
        if not isinstance(item, dict) or not isinstance(item.get("image"), str):
            raise _malformed(chart)
        where = item.get("where", [])
        found.append(Wanted(item["image"], chart.name, tuple(str(place) for place in where)))
    return tuple(found)


def _malformed(chart: Artifact) -> DeployError:
    return DeployError(f"{chart.name}: the drop's list of its images is malformed")


def require(images: Images, wanted: Sequence[Wanted]) -> dict[str, Artifact]:
    """Return the drop's entry for every wanted image.

    Raises:
        DeployError: with all that are missing, and where each is used.
    """
    found: dict[str, Artifact] = {}
    missing: list[str] = []
    for item in wanted:
        try:
            artifact = images.find(reference.parse(item.image))
        except ManifestError as error:
            missing.append(f"  {item.image} ({error.message})")
            continue
        if artifact is None:
            missing.append(f"  {item.image} ({', '.join((item.chart, *item.where))})")
        else:
            found[item.image] = artifact
    if missing:
        raise DeployError(
            "\n".join(["images that are to run are not in the drop", *dict.fromkeys(missing)]),
            hint="the release engineer has to add them under `images:`, resolve and build again; import that bundle",
        )
    return found
