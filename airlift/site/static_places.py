"""Where the static trees of a site are: ``DIR/static.json``, so that a check looks at every tree that an export made.

A tree is on it once an export came to its end, until a person takes its line out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from airlift import fs, limits
from airlift.errors import StoreError
from airlift.progress import Progress
from airlift.site.config import Site

PLACES: Final = "static.json"


def known(site: Site) -> list[Path]:
    """Return the links that exports of this site made, sorted.

    Raises:
        StoreError: the list cannot be read, or is none.
    """
    place = site.root / PLACES
    with fs.guarded("reading"):
        if not place.is_file():
            return []
    try:
        value = json.loads(fs.read_bounded(place, limits.DOCUMENT))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, list) or not all(isinstance(item, str) and item.startswith("/") for item in value):
        raise StoreError(
            f"{place}: expected a JSON list of absolute paths",
            hint="remove it, and run airlift export --static once more for each tree",
        )
    return sorted(Path(item) for item in value)


def remember(site: Site, places: Sequence[Path], target: Path, progress: Progress) -> None:
    """Put a tree on the list; on a disk that is mounted read-only say that it is not on it.

    Args:
        site: whose list.
        places: what is on it, see `known`.
        target: the tree.
        progress: hears where it cannot be put there.
    """
    if target in places:
        return
    try:
        listed = sorted([*map(str, places), str(target)])
        fs.write(site.root / PLACES, f"{json.dumps(listed, indent=2, ensure_ascii=False)}\n".encode())
    except (StoreError, UnicodeEncodeError) as error:
        reason = error.message if isinstance(error, StoreError) else "its name is not UTF-8"
        progress.warn(f"airlift check will not look at {str(target)!r}: {reason}")
