"""How long an import takes at least: a piece of the bundle is read and hashed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from airlift import fs, limits

_SAMPLE: Final = 64 * limits.MIB


def estimate(bundle: Path, clock: Callable[[], float]) -> str:
    """Read and hash a piece out of the middle, and say how long the whole takes at that pace.

    Args:
        bundle: the file.
        clock: seconds that only grow.

    Raises:
        StoreError: it cannot be read.
    """
    with fs.guarded("reading"), bundle.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, (size - _SAMPLE) // 2))
        begun, taken, running = clock(), 0, hashlib.sha256()
        while taken < _SAMPLE and (chunk := stream.read(limits.CHUNK)):
            running.update(chunk)
            taken += len(chunk)
        seconds = max(clock() - begun, 1e-6)
    pace = taken / seconds
    return f"about {max(1, round(size / pace))} s at least, at {round(pace / limits.MIB)} MiB/s read and hashed"
