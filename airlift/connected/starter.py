"""The manifest that a new project starts from."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from airlift import fs
from airlift.errors import UsageError

FILE_NAME: Final = "drop.yaml"


def text() -> bytes:
    """Return the starter manifest."""
    return resources.files("airlift.connected").joinpath("starter.yaml").read_bytes()


def write(directory: Path) -> Path:
    """Write the starter manifest into a directory, which is made when it is missing, and return where it is.

    Raises:
        UsageError: a manifest is there already.
        StoreError: the disk refuses.
    """
    path = directory / FILE_NAME
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} is there already", hint="name another directory, or move that file away")
    with fs.guarded("creating"):
        directory.mkdir(parents=True, exist_ok=True)
    fs.write(path, text())
    return path
