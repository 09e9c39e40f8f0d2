"""``scripts/demo`` as the README has it."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import pytest

from tests import components
from tests.components import ROOT
from tests.support.cli import index_settings


@pytest.mark.slow
def test_the_demo_goes_the_whole_way_without_pip_in_python_and_without_a_home(tmp_path: Path) -> None:
    # As Debian's: its python3 has ensurepip with python3-venv, and no pip.
    bare = tmp_path / "python"
    venv.create(bare, symlinks=True, with_pip=False)
    assert subprocess.run([bare / "bin" / "python3", "-c", "import pip"], capture_output=True, check=False).returncode
    done = subprocess.run(
        [ROOT / "scripts" / "demo"],
        cwd=tmp_path,
        env={"PATH": f"{bare}/bin:/usr/bin:/bin", "LC_ALL": "C", **index_settings()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if "needs a package index" in done.stderr:
        components.missing("no package index is reached, and the demo's connected side needs one")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "good, signed by alice, bob" in done.stdout
    assert "drop stable/1 imported, active: 5 artifacts" in done.stdout
    assert "Welcome to the other side of the gap." in done.stdout
    assert done.stdout.endswith("nothing to change\n")
    assert "One manifest became a lock (twice the same)" in done.stderr
    assert "Traceback" not in done.stderr
