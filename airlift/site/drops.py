"""The drops of a site: what is there, what each holds, and which one clients see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from airlift import limits
from airlift.artifact import DropConfig, decode_drop_config
from airlift.errors import BundleError, IntegrityError, StoreError, UsageError
from airlift.progress import Progress, Silent
from airlift.site import kept, static_places
from airlift.site.clashes import refuse_clashes
from airlift.site.completeness import is_shown, serves_all
from airlift.site.config import Site
from airlift.site.importer import activate as switch
from airlift.site.importer import target_of
from airlift.site.journal import READY, Drop, Journal
from airlift.site.left_behind import Left, names_left, warn_of_tags, wheels_after_move, with_older
from airlift.transport.settings import HttpSettings

_SHORTEST: Final = 6


@dataclass(frozen=True, slots=True)
class Activated:
    """What an activation did.

    Attributes:
        drop: the one whose names clients see now, or do not see any more.
        left: what external mirrors keep although no active drop has it any more; nothing where nothing was to be done.
    """

    drop: Drop
    left: Left = field(default_factory=Left)


def list_drops(site: Site) -> list[Drop]:
    """Return all releases that the site knows, by channel and sequence; those that are not complete too.

    Raises:
        StoreError: the journal cannot be read.
    """
    with site.journal() as journal:
        return journal.drops()


def find(site: Site, release: str) -> Drop:
    """Return the release that a person means.

    Args:
        site: where.
        release: its digest, or the beginning of that, with or without ``sha256:``; or ``CHANNEL/SEQUENCE``.

    Raises:
        UsageError: none is meant, or more than one.
    """
    drops = list_drops(site)
    found = [drop for drop in drops if release in (drop.release, f"{drop.channel}/{drop.sequence}")]
    if not found and len(release.rpartition(":")[2]) >= _SHORTEST:
        found = [
            drop
            for drop in drops
            if drop.release.startswith(release) or drop.release.partition(":")[2].startswith(release)
        ]
    if not found:
        raise UsageError(
            f"no drop {release!r} at {site.root}",
            hint=f"see airlift drops list; {_SHORTEST} or more digits of the release, or CHANNEL/SEQUENCE, are enough;"
            " airlift site log says which were pruned",
        )
    if len(found) > 1:
        raise UsageError(f"{release!r} is the beginning of {len(found)} releases", hint="give more digits")
    return found[0]


def refuse_incomplete(drop: Drop) -> None:
    """Refuse to work with a drop whose import was cut short.

    Raises:
        StoreError: it is one.
    """
    if drop.state != READY:
        raise StoreError(
            f"drop {drop.release} is not complete", hint="run airlift import with its bundle again; it goes on"
        )


def load_drop(site: Site, release: str) -> DropConfig:
    """Return what a drop holds.

    Raises:
        UsageError: there is none.
        StoreError: it is not complete, or its config cannot be read.
    """
    drop = find(site, release)
    refuse_incomplete(drop)
    return decode_drop_config(site.store.read(drop.config, limit=limits.INDEX_DOCUMENT))


def active_drops(site: Site) -> list[DropConfig]:
    """Return what the active drops hold, by channel.

    Raises:
        StoreError: a config cannot be read.
    """
    return [load_drop(site, drop.release) for drop in list_drops(site) if drop.active]


def activate(
    site: Site,
    release: str,
    *,
    progress: Progress | None = None,
    http: HttpSettings | None = None,
    now: datetime | None = None,
) -> Activated:
    """Let clients see a kept drop's names in place of those of its channel's present one.

    Digests of all kept drops stay served, so nothing that runs by digest notices.

    Args:
        site: where.
        release: see `find`.
        progress: hears of the tags that move in an external registry.
        http: how to reach it.
        now: the time, with its zone, for the history; None where there is no clock.

    Raises:
        UsageError: there is no such drop.
        TrustError: another trust file was pinned while this waited.
        StoreError: it is not complete, or the journal is older than the site.
        PolicyError: a name of it belongs to another channel.
        DeliveryError: the external registry refuses.
    """
    return _activate(site, lambda: find(site, release), progress or Silent(), http or HttpSettings(), now)


def _activate(
    site: Site, choose: Callable[[], Drop], progress: Progress, http: HttpSettings, now: datetime | None
) -> Activated:
    with kept.changing(site, "activating", progress, is_written=True, now=now) as journal:
        drop = choose()
        refuse_incomplete(drop)
        _refuse_unserved(site, journal, drop)
        left = Left()
        if not is_shown(site, journal, drop):
            names = journal.names_of(drop.release)
            refuse_clashes(journal, drop.channel, names)
            target = target_of(site, http, progress)
            if target is not None:
                target.check()
                target.check_names(names)
            left = switch(site, journal, drop, target, progress)
        return Activated(journal.drop(drop.release) or drop, left)


def _refuse_unserved(site: Site, journal: Journal, drop: Drop) -> None:
    """Refuse a drop whose images a registry served that site.yaml names no more: clients would not find them.

    Raises:
        StoreError: it is one.
    """
    try:
        config = decode_drop_config(site.store.read(drop.config, limit=limits.INDEX_DOCUMENT))
    except (BundleError, IntegrityError, StoreError):
        # Names move all the same, as they do to a drop of which another blob is damaged.
        return
    if not serves_all(site, {digest for digest, _ in journal.held_blobs(drop.release)}, config):
        raise StoreError(
            f"{drop.channel}/{drop.sequence} was imported while a registry served its images, and site.yaml names none"
            " now: this site does not serve them yet",
            hint="airlift check --site DIR --repair lets it serve them; where the store lacks some of them, give it the"
            " bundle of that drop too: --repair BUNDLE",
        )


def deactivate(
    site: Site,
    channel: str,
    *,
    progress: Progress | None = None,
    http: HttpSettings | None = None,
    now: datetime | None = None,
) -> Activated:
    """Let clients see nothing of a channel, until one of its drops is activated or imported.

    Digests of its drops stay served. Where nothing is seen of it already, nothing is done.

    Args:
        site: where.
        channel: which.
        progress: hears of the tags that an external registry keeps.
        http: how to reach it.
        now: the time, with its zone, for the history; None where there is no clock.

    Returns:
        The drop that was active, or the newest one where none was.

    Raises:
        UsageError: there is no drop of this channel, or it is not known which one clients see.
        TrustError: another trust file was pinned while this waited.
        StoreError: the journal is older than the site.
        DeliveryError: the external registry refuses; the same command goes on.
    """
    progress = progress or Silent()
    with kept.changing(site, "deactivating", progress, is_written=True, now=now) as journal:
        drops = [drop for drop in journal.drops() if drop.channel == channel]
        before = sorted((drop for drop in drops if drop.active or drop.pending), key=lambda drop: not drop.active)
        if not before:
            if drops and channel in journal.deactivated():
                return Activated(drops[-1])
            names = ", ".join(sorted({drop.channel for drop in journal.drops()})) or "none"
            raise UsageError(
                f"no drop of channel {channel} is active",
                hint=f"airlift drops list shows what is; channels with drops are: {names}",
            )
        tags: tuple[str, ...] = ()
        wheels: tuple[str, ...] = ()
        target = target_of(site, http or HttpSettings(), progress)
        if target is not None:
            target.check()
            if not any(drop.pending for drop in before):
                # Killed from here on, the same command goes on, and so does activating it again.
                with journal.transaction():
                    journal.announce(before[0])
            gone = names_left(journal, channel, None, before)
            moved = target.withdraw(gone)
            tags = with_older(target, journal, channel, None, left=gone, moved=moved, progress=progress)
            wheels = wheels_after_move(site, target, journal, channel, drop=None, progress=progress)
        if site.config.registry is not None:
            warn_of_tags(site.config.registry.url, f"were channel {channel}'s", tags, progress)
        with journal.transaction():
            journal.deactivate(channel)
        return Activated(journal.drop(before[0].release) or before[0], Left(tags, wheels))


def rollback(
    site: Site,
    channel: str | None,
    *,
    progress: Progress | None = None,
    http: HttpSettings | None = None,
    now: datetime | None = None,
) -> Activated:
    """Take a channel's active drop back: clients see the kept drop before it, by sequence.

    Args:
        site: where.
        channel: which; None where the site has one channel only.
        progress: hears of the tags that move in an external registry.
        http: how to reach it.
        now: the time, with its zone, for the history; None where there is no clock.

    Raises:
        UsageError: which channel is not clear, or it has no earlier complete drop.
        TrustError, StoreError, PolicyError, DeliveryError: as `activate`.
    """
    return _activate(site, lambda: before(site, channel)[1], progress or Silent(), http or HttpSettings(), now)


def before(site: Site, channel: str | None) -> tuple[Drop, Drop]:
    """Return a channel's active drop and the kept drop before it, by sequence.

    Raises:
        UsageError: which channel is not clear, or it has no earlier complete drop.
        StoreError: the journal cannot be read.
    """
    drops = list_drops(site)
    active = [drop for drop in drops if drop.active and channel in (None, drop.channel)]
    if not active:
        names = ", ".join(sorted({drop.channel for drop in drops})) or "none"
        raise UsageError(
            f"no drop of channel {channel} is active"
            if channel
            else "no drop is active, so there is none to go back from",
            hint=f"choose one with airlift drops activate; channels with drops are: {names}",
        )
    if len(active) > 1:
        raise UsageError(
            f"{len(active)} channels have an active drop",
            hint=f"name one with --channel: {', '.join(drop.channel for drop in active)}",
        )
    earlier = [
        drop
        for drop in drops
        if drop.channel == active[0].channel and drop.sequence < active[0].sequence and drop.state == READY
    ]
    if not earlier:
        raise UsageError(
            f"{active[0].channel}/{active[0].sequence} is the first kept drop; there is none to go back to",
            hint=f"to let clients see nothing of the channel: airlift drops deactivate --site DIR {active[0].channel}",
        )
    return active[0], earlier[-1]


def status(site: Site, progress: Progress) -> Mapping[str, Any]:
    """Return a site's state, as ``airlift status --json`` gives it.

    Of a damaged list of trees only a warning tells, and one of a journal that is older than the site.

    Raises:
        StoreError: the journal cannot be read.
    """
    unknown = [kept.told(release) for release in kept.warn_of_older_journal(site, progress)]
    registry, python = site.config.registry, site.config.python
    trees: list[Path] = []
    try:
        trees = static_places.known(site)
    except StoreError as error:
        progress.warn("; ".join(filter(None, (error.message, error.hint))))
    return {
        "url": site.config.url,
        "listen": site.config.listen,
        "registry": None if registry is None else registry.url,
        "python": None if python is None else python.index,
        "trees": [str(place) for place in trees],
        "trust": site.trust.fingerprint,
        "channels": {
            channel: {"sequence": sequence, "release": release} for channel, (sequence, release) in _seen(site).items()
        },
        "drops": [drop.to_json() for drop in list_drops(site)],
        "unknown_to_journal": unknown,
    }


def _seen(site: Site) -> dict[str, tuple[int, str]]:
    with site.journal() as journal:
        return journal.seen()
