"""Space that a site sets aside, so that its journal can be opened on a full disk: to read, to go back, to prune."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from airlift import fs, limits

_NAME: Final = "reserve"
RESERVE: Final = 4 * limits.MIB
"""Bytes that are set aside."""


def keep_reserve(root: Path) -> None:
    """Set space aside; on a disk without that much left there is none, which is no fault."""
    path = root / _NAME
    if path.exists():
        return
    with contextlib.suppress(OSError), path.open("xb") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, RESERVE)
        except OSError:
            path.unlink()


@contextlib.contextmanager
def spare(root: Path) -> Iterator[None]:
    """Give the reserve back while the journal is open on a disk that is nearly full: SQLite needs room even to read."""
    with fs.guarded("reading"):
        disk = os.statvfs(root)
    is_given = False
    if disk.f_bavail * disk.f_frsize < RESERVE:
        with contextlib.suppress(OSError):
            (root / _NAME).unlink()
            is_given = True
    try:
        yield
    finally:
        if is_given:
            keep_reserve(root)
