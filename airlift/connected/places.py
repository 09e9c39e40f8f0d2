"""Where a lock's relative paths start, remembered beside the cache, so that nothing of the machine is in the lock.

It is remembered without a cache too: it is a line of text, not a copy of what was fetched.
"""

from __future__ import annotations

import os
from pathlib import Path

from airlift import digest, fs, limits


def remember(folder: Path, lock: bytes, at: Path, base: Path) -> None:
    """Note that the lock that lies at `at` was made from a manifest in `base`.

    Raises:
        StoreError: the cache cannot be written.
    """
    for place in _places(folder, lock, at):
        with fs.guarded("creating"):
            place.parent.mkdir(parents=True, exist_ok=True)
        fs.write(place, os.fsencode(base.resolve()))


def recall(folder: Path, lock: bytes, at: Path) -> Path:
    """Return where relative paths of the lock at `at` start: where its manifest was, else where the lock lies.

    Raises:
        StoreError: the cache cannot be read.
    """
    for place in _places(folder, lock, at):
        if place.is_file():
            base = Path(os.fsdecode(fs.read_bounded(place, limits.DOCUMENT)))
            if base.is_dir():
                return base
    return at.parent


def _places(folder: Path, lock: bytes, at: Path) -> tuple[Path, Path]:
    # Two checkouts may have the same lock: where it lies decides, and what it says where it was moved.
    name = digest.hex_of(digest.of(lock))
    where = digest.hex_of(digest.of(os.fsencode(at.resolve())))
    return folder / "places" / f"{name}.{where}", folder / "places" / name
