"""The programs that tests talk to.

`require` gives a program's path. Where it is missing the test is skipped by name, except in CI as root, which can
install everything: there, missing is a failure.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".cache" / "tools"

IS_ROOT = os.geteuid() == 0
NOTHING_IS_SKIPPED = IS_ROOT and os.environ.get("CI") == "true"


def search_path() -> str:
    """PATH with our own tools first, and where a user's PATH has no sbin, with that too."""
    first = [TOOLS / "go", TOOLS, ROOT / ".venv" / "bin"]
    given = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join(dict.fromkeys([*map(str, first), *given, "/usr/local/go/bin", "/usr/sbin", "/sbin"]))


def missing(reason: str) -> None:
    """Skip the test for `reason`, or fail it where nothing is to be skipped."""
    if NOTHING_IS_SKIPPED:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require(program: str) -> Path:
    """Return where `program` is (a name, or an absolute path such as /usr/lib/cni/bridge)."""
    found = shutil.which(program, path=search_path())
    if found is None:
        missing(f"{program} is not installed")
        raise AssertionError
    return Path(found)


def require_root() -> None:
    """Go on only as root; CI runs as root, so there is nothing to fail."""
    if not IS_ROOT:
        pytest.skip("needs root")


def require_go(program: str) -> Path:
    """Return a tool that scripts/tool-go builds, and no other program of the same name."""
    return require_built(TOOLS / "go" / program, f"scripts/tool-go {program}")


def require_built(program: Path, script: str) -> Path:
    """Return a program that a script of ours builds with Go."""
    if not os.access(program, os.X_OK):
        if shutil.which("go", path=search_path()) is None:
            # The one thing that scripts/test does not install.
            pytest.skip(f"{program.name} is built by {script.split(maxsplit=1)[0]}, and Go is not installed")
        missing(f"{program.name} is not built; {script} does it")
    return program
