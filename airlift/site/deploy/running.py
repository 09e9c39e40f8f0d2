"""The digests that run against the digests that were shipped.

A node reports for a container the digest of the image's index, or of its only manifest, and for images that share a
config any of their names: so what counts is the digest alone, against everything shipped that is the same image.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Final

from airlift import digest as digests
from airlift import reference
from airlift.artifact import Artifact
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.errors import IntegrityError, ManifestError
from airlift.site.deploy.images import Images
from airlift.site.deploy.rollout import Container

_NOT_SHIPPED: Final = "is not in the active drops"
_UNREPORTED: Final = "the node does not report which image it mounts; name it by its digest in the values"


@dataclass(frozen=True, slots=True)
class Compared:
    """A running container and what was shipped for it.

    Attributes:
        container: as the cluster reports it.
        running: the digest that it reports, or None before it has started.
        shipped: the digest of the drop's image, or None when the drop has no such image.
        problem: what is wrong, or None.
    """

    container: Container
    running: Digest | None
    shipped: Digest | None
    problem: str | None

    @property
    def has_other_content(self) -> bool:
        """Whether it runs another digest than the one that was shipped under its name."""
        return self.problem is not None and self.shipped is not None and self.running is not None

    def to_json(self) -> JsonObject:
        """Return what ``--json`` and the record say."""
        return {
            "pod": self.container.pod,
            "container": self.container.name,
            "image": self.container.image,
            "running": self.running,
            "shipped": self.shipped,
            "problem": self.problem,
        }


class Shipped:
    """What the active drops have, under every digest that a node may report for it."""

    def __init__(self, images: Images) -> None:
        """Look at all images of the drops.

        Raises:
            DeployError, IntegrityError, StoreError, FetchError: a manifest cannot be read.
        """
        self._images = images
        self._same: dict[Digest, set[Digest]] = defaultdict(set)
        self._configs: dict[str, frozenset[Digest]] = {}
        for artifact in images:
            names, configs = images.identities(artifact)
            self._configs[artifact.name] = configs
            for config in configs:
                self._same[config] |= names | {config}

    def compare(self, container: Container) -> Compared:
        """Compare one container; one that has not started has no problem yet."""
        running = _digest(container.image_id)
        try:
            artifact = self._images.find(reference.parse(container.image))
        except ManifestError:
            artifact = None
        if artifact is None:
            return Compared(container, running, None, f"{container.image} {_NOT_SHIPPED}")
        shipped = artifact.root.digest
        if container.is_unreported:
            return Compared(container, None, shipped, _UNREPORTED)
        if not container.image_id:
            return Compared(container, None, shipped, None)
        if running is None:
            return Compared(container, None, shipped, f"the node reports no digest but {container.image_id[:200]!r}")
        if running in self._allowed(artifact):
            return Compared(container, running, shipped, None)
        return Compared(container, running, shipped, f"{running} runs, {shipped} was shipped")

    def _allowed(self, artifact: Artifact) -> set[Digest]:
        return {artifact.root.digest}.union(*(self._same[config] for config in self._configs[artifact.name]))


def _digest(image_id: str) -> Digest | None:
    try:
        return digests.parse(image_id.rpartition("@")[2], subject="imageID")
    except IntegrityError:
        return None
