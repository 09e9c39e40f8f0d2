"""What a set of wheels shows in the package index.

A name per distribution file, under its normalised project; the wheel and its METADATA are held under the project.
"""

from __future__ import annotations

from typing import Any

from airlift import oci
from airlift.artifact import Artifact
from airlift.digest import Digest
from airlift.kinds.wheels import METADATA_TYPE, WHEEL_TYPE, DistributionFile, parse_manifest
from airlift.site.listing import Held, Listing, Name, Service
from airlift.store import Store


def listing(artifact: Artifact, store: Store) -> Listing:
    """Return the names and contents of a set of wheels, whose index and manifests are in `store`.

    Raises:
        IntegrityError: a manifest is not what a set of wheels has.
        StoreError: a manifest is not in the store.
    """
    names: list[Name] = []
    held: dict[Digest, Held] = {}
    index = oci.parse_manifest(store.read(artifact.root.digest), subject=artifact.name, media_type=oci.INDEX)
    for child in index.manifests:
        file = parse_manifest(store.read(child.digest), subject=f"{artifact.name}, {child.digest}")
        project = file.name.project
        names.append(Name(Service.SIMPLE, project, _value(file)))
        facts = {"filename": file.name.filename, "metadata": file.metadata_digest}
        held[file.digest] = Held(Service.SIMPLE, project, file.digest, file.size, WHEEL_TYPE, facts=facts)
        # Wheels of one release often share their METADATA.
        held[file.metadata_digest] = Held(
            Service.SIMPLE, project, file.metadata_digest, file.metadata_size, METADATA_TYPE
        )
    return Listing(tuple(names), tuple(held.values()))


def _value(file: DistributionFile) -> dict[str, Any]:
    value = {
        "digest": file.digest,
        "filename": file.name.filename,
        "size": file.size,
        "version": str(file.name.version),
        "metadata": file.metadata_digest,
        "requires-python": file.requires_python,
        "yanked": file.yanked,
        "upload-time": file.upload_time,
    }
    return {key: item for key, item in value.items() if item is not None}
