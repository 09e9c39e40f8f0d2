"""Prune in an external registry: which manifests only pruned drops need. `registry_removal` deletes them."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

from airlift.digest import Digest
from airlift.errors import AirliftError
from airlift.oci import Manifest
from airlift.site import contents, mirror, oci_listing
from airlift.site.config import Site
from airlift.site.elsewhere import Doomed
from airlift.site.inspection import take_inventory
from airlift.site.journal import Journal
from airlift.site.registry_inspection import items_of


def doomed(site: Site, journal: Journal, going: Iterable[str]) -> tuple[Doomed, ...]:
    """Return the registry's manifests that only these drops need, parents before their children.

    What an import needs there that is not complete is not known yet: nothing of this may be deleted before it is.

    Raises:
        StoreError: the journal cannot be read.
    """
    registry = site.config.registry
    releases = set(going)
    if registry is None or not releases:
        return ()
    inventory = take_inventory(site, journal)
    subjects = _subjects(site, journal, releases)
    tags: dict[tuple[str, Digest], set[str]] = defaultdict(set)
    for release in releases:
        for path, tag, digest in mirror.tags(journal.names_of(release)):
            tags[registry.repository(path), digest].add(tag)
    return tuple(
        Doomed(
            item.repository,
            item.digest,
            tuple(sorted(tags[item.repository, item.digest])),
            subjects.get((item.repository, item.digest)),
        )
        for item in items_of(site, inventory)
        if item.is_manifest and {owner.release for owner in item.owners} <= releases
    )


def _subjects(site: Site, journal: Journal, releases: set[str]) -> dict[tuple[str, Digest], Digest]:
    return {
        (repository, manifest.descriptor.digest): manifest.subject.digest
        for release, repository, manifest in _manifests(site, journal)
        if release in releases and manifest.subject is not None
    }


def needed(site: Site, journal: Journal) -> dict[str, dict[Digest, frozenset[Digest]]]:
    """Return by repository the manifests that the complete drops need, each with those that it lists.

    Raises:
        StoreError: the journal cannot be read.
    """
    found: dict[str, dict[Digest, frozenset[Digest]]] = defaultdict(dict)
    for _, repository, manifest in _manifests(site, journal):
        found[repository][manifest.descriptor.digest] = frozenset(child.digest for child in manifest.manifests)
    return found


def _manifests(site: Site, journal: Journal) -> Iterator[tuple[str, str, Manifest]]:
    """Yield release, repository and manifest; of a tree with a damaged manifest what can be read."""
    registry = site.config.registry
    if registry is None:
        return
    for drop, config in take_inventory(site, journal).configs:
        for item in config.artifacts:
            if item.kind not in contents.REGISTRY_KINDS:
                continue
            repository = registry.repository(mirror.place_of(item)[0])
            with contextlib.suppress(AirliftError):
                for _, manifest in oci_listing.walk(item.root, site.store, subject=item.name):
                    yield drop.release, repository, manifest
