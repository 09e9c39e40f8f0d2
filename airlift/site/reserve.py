"""Space that a site sets aside, so that its journal can be opened on a full disk: to read, to go back, to prune.

A command gets half of it, so that what fills the disk meanwhile, be it an import, does not take all. At the end as much
is set aside again as the disk has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from airlift import fs, limits
from airlift.store import Store

_NAME: Final = "reserve"
RESERVE: Final = 4 * limits.MIB
"""Bytes that are set aside."""
_LEAST: Final = limits.MIB // 4
"""What SQLite needs at least; less is of no use."""


def keep_reserve(root: Path) -> None:
    """Set space aside, as much as the disk has; on one without any there is none, which is no fault."""
    path = root / _NAME
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _grow(handle)
            if not os.fstat(handle).st_size:
                path.unlink()
        finally:
            os.close(handle)


def _grow(handle: int) -> None:
    there, size = os.fstat(handle).st_size, RESERVE
    while size > there and size >= _LEAST:
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError:
            size //= 2
        else:
            return


@contextlib.contextmanager
def spare(root: Path) -> Iterator[None]:
    """Give space back while the journal is open on a disk that is nearly full: SQLite needs room even to read.

    It is what an import left that was killed, and half of the reserve.
    """
    with fs.guarded("reading"):
        disk = os.statvfs(root)
    is_full = disk.f_bavail * disk.f_frsize < RESERVE
    if is_full:
        Store(root / "store").clear_ingest()
        with contextlib.suppress(OSError):
            _halve(root / _NAME)
    try:
        yield
    finally:
        if is_full:
            keep_reserve(root)


def _halve(path: Path) -> None:
    half = path.stat().st_size // 2
    if half >= _LEAST:
        # One that root made may not be cut by the site's owner, but taken away.
        with contextlib.suppress(PermissionError):
            os.truncate(path, half)
            return
    path.unlink()
