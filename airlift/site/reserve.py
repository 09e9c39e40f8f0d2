"""Space that a site sets aside, so that pruning can write its journal on a full disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from airlift import fs, limits
from airlift.site.config import Site

RESERVE: Final = 4 * limits.MIB
"""Bytes that a site keeps aside, so that pruning can write its journal on a full disk."""


def keep_reserve(site: Site) -> None:
    """Set space aside; on a disk without that much left there is none, which is no fault."""
    path = _reserve(site)
    if path.exists():
        return
    with contextlib.suppress(OSError), path.open("xb") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, RESERVE)
        except OSError:
            path.unlink()


@contextlib.contextmanager
def spare(site: Site) -> Iterator[None]:
    """Give the reserve back while the journal is open on a disk that is nearly full: SQLite needs room even to read."""
    with fs.guarded("reading"):
        disk = os.statvfs(site.root)
    if disk.f_bavail * disk.f_frsize < RESERVE:
        with contextlib.suppress(OSError):
            _reserve(site).unlink()
    try:
        yield
    finally:
        keep_reserve(site)


def _reserve(site: Site) -> Path:
    return site.root / "reserve"
