"""What a model shows in the model hub: its branch while the drop is active, its commit and files while it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airlift import oci
from airlift.errors import BundleError
from airlift.kinds import models
from airlift.site.listing import Held, Listing, Name, Service

if TYPE_CHECKING:
    from airlift.artifact import Artifact
    from airlift.store import Store


def listing(artifact: Artifact, store: Store) -> Listing:
    """List a model that is in the store.

    The manifest is held with the ``revision`` that it stands for, each file's content with no facts of its own: the
    same content may be several files, of several revisions.

    Raises:
        BundleError: the drop's config does not say id, revision and branch.
        IntegrityError: the manifest is not a model's, or a file name in it is unsafe.
        StoreError: the store does not have it.
    """
    facts = {key: artifact.facts.get(key) for key in ("id", "revision", "branch")}
    if not all(isinstance(value, str) and value for value in facts.values()):
        raise BundleError(f"{artifact.name}: the drop's config names no id, revision and branch of the model")
    root = artifact.root
    manifest = oci.parse_manifest(store.read(root.digest), subject=artifact.name, media_type=root.media_type)
    files = {item.digest: item for item in models.files_of(manifest, subject=artifact.name)}
    scope = str(facts["id"])
    value = {
        "digest": root.digest,
        "revision": facts["revision"],
        "branch": facts["branch"],
        "licence": artifact.facts.get("licence"),
        "source": artifact.facts.get("source"),
    }
    return Listing(
        names=(Name(Service.HUB, scope, value),),
        held=(
            Held(Service.HUB, scope, root.digest, root.size, oci.MANIFEST, facts={"revision": facts["revision"]}),
            *(Held(Service.HUB, scope, item.digest, item.size, "application/octet-stream") for item in files.values()),
        ),
    )
