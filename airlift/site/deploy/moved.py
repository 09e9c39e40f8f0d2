"""Tags that meant other content in another drop of the site: pods that were started with that one keep it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from airlift import reference
from airlift.artifact import DropConfig, Kind
from airlift.digest import Digest
from airlift.errors import first_of

_SHOWN: Final = 5


def word(pins: Mapping[str, Digest], others: Iterable[DropConfig]) -> str | None:
    """Say which tags meant other content, or return None.

    Args:
        pins: the images that are to run by name, as the charts have it, and their digests.
        others: the site's other drops.
    """
    named = {str(reference.parse(name)): digest for name, digest in pins.items() if "@" not in name}
    found = sorted(
        {
            item.name
            for drop in others
            for item in drop.artifacts
            if item.kind is Kind.IMAGE
            and named.get(str(reference.parse(item.name)), item.root.digest) != item.root.digest
        }
    )
    if not found:
        return None
    return (
        f"{first_of(found, _SHOWN)}: the same tag has other content in another drop of this site, and pods "
        "that were started with that keep it; `airlift deploy status` finds them and says what to type"
    )
