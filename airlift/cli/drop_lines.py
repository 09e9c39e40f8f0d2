"""A drop, and what becomes of a name, in one line for people."""

from __future__ import annotations

from collections.abc import Sequence

from airlift.cli import console
from airlift.site.changes import Change
from airlift.site.journal import READY, Drop


def change_line(item: Change) -> str:
    """Return what becomes of a name in one line for people."""
    arrow = "" if item.old_digest is None else f"{item.old_digest} -> "
    size = "" if item.size is None else f"  {console.size(item.size)}"
    if size and item.old_size is not None:
        size = f"  {console.size(item.old_size)} -> {console.size(item.size or 0)}"
    return f"{item.change:8} {item.name}  {arrow}{item.digest}{size}"


def tell(found: Sequence[Drop]) -> None:
    """List a site's drops, and say where clients see none."""
    for drop in found:
        console.answer(line(drop))
    if not found:
        console.say("there are no drops here yet; airlift import BUNDLE brings one")
    seen = {drop.channel for drop in found if drop.active}
    for channel in sorted({drop.channel for drop in found if drop.state == READY} - seen):
        console.say(f"clients see no drop of channel {channel}; airlift drops activate chooses one")


def line(drop: Drop) -> str:
    """Return a drop in one line for people."""
    state = "" if drop.state == READY else f"  not complete ({drop.state}); import its bundle again"
    if drop.pending:
        state = (
            "  the registry or package index does not follow yet; activate it again, or deactivate the channel again"
        )
    mark = "*" if drop.active else " "
    return f"{mark} {drop.channel}/{drop.sequence}  {drop.release}  {console.count(drop.artifacts, 'artifact')}{state}"
