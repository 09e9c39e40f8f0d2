"""Names of a drop against those of the other channels: one name never has two contents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from airlift.errors import PolicyError
from airlift.site import contents
from airlift.site.config import Site
from airlift.site.contents import Contents, Payload
from airlift.site.journal import Journal
from airlift.site.listing import Listing, Name

_SHOWN: Final = 5


def listing_of(site: Site, journal: Journal, drop: Contents, payload: Payload, *, is_named: bool = True) -> Listing:
    """Return what a drop that comes in will show.

    Args:
        site: where.
        journal: the site's.
        drop: what comes.
        payload: has its manifests.
        is_named: whether its names are to move; those that stay where they are clash with nothing.

    Raises:
        PolicyError: a name of it has another content, within the drop or in another channel.
        BundleError, IntegrityError: an artifact is malformed, or a manifest has not come yet.
    """
    listing = contents.list_all(drop.config, payload, is_embedded=site.config.registry is None)
    if is_named:
        refuse_clashes(journal, drop.config.channel, listing.names)
    return listing


def refuse_clashes(journal: Journal, channel: str, names: Iterable[Name]) -> None:
    """Compare names with those of the other channels' active drops.

    Raises:
        PolicyError: one name would have two contents.
    """
    clashes = list(journal.clashes(channel, names))
    problems = [
        f"{contents.shown(one.service, one.key, one.part)} is {one.digest} in channel {one.channel}" for one in clashes
    ]
    if problems:
        others = sorted({one.channel for one in clashes})[:_SHOWN]
        raise PolicyError(
            f"channel {channel} would give other contents to names of another channel",
            violations=problems,
            hint="the release engineer has to ship one content under one name, or another tag or version; where clients"
            " need not see the other channel any more: "
            + "; ".join(f"airlift drops deactivate --site DIR {name}" for name in others),
        )
