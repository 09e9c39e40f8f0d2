"""Tags that an external registry keeps although no active drop has them: which, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from airlift.errors import DeliveryError
from airlift.progress import Progress
from airlift.site.journal import Drop, Journal
from airlift.site.listing import Name, Service
from airlift.site.mirror import Target

_SHOWN: Final = 10


def names_left(journal: Journal, channel: str, drop: Drop | None, before: Iterable[Drop]) -> list[Name]:
    """Return the tags of drops that no active drop has once this one, or none, is its channel's active one, sorted.

    Raises:
        StoreError: the journal cannot be read.
    """
    drops = journal.drops()
    # Of a channel of a recovered site nobody knows which drop clients see: it may be any.
    known = {item.channel for item in drops if item.active} | journal.deactivated()
    others = [item for item in drops if item.channel != channel and (item.active or item.channel not in known)]
    stay = {name.key for item in (*([drop] if drop else []), *others) for name in journal.names_of(item.release)}
    names = {(name.key, name.value["digest"]): name for item in before for name in journal.names_of(item.release)}
    return [name for (key, _), name in sorted(names.items()) if name.service == Service.OCI and key not in stay]


def with_older(
    target: Target,
    journal: Journal,
    channel: str,
    drop: Drop | None,
    *,
    left: Iterable[Name],
    moved: Iterable[str],
    progress: Progress,
) -> tuple[str, ...]:
    """Return the tags that stay after a move, with those that the channel's other kept drops left there, sorted.

    What stands in the way of asking for those of other drops is a warning: a tag that the registry itself has damaged
    would else end every move from now on.

    Args:
        target: the registry.
        journal: knows the drops.
        channel: which one's.
        drop: the one whose names are shown now, if there is one.
        left: the names that were looked at for this move.
        moved: those of them that stay.
        progress: hears the warning.

    Raises:
        StoreError: the journal cannot be read.
    """
    asked = {(name.key, name.value["digest"]) for name in left}
    known = [item for item in journal.drops() if item.channel == channel]
    names = names_left(journal, channel, drop, known)
    try:
        shown = target.shown([name for name in names if (name.key, name.value["digest"]) not in asked])
    except DeliveryError as error:
        progress.warn(f"which tags of channel {channel}'s other drops stay is not known: {error.message}")
        shown = []
    return tuple(sorted({*moved, *shown}))


def warn_of_tags(registry: str, which: str, left: Sequence[str], progress: Progress) -> None:
    """Say which tags an external registry keeps, the first of many.

    Args:
        registry: its address.
        which: what the tags are.
        left: path and tag of each.
        progress: hears it.
    """
    if left:
        more = "" if len(left) <= _SHOWN else f" and {len(left) - _SHOWN} more"
        progress.warn(
            f"{registry} still shows {len(left)} tag(s) that {which}; "
            f"take them away there: {', '.join(left[:_SHOWN])}{more}"
        )
