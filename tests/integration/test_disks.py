"""What the connected side's verbs say of a disk that is full or read-only."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components import require, require_root
from tests.support.cli import desk, environment, ok

_WHEELS = """\
apiVersion: airlift/v1
kind: Drop
metadata: {name: wheels, channel: stable}
python:
  - {name: p, packages: [six], targets: [{python: "3.11", platform: linux/amd64, libc: glibc-2.28}]}
"""
_FILE = """\
apiVersion: airlift/v1
kind: Drop
metadata: {name: file, channel: stable}
files: [{path: content, name: content}]
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    require_root()
    require("unshare")
    (tmp_path / "disk").mkdir()
    return tmp_path


def on_disk(home: Path, options: str, *verb: str) -> subprocess.CompletedProcess[str]:
    """Run a verb where ``disk`` is a file system of its own that vanishes with it; then list what it holds."""
    run = shlex.join([sys.executable, "-m", "airlift", *verb])
    command = f"mount -t tmpfs -o {options} none disk && {{ {run}; code=$?; ls -A disk; exit $code; }}"
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", command],
        cwd=home,
        env=environment(home),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_lock_with_wheels_is_not_written_to_a_read_only_disk(home: Path) -> None:
    (home / "drop.yaml").write_text(_WHEELS)
    ran = on_disk(home, "ro", "resolve", "drop.yaml", "-o", "disk/l.json")
    assert (ran.returncode, ran.stdout) == (16, "")
    first, hint = ran.stderr.splitlines()[-2:]
    assert first == "airlift: error: creating disk: Read-only file system"
    assert hint == "airlift: hint: the disk is mounted read-only; mount it writable"


@pytest.mark.parametrize("output", ["opened", "opened.tar"])
def test_a_full_disk_is_said_with_the_name_of_what_open_was_to_write(home: Path, output: str) -> None:
    seat = desk(home)
    (home / "content").write_bytes(b"x" * 3_000_000)
    (home / "drop.yaml").write_text(_FILE)
    ok("resolve", "drop.yaml", home=home)
    ok("build", "drop.lock.json", "-o", "b", "--sequence", "1", *seat.signers, *seat.recipients, home=home)
    arguments = ["open", "b", "--trust", "trust.json", "--identity", "site.key", "-o", f"disk/{output}"]
    ran = on_disk(home, "size=1m", *arguments)
    assert (ran.returncode, ran.stdout) == (16, "")
    assert ran.stderr.splitlines()[-2:] == [
        f"airlift: error: writing disk/{output}: No space left on device",
        "airlift: hint: free some space on that disk and run the same command again",
    ]
