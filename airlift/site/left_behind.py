"""What external mirrors keep although no active drop has it, tags and wheels: which, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airlift.errors import DeliveryError, first_of
from airlift.site.listing import Name, Service, part_of

if TYPE_CHECKING:
    from airlift.progress import Progress
    from airlift.site.config import Site
    from airlift.site.journal import Drop, Journal
    from airlift.site.mirror import Target

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Left:
    """What stays after names have moved, although no active drop has it any more, sorted.

    Attributes:
        tags: in an external registry, path and tag of each.
        wheels: in an external package index, their file names.
    """

    tags: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()

    def to_json(self) -> dict[str, list[str]]:
        """Return what ``--json`` says of it."""
        return {"tags_left": list(self.tags), "wheels_left": list(self.wheels)}


def names_left(
    journal: Journal, channel: str, drop: Drop | None, before: Iterable[Drop], service: Service = Service.OCI
) -> list[Name]:
    """Return the names of drops that no active drop has once this one, or none, is its channel's active one, sorted.

    Args:
        journal: knows the drops.
        channel: which one's.
        drop: the one whose names are shown now, if there is one.
        before: whose names are asked for.
        service: which names.

    Raises:
        StoreError: the journal cannot be read.
    """
    drops = journal.drops()
    # Of a channel of a recovered site nobody knows which drop clients see: it may be any.
    known = {item.channel for item in drops if item.active} | journal.deactivated()
    others = [item for item in drops if item.channel != channel and (item.active or item.channel not in known)]
    return names_beyond(journal, before, [*([drop] if drop else []), *others], service)


def names_beyond(journal: Journal, drops: Iterable[Drop], others: Iterable[Drop], service: Service) -> list[Name]:
    """Return the names of drops that none of the others has, sorted.

    Raises:
        StoreError: the journal cannot be read.
    """
    stay = {(n.key, part_of(n)) for item in others for n in journal.names_of(item.release) if n.service == service}
    names = {
        (n.key, part_of(n), n.value["digest"]): n
        for item in drops
        for n in journal.names_of(item.release)
        if n.service == service
    }
    return [name for (key, part, _), name in sorted(names.items()) if (key, part) not in stay]


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
        progress.warn(
            f"{registry} still shows {len(left)} tag(s) that {which}; they stay until no kept drop has their content:"
            f" {first_of(left, _SHOWN)}"
        )


def wheels_after_move(
    site: Site, target: Target, journal: Journal, channel: str, *, drop: Drop | None, progress: Progress
) -> tuple[str, ...]:
    """Return, and say, which wheels of a channel's kept drops a package index has although no active drop has them.

    Args:
        site: whose site.yaml may name an index; where it does not, there is nothing.
        target: asks the index.
        journal: knows the drops.
        channel: which one's.
        drop: the one whose names are shown now, if there is one.
        progress: hears the warning.

    Raises:
        StoreError: the journal cannot be read.
    """
    known = [item for item in journal.drops() if item.channel == channel]
    names = [] if site.config.python is None else names_left(journal, channel, drop, known, Service.SIMPLE)
    which = f"were channel {channel}'s" if drop is None else f"{drop.channel}/{drop.sequence} does not have"
    return warn_of_wheels(site, target, names, which, progress)


def warn_of_wheels(
    site: Site, target: Target, names: Sequence[Name], which: str, progress: Progress
) -> tuple[str, ...]:
    """Return those of these wheels that a package index has, and say so; what it does not answer is a warning too.

    Args:
        site: whose site.yaml may name an index.
        target: asks it.
        names: the wheels.
        which: what they are.
        progress: hears it.
    """
    if site.config.python is None or not names:
        return ()
    try:
        wheels = target.shown(names)
    except DeliveryError as error:
        progress.warn(f"which wheels that {which} stay in {site.config.python.index} is not known: {error.message}")
        return ()
    if wheels:
        progress.warn(
            f"{site.config.python.index} still has {len(wheels)} wheel(s) that {which}, and pip finds them there;"
            f" take them away there if nobody is to install them: {first_of(wheels, _SHOWN)}"
        )
    return tuple(wheels)
