"""Compares the static trees of a site with its active drops: which drops one shows, and every file and link of it."""

from __future__ import annotations

import json
import posixpath
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from airlift import fs, limits
from airlift.errors import AirliftError, StoreError, UsageError
from airlift.progress import Progress
from airlift.site import static_tree
from airlift.site.catalog import Catalog
from airlift.site.config import Site
from airlift.site.inspection import Finding, Inventory, Owner, Place, owner_of
from airlift.site.journal import Journal
from airlift.site.static_places import PLACES, known
from airlift.site.static_plan import GENERATION, Blob, Item, Link, Plan, plan_of

_GONE: Final = f"; when it is not wanted any more, take its path out of {PLACES} in the site's directory"


def inspect_trees(site: Site, journal: Journal, inventory: Inventory, progress: Progress) -> list[Finding]:
    """Return what differs in the trees that exports of this site made.

    Raises:
        StoreError: the journal cannot be read.
    """
    try:
        places = known(site)
    except StoreError as error:
        return [Finding(Place.TREE, PLACES, error.message, error.hint or "")]
    if not places:
        return []
    active = tuple(owner_of(drop) for drop in journal.drops() if drop.active)
    catalog = Catalog(site.journal_path, site.store)
    try:
        plan = plan_of(catalog, with_charts=site.config.registry is None)
    except AirliftError as error:
        remedy = error.hint or "mend what else was found, then check again"
        return [
            Finding(Place.TREE, str(place), f"cannot be compared: {error.message}", remedy, active) for place in places
        ]
    finally:
        catalog.close()
    names = {drop.release: f"{drop.channel}/{drop.sequence}" for drop in journal.drops()}
    trees = _Trees(site, plan, inventory, active, names)
    return [item for place in places for item in trees.inspect(place, progress)]


@dataclass(frozen=True, slots=True)
class _Trees:
    """What each tree has to be like."""

    site: Site
    plan: Plan
    inventory: Inventory
    active: tuple[Owner, ...]
    names: dict[str, str]

    def inspect(self, place: Path, progress: Progress) -> Iterator[Finding]:
        again = f"airlift export --static {shlex.quote(str(place))} --site DIR"
        try:
            generation = static_tree.current(place)
        except UsageError as error:
            yield Finding(Place.TREE, str(place), error.message, f"move it away, then {again}{_GONE}", self.active)
            return
        except StoreError as error:
            yield Finding(Place.TREE, str(place), error.message, f"{error.hint or again}{_GONE}", self.active)
            return
        if generation is None:
            # A disk that is not mounted looks like this, so a repair leaves it alone.
            remedy = f"if its disk is not mounted, mount it; else {again}{_GONE}"
            yield Finding(Place.TREE, str(place), "the tree is missing", remedy, self.active)
            return
        if not generation.is_dir():
            problem = f"points to {generation}, which is missing"
            yield Finding(Place.TREE, str(place), problem, f"{again}{_GONE}", self.active)
            return
        if not static_tree.is_of(generation, place, self.plan):
            yield Finding(Place.TREE, str(place), self._other(generation), again, self.active)
            return
        progress.start("comparing the static tree", len(self.plan), unit="files")
        for path, problem in static_tree.differences(generation, self.plan, self.site.store, progress):
            yield Finding(Place.TREE, f"{place}/{path}", problem, again, self._owners(path) or self.active)
        progress.finish()

    def _other(self, generation: Path) -> str:
        """Say what a tree is that is not of the present state."""
        shown = _shown(generation, self.names)
        present = ", ".join(owner.drop for owner in self.active) or "no drop"
        if shown == present:
            return f"shows {shown}, as it was before drops were pruned or airlift was updated"
        return f"shows {shown}, active is {present}"

    def _owners(self, path: str) -> tuple[Owner, ...]:
        item: Item | None = self.plan.get(path)
        if isinstance(item, Link):
            # A model's file is a link to the directory that has its content.
            told = posixpath.normpath(posixpath.join(posixpath.dirname(path), item.target))
            item = self.plan.get(f"{told}/content")
        return self.inventory.owners_of(item.digest) if isinstance(item, Blob) else ()


def _shown(generation: Path, names: dict[str, str]) -> str:
    """Return which drops a tree says that it shows."""
    try:
        value = json.loads(fs.read_bounded(generation / GENERATION, limits.DOCUMENT))["generation"]
        return (
            ", ".join(names.get(release, f"{channel} {release}") for channel, release in sorted(value.items()))
            or "no drop"
        )
    except (StoreError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "nobody knows which drops"
