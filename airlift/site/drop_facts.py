"""What is told of a kept drop: what it holds, who signed it, how it differs from another, and its SBOM."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airlift.bundle import attest
from airlift.errors import AirliftError, BundleError, IntegrityError, StoreError
from airlift.site import contents, kept
from airlift.site.changes import Change, changes, with_sizes
from airlift.site.drops import find, load_drop, refuse_incomplete
from airlift.trust.fields import format_time

if TYPE_CHECKING:
    from airlift.artifact import Artifact
    from airlift.site.config import Site
    from airlift.site.journal import Drop


def show(site: Site, release: str) -> Mapping[str, Any]:
    """Return what a drop holds, as ``airlift drops show --json`` gives it.

    Each artifact has the names that clients see of it, with the digests and sizes that `diff` gives them. Of a damaged
    artifact they are not told; `airlift check` tells of it.

    Raises:
        UsageError: there is no such drop.
        StoreError: it is not complete, or cannot be read.
    """
    drop = find(site, release)
    config = load_drop(site, drop.release)
    listed = [_names_of(site, item) for item in config.artifacts]
    sized = iter(with_sizes(site.store, [config], [name for names in listed for name in names]))
    return {
        **drop.to_json(),
        **_signature(site, drop),
        "labels": dict(config.labels),
        "contents": [
            {
                "kind": item.kind.value,
                "name": item.name,
                "digest": item.root.digest,
                "names": [
                    {"name": name.name, "digest": name.digest, "size": name.size}
                    for name in itertools.islice(sized, len(names))
                ],
            }
            for item, names in zip(config.artifacts, listed, strict=True)
        ],
        "deploy": list(config.deploy),
    }


def _signature(site: Site, drop: Drop) -> dict[str, Any]:
    """Return what the kept envelope says, verified against the trust that is pinned now."""
    try:
        release, signers = kept.signed(site, drop.release)
    except AirliftError as error:
        return {"signers": [], "issued": None, "expires": None, "not_verified": error.message}
    times = {"issued": release.issued, "expires": release.expires}
    said = {key: None if time is None else format_time(time) for key, time in times.items()}
    return {"signers": list(signers), **said, "not_verified": None}


def sbom(site: Site, release: str) -> bytes:
    """Return the SBOM that came with a drop, compared with what the import noted.

    Raises:
        UsageError: there is no such drop.
        StoreError: the drop is not complete, its bundle brought none, or it cannot be read.
        BundleError, IntegrityError: it is damaged.
    """
    drop = find(site, release)
    refuse_incomplete(drop)
    try:
        return kept.attested(site, drop.release, attest.SBOM)
    except (BundleError, IntegrityError, StoreError) as error:
        error.hint = error.hint or "airlift check --site DIR --repair BUNDLE with the bundle of that drop"
        raise


def _names_of(site: Site, item: Artifact) -> list[Change]:
    try:
        listing = contents.listing_of(item, site.store, is_embedded=site.config.registry is None)
    except (BundleError, IntegrityError, StoreError):
        return []
    return changes((), listing.names)


def diff(site: Site, old: str, new: str) -> list[Change]:
    """Return name by name what changes for clients from one drop to another.

    Raises:
        UsageError: there is no such drop.
        StoreError: one is not complete.
    """
    pair = [find(site, old), find(site, new)]
    configs = [load_drop(site, drop.release) for drop in pair]
    with site.journal() as journal:
        found = changes(*(journal.names_of(drop.release) for drop in pair))
    return with_sizes(site.store, configs, found)
