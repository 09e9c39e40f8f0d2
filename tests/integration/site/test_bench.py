"""scripts/bench site measures what it says; how fast this machine is right now is nobody's concern here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.components import require
from tests.support.cli import ROOT, environment


def test_the_site_is_measured_against_its_targets(tmp_path: Path) -> None:
    require("docker-registry")
    require("skopeo")
    command = [sys.executable, "scripts/bench_site.py", "80", "12"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    speeds = r"into docker-registry in MB/s: import \d+, skopeo \d+, raw \d+"
    assert re.fullmatch(rf"4 images, 80 MB, {speeds}", first)
    rows = [re.fullmatch(r"(.*?) +([\d.]+) (x|%|MB|s) +(>=|<=|<) +[\d.]+ \3 +(ok|MISSED)", line) for line in lines]
    assert [row and (row[1], row[3]) for row in rows] == [
        ("import is faster than skopeo copy oci-archive: by", "x"),
        ("import reaches of what raw uploads reach", "%"),
        ("disk beside the registry's, of the bundle", "%"),
        ("peak memory of import", "MB"),
        ("import again, of 12 artifacts, for 1,000", "s"),
        ("activation of 12 names", "s"),
    ]
    assert all(row and float(row[2]) > 0 for row in rows)
