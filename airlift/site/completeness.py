"""Whether a site has, serves and shows a drop whole."""

from __future__ import annotations

from collections.abc import Container

from airlift import fs, limits
from airlift.artifact import DropConfig
from airlift.digest import Digest
from airlift.errors import BundleError, IntegrityError, StoreError
from airlift.site import contents, kept
from airlift.site.config import Site
from airlift.site.journal import Drop, Journal


def is_whole(site: Site, journal: Journal, drop: Drop) -> bool:
    """Say whether the site still has what a drop shows and is kept of it; where it does not, the bundle mends it.

    Raises:
        StoreError: the journal cannot be read.
    """
    store = site.store
    if kept.problems(site, drop):
        return False
    try:
        found = contents.read(fs.read_bounded(site.index_path(drop.release), limits.INDEX_DOCUMENT), store)
    except (BundleError, IntegrityError, StoreError):
        return False
    said = [*(value.digest for value in found.values), *(item.root.digest for item in found.config.artifacts)]
    held = dict(journal.held_blobs(drop.release))
    return (
        serves_all(site, held, found.config)
        and all(map(store.has, said))
        and all(store.has(digest) and store.size(digest) == size for digest, size in held.items())
    )


def serves_all(site: Site, held: Container[Digest], config: DropConfig) -> bool:
    """Say whether a site serves a drop's images and charts: it does not if a registry did while it was imported.

    Args:
        site: where.
        held: what it serves of the drop by digest.
        config: what the drop has.
    """
    return site.config.registry is not None or all(
        item.root.digest in held for item in config.artifacts if item.kind in contents.REGISTRY_KINDS
    )


def is_shown(site: Site, journal: Journal, drop: Drop) -> bool:
    """Say whether clients see exactly this drop, wherever site.yaml says that they look.

    Raises:
        StoreError: the journal cannot be read.
    """
    return journal.is_settled(drop) and journal.elsewhere.has_all(drop.release, site.mirrors)
