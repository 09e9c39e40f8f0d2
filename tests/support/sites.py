"""A site's catalog made of listings, without bundle and importer: for tests of the servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from airlift import digest as digests
from airlift.site.catalog import Catalog
from airlift.site.journal import STAGING, Drop, Journal
from airlift.site.listing import Listing
from airlift.store import Store


def drop(number: int = 1, *, channel: str = "stable", artifacts: int = 1) -> Drop:
    release = digests.of(f"{channel} {number}".encode())
    return Drop(
        release, channel, number, STAGING, release, "vision", release, artifacts, "2026-11-25T12:00:00Z", active=False
    )


def journal_of(path: Path) -> Path:
    """Make an empty journal."""
    Journal.create(path)
    return path


def publish(path: Path, listings: Sequence[Listing], item: Drop | None = None, *, active: bool = True) -> Drop:
    """Put a drop that shows `listings` into the journal."""
    item = item or drop()
    with Journal(path) as journal:
        journal.stage(item)
        with journal.transaction():
            journal.accept(item)
            journal.publish(
                item,
                [name for listing in listings for name in listing.names],
                [held for listing in listings for held in listing.held],
            )
            if active:
                journal.activate(item)
    return item


def catalog_of(folder: Path, store: Store, *listings: Listing) -> Catalog:
    """A catalog of one active drop."""
    path = journal_of(folder / "state.db")
    publish(path, listings)
    return Catalog(path, store)
