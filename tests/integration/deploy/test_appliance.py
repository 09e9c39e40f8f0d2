from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests import components

UNIT = components.ROOT / "appliance" / "airlift-serve.service"
SOCKET = UNIT.with_suffix(".socket")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(components.require("systemd-analyze")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_accepts_the_units_without_a_word() -> None:
    done = analyze("verify", UNIT, SOCKET)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_sandboxed() -> None:
    done = analyze("security", "--offline=true", UNIT)
    found = re.search(r"exposure level for airlift-serve.service: ([0-9.]+)", done.stdout)
    if found is None:
        pytest.skip("this systemd-analyze does not judge units offline")

    assert float(found[1]) <= 0.7
