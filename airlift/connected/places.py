"""Where a lock's relative paths start, remembered beside the cache, so that nothing of the machine is in the lock.

It is remembered without a cache too: it is a line of text, not a copy of what was fetched.
"""

from __future__ import annotations

import os
from pathlib import Path

from airlift import digest, fs, limits


def remember(folder: Path, lock: bytes, base: Path) -> None:
    """Note that a lock was made from a manifest in `base`.

    Raises:
        StoreError: the cache cannot be written.
    """
    place = _place(folder, lock)
    with fs.guarded("creating"):
        place.parent.mkdir(parents=True, exist_ok=True)
    fs.write(place, os.fsencode(base.resolve()))


def recall(folder: Path, lock: bytes, beside: Path) -> Path:
    """Return where the lock's relative paths start: where its manifest was, else where the lock lies.

    Raises:
        StoreError: the cache cannot be read.
    """
    if _place(folder, lock).is_file():
        base = Path(os.fsdecode(fs.read_bounded(_place(folder, lock), limits.DOCUMENT)))
        if base.is_dir():
            return base
    return beside


def _place(folder: Path, lock: bytes) -> Path:
    return folder / "places" / digest.hex_of(digest.of(lock))
