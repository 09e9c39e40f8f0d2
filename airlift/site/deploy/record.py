"""What was seen to run, kept beside the drop that it belongs to: ``drops/<release>/deployed.json``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from airlift import canonical, fs
from airlift.site import drops
from airlift.site.config import Site
from airlift.site.deploy import helmchart
from airlift.site.deploy.status import State

NAME: Final = "deployed.json"


def keep(site: Site, states: Sequence[State], *, now: datetime) -> None:
    """Write what was seen of each active drop's releases; what was seen before is replaced.

    Raises:
        StoreError: the disk refuses.
    """
    for drop in drops.list_drops(site):
        if not drop.active:
            continue
        names = {item.name for item in helmchart.releases([drops.load_drop(site, drop.release)])}
        folder = site.drops_dir / drop.release
        with fs.guarded("creating"):
            folder.mkdir(parents=True, exist_ok=True)
        value = {
            "checked": now.isoformat(timespec="seconds"),
            "channel": drop.channel,
            "sequence": drop.sequence,
            "release": drop.release,
            "releases": [item.to_json() for item in states if item.release.name in names],
        }
        fs.write(folder / NAME, canonical.encode(value))
