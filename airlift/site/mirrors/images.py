"""What an image shows in the site's registry: its tag while the drop is active, its digests while the drop is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airlift import reference
from airlift.errors import BundleError, ManifestError
from airlift.site.oci_listing import oci_listing

if TYPE_CHECKING:
    from airlift.artifact import Artifact
    from airlift.site.listing import Listing
    from airlift.store import Store


def listing(artifact: Artifact, store: Store) -> Listing:
    """List an image whose manifests are in the store.

    Raises:
        BundleError: its name is no complete reference.
        IntegrityError: a manifest is malformed.
        StoreError: the store does not have it.
    """
    try:
        name = reference.parse(artifact.name)
    except ManifestError as error:
        raise BundleError(f"the drop's config: {error.message}") from None
    if str(name) != artifact.name or (name.digest is not None and name.digest != artifact.root.digest):
        raise BundleError(f"the drop's config: {artifact.name} is not the complete name of {artifact.root.digest}")
    return oci_listing(name.path, name.tag, artifact.root, store)
