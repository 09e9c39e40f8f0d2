"""A site, what its administrator does to it, and where its clients then ask: the ground of the mirrors' contracts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from airlift.progress import Silent
from airlift.site import drops, retention
from airlift.site.config import Site
from airlift.site.importer import Imported
from airlift.site.static_tree import export
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, make_site, ship, take
from tests.support.static_nginx import appliance_nginx

CHANNELS = ("stable", "edge")


def nothing() -> None:
    """What is left to do after a change where clients see it at once."""


@dataclass
class Mirror:
    """A site and one place where it shows its drops.

    Attributes:
        site: the site.
        url: where clients ask.
        folder: for bundles and clients.
        settle: what an administrator runs after every change, so that clients see it.
        loses_names: whether a name that only a later drop has goes away with it.
    """

    site: Site
    url: str
    folder: Path
    settle: Callable[[], object] = nothing
    loses_names: bool = True
    _sequence: int = field(default=0, init=False)

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    def take(self, cargo: Cargo) -> Imported:
        """Import a drop, the next of its channel."""
        self._sequence += 1
        return self.import_again(ship(cargo, self.bundle(self._sequence), sequence=self._sequence))

    def bundle(self, sequence: int) -> Path:
        return self.folder / f"{sequence}.airlift"

    def import_again(self, bundle: Path) -> Imported:
        """Import a bundle that is there, and then do the rest, also after a failure."""
        try:
            return take(self.site, bundle)
        finally:
            self.settle()

    def roll_back(self, channel: str = "stable") -> None:
        drops.rollback(self.site, channel)
        self.settle()

    def activate(self, release: str) -> None:
        drops.activate(self.site, release)
        self.settle()

    def prune(self, *, keep: int) -> int:
        """Forget all drops but the newest of each channel; return how many went."""
        done = retention.execute(self.site, retention.plan(self.site, keep), Silent())
        self.settle()
        return len(done.releases)


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[Mirror]:
    """A site that ``airlift serve`` shows."""
    site = make_site(folder / "site", channels=CHANNELS)
    with serving(site.root) as url:
        yield Mirror(site, url, folder)


@contextlib.contextmanager
def static_tree(folder: Path) -> Iterator[Mirror]:
    """A site whose exported tree nginx shows."""
    site = make_site(folder / "site", channels=CHANNELS)
    tree = folder / "www" / "tree"
    tree.parent.mkdir()

    def settle() -> None:
        export(site, tree, Silent())

    settle()
    with appliance_nginx(tree, folder / "nginx") as url:
        yield Mirror(site, url, folder, settle)


BACKENDS = {"embedded": embedded, "static tree on nginx": static_tree}
"""Where every mirror but that of images can be."""
