"""What a file shows: its name while the drop is active, its content under its digest while the drop is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airlift import oci
from airlift.kinds import files
from airlift.site.listing import Held, Listing, Name, Service

if TYPE_CHECKING:
    from airlift.artifact import Artifact
    from airlift.store import Store


def listing(artifact: Artifact, store: Store) -> Listing:
    """List a file that is in the store.

    Raises:
        IntegrityError: the manifest is not a file's, or the name in it is unsafe.
        StoreError: the store does not have it.
    """
    root = artifact.root
    manifest = oci.parse_manifest(store.read(root.digest), subject=artifact.name, media_type=root.media_type)
    file = files.file_of(manifest, subject=artifact.name)
    return Listing(
        names=(Name(Service.FILES, file.name, {"digest": file.digest, "size": file.size}),),
        held=(Held(Service.FILES, file.name, file.digest, file.size, files.MEDIA_TYPE),),
    )
