"""Run the command line as a user does: another process, its own environment."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def index_settings() -> dict[str, str]:
    """What pip is told of its index, by variables and by a file below the HOME that a test does not have."""
    found = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    own = Path.home() / ".config" / "pip" / "pip.conf"
    return {"PIP_CONFIG_FILE": str(own), **found} if own.is_file() else found


def environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment that has nothing of the user's but the path and what pip needs to reach its index."""
    return {
        **{key: value for key, value in os.environ.items() if key in ("PATH", "LANG")},
        **index_settings(),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": str(ROOT),
        **(extra or {}),
    }


def airlift(
    *arguments: str | Path,
    home: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    python: Path | str = sys.executable,
    prefix: Sequence[str] = (),
    timeout: float = 300,
) -> Ran:
    """Run ``airlift ARGUMENTS`` and return what came of it."""
    done = subprocess.run(
        [*prefix, str(python), "-m", "airlift", *map(str, arguments)],
        cwd=cwd or home,
        env=environment(home, env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def ok(*arguments: str | Path, home: Path, **options: Any) -> Ran:
    """Run and expect success."""
    ran = airlift(*arguments, home=home, **options)
    assert ran.code == 0, f"{arguments}: exit {ran.code}\n{ran.err}"
    return ran


@dataclass(frozen=True)
class Desk:
    """A release engineer's desk: keys of two persons and two sites, a trust file that wants both persons."""

    home: Path

    @property
    def signers(self) -> list[str]:
        return ["--signer", str(self.home / "alice.key"), "--signer", str(self.home / "bob.key")]

    @property
    def recipients(self) -> list[str]:
        return ["--recipient", str(self.home / "site.pub"), "--recipient", str(self.home / "other.pub")]

    @property
    def trust(self) -> Path:
        return self.home / "trust.json"

    @property
    def identity(self) -> Path:
        return self.home / "site.key"


def desk(home: Path) -> Desk:
    """Make a desk in an existing directory. The keys are the same for all of a run: making them takes seconds."""
    for name, (mode, data) in _on_a_desk().items():
        (home / name).write_bytes(data)
        (home / name).chmod(mode)
    return Desk(home)


@cache
def _on_a_desk() -> dict[str, tuple[int, bytes]]:
    """The files of a desk, with their modes."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name, kind in (("alice", "signer"), ("bob", "signer"), ("site", "identity"), ("other", "identity")):
            ok("keys", "generate", name, "--kind", kind, "--no-passphrase", home=home)
        signers = ["--signer", f"alice={home}/alice.pub", "--signer", f"bob={home}/bob.pub", "--threshold", "2"]
        ok("trust", "init", "-o", home / "trust.json", "--channel", "stable", *signers, "--allow-plain", home=home)
        return {path.name: (stat.S_IMODE(path.stat().st_mode), path.read_bytes()) for path in home.glob("*.*")}
