"""Records as Helm itself writes them for a release, without a cluster."""

from __future__ import annotations

import json
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests import components


@lru_cache
def record(archive: bytes, values: str = "", *, release: str = "web", namespace: str = "vision") -> dict[str, Any]:
    """Return what Helm would keep of an installation: chart, config, manifest and hooks."""
    with tempfile.TemporaryDirectory() as folder:
        chart, file = Path(folder) / "chart.tgz", Path(folder) / "values.yaml"
        chart.write_bytes(archive)
        file.write_text(values)
        command = [str(components.require("helm")), "install", release, str(chart), f"--namespace={namespace}"]
        command += [f"--values={file}", "--dry-run=client", "--output=json"]
        environment = {"HOME": folder, "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
