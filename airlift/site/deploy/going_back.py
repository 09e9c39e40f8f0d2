"""Names and releases of a drop are taken back in one command that may be killed anywhere and repeated.

A note keeps what it is about from before the first name moves until the last file is written and what runs is compared:
once names have moved, the drop before the active one is another.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from airlift import canonical, fs, limits
from airlift.errors import AirliftError, DeployError
from airlift.progress import Progress
from airlift.site import drops
from airlift.site.config import Site
from airlift.site.deploy import k3s
from airlift.site.deploy.k3s import Plan
from airlift.site.journal import READY, Drop

NOTE: Final = "going-back.json"


def choose(site: Site, channel: str | None) -> tuple[Drop, Drop]:
    """Return the drop that is taken back, and the one that takes its place: what a killed run began, if there is one.

    Args:
        site: where.
        channel: which; None where the site has one channel only.

    Raises:
        UsageError: which channel is not clear, or it has no earlier complete drop.
        StoreError: the journal cannot be read.
    """
    return _begun(site, channel) or drops.before(site, channel)


def _begun(site: Site, channel: str | None) -> tuple[Drop, Drop] | None:
    place = _place(site)
    if not place.is_file():
        return None
    try:
        value = json.loads(fs.read_bounded(place, limits.DOCUMENT))
        names = value["from"], value["to"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    known = {drop.release: drop for drop in drops.list_drops(site)}
    present, target = (known.get(name) for name in names)
    if present is None or target is None or target.state != READY or channel not in (None, target.channel):
        return None
    # Since then somebody may have imported or activated another one.
    return (present, target) if present.active or target.active else None


def note(site: Site, present: Drop, target: Drop) -> None:
    """Keep what is about to be done.

    Raises:
        StoreError: the disk refuses.
    """
    fs.write(_place(site), canonical.encode({"from": present.release, "to": target.release}))


def write(site: Site, target: Drop, plan: Plan, progress: Progress) -> None:
    """Write the releases of the drop that is active again.

    Raises:
        DeployError: another drop of the channel was activated in the meantime.
        IntegrityError, StoreError, DeliveryError: as `k3s.write`.
    """
    if not any(drop.release == target.release and drop.active for drop in drops.list_drops(site)):
        raise DeployError(
            f"{target.channel}/{target.sequence} is not active any more: another command activated another drop",
            hint="look at airlift drops list, then write what is active with: airlift deploy k3s",
        )
    k3s.write(plan, progress=progress)


@contextlib.contextmanager
def ending(site: Site) -> Iterator[None]:
    """Look at what is done already, and forget the note then: when that is broken off, the same command looks again.

    Raises:
        AirliftError: what the block raises; it is done all the same.
        StoreError: the disk refuses.
    """
    try:
        yield
    except AirliftError:
        forget(site)
        raise
    forget(site)


def forget(site: Site) -> None:
    """Remove the note: what is active is deployed.

    Raises:
        StoreError: the disk refuses.
    """
    with fs.guarded("removing"):
        if _place(site).exists():
            _place(site).unlink()
            fs.sync_directory(site.root)


def _place(site: Site) -> Path:
    return site.root / NOTE
