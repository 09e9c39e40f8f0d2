"""An airlift of a later version than the one under test: its files, with another number in them."""

from __future__ import annotations

import shutil
from pathlib import Path

from airlift.connected.own_wheel import own_distribution
from tests.components import ROOT


def newer_airlift(folder: Path, version: str) -> dict[str, str]:
    """Make it in `folder`, which must not exist, and return what to add to an environment to run it."""
    shutil.copytree(ROOT / "airlift", folder / "airlift", ignore=shutil.ignore_patterns("__pycache__"))
    init = folder / "airlift" / "__init__.py"
    installed = own_distribution()
    current = installed.version
    init.write_text(_changed(init.read_text(), f'__version__ = "{current}"', f'__version__ = "{version}"'))
    unit = folder / "airlift" / "appliance" / "airlift-serve.service"
    unit.write_text(f"# of {version}\n{unit.read_text()}")
    info = folder / f"airlift-{version}.dist-info"
    info.mkdir()
    for name in ("METADATA", "entry_points.txt", "top_level.txt"):
        (info / name).write_text(installed.read_text(name) or "")
    described = info / "METADATA"
    described.write_text(_changed(described.read_text(), f"\nVersion: {current}\n", f"\nVersion: {version}\n"))
    return {"PYTHONPATH": str(folder)}


def _changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)
