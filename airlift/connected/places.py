"""Where a lock's relative paths start, remembered in the cache, so that nothing of the machine is in the lock."""

from __future__ import annotations

from pathlib import Path

from airlift import digest, fs, limits
from airlift.store import Store


def remember(cache: Store, lock: bytes, base: Path) -> None:
    """Note that a lock was made from a manifest in `base`.

    Raises:
        StoreError: the cache cannot be written.
    """
    place = _place(cache, lock)
    with fs.guarded("creating"):
        place.parent.mkdir(exist_ok=True)
    fs.write(place, str(base.resolve()).encode())


def recall(cache: Store | None, lock: bytes, beside: Path) -> Path:
    """Return where the lock's relative paths start: where its manifest was, else where the lock lies.

    Raises:
        StoreError: the cache cannot be read.
    """
    if cache is not None and _place(cache, lock).is_file():
        base = Path(fs.read_bounded(_place(cache, lock), limits.DOCUMENT).decode())
        if base.is_dir():
            return base
    return beside


def _place(cache: Store, lock: bytes) -> Path:
    return cache.root / "places" / digest.hex_of(digest.of(lock))
