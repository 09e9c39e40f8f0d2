"""The root file system of an image that has this Python with some packages: what runs here runs in a pod."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

_PACKAGES = "/packages"
_LEFT_OUT = {"test", "idlelib", "tkinter", "ensurepip", "site-packages", "__pycache__", "lib2to3", "turtledemo"}
_LIBRARY = re.compile(r"(/\S+) \(0x")
VARIABLES = [f"PATH={sys.base_prefix}/bin:/bin", f"PYTHONPATH={_PACKAGES}", "HOME=/tmp"]
"""What its config says under Env."""


def _needed(name: str, seen: set[str]) -> Iterator[metadata.Distribution]:
    """Yield a package and what it requires here, each once."""
    found = metadata.distribution(name)
    if (key := found.name.lower().replace("_", "-")) in seen:
        return
    seen.add(key)
    yield found
    for text in found.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield from _needed(requirement.name, seen)


def _libraries(programs: list[Path]) -> set[Path]:
    """Return the shared libraries of programs, by the paths at which the loader looks for them."""
    said = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False, timeout=120)
    return {Path(item) for item in _LIBRARY.findall(said.stdout)}


@cache
def python_root(package: str) -> dict[str, bytes | str]:
    """Return every file by its path in the image."""
    base = Path(sys.base_prefix)
    program = (base / "bin" / f"python3.{sys.version_info.minor}").resolve()
    standard = base / "lib" / f"python3.{sys.version_info.minor}"
    found: dict[str, Path] = {str(base / "bin" / "python3"): program}
    for path in standard.rglob("*"):
        parts = path.relative_to(standard).parts
        if (
            path.is_file()
            and not _LEFT_OUT & set(parts)
            and not parts[0].startswith("config-")
            and "_tkinter" not in path.name
        ):
            found[str(path)] = path
    for item in _needed(package, set()):
        for file in item.files or []:
            path = Path(str(item.locate_file(file)))
            if path.is_file() and path.suffix != ".pyc" and ".." not in file.parts:
                found[f"{_PACKAGES}/{file}"] = path
    binaries = [program, *(path for name, path in found.items() if ".so" in name)]
    found |= {str(path): path for path in _libraries(binaries)}
    made: dict[str, bytes | str] = {"tmp/": b"", "models/": b""}
    return made | {name.lstrip("/"): path.read_bytes() for name, path in found.items()}
