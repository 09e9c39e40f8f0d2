"""A K3s put together from its parts, in a process of its own.

It goes with all that is in it, so nothing is put back.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import components
from tests.support.k3s import parts
from tests.support.k3s.network import entering
from tests.support.real_node import RealNode, reach

_START_S = 300.0
_STOP_S = 120.0
_NEEDED = ("kubectl", "helm", "nginx", "nsenter", "ip", "runc", "busybox", "iptables", "/usr/lib/cni/bridge")


def _require_all() -> None:
    components.require_root()
    for name in parts.PROGRAMS:
        parts.program(name)
    for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
        components.require_go(name)
    for name in _NEEDED:
        components.require(name)
    namespaces = [str(components.require("unshare")), "--mount", "--net", "true"]
    if subprocess.run(namespaces, check=False, capture_output=True, timeout=60).returncode:
        components.missing("namespaces of network and mounts are not allowed here")


@dataclass(frozen=True)
class Lent:
    """A K3s that runs.

    Attributes:
        home: its directory.
        process: what runs it.
    """

    home: Path
    process: subprocess.Popen[bytes]

    @property
    def kubeconfig(self) -> Path:
        return self.home / "identities" / "k3s.yaml"

    @property
    def enter(self) -> tuple[str, ...]:
        """What is put before a program that is to run on the node."""
        return entering((self.home / "network").read_text())

    def node(self) -> RealNode:
        """Return it as a real node."""
        made = reach(self.kubeconfig, self.home / "root", f"kill -HUP {self.process.pid}", steady=2)
        made.settling_s = 2.0
        made.runtime = Path((self.home / "containerd").read_text())
        return made

    def wait(self, wanted: str) -> None:
        """Wait until it is in a state for the first time."""
        deadline = time.monotonic() + _START_S
        state, log = self.home / "state", self.home / "log"
        while not state.exists() or not state.read_text().startswith(wanted):
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"K3s does not start: {log.read_text(errors='replace')[-6000:]}", pytrace=False)
            time.sleep(0.2)


@contextlib.contextmanager
def running_k3s(home: Path) -> Iterator[Lent]:
    """Start one."""
    with _running(home, [], "ready") as made:
        yield made


@contextlib.contextmanager
def second_machine(home: Path, server: Lent) -> Iterator[Lent]:
    """Start a machine that can join a server; K3s does not run on it yet."""
    with _running(home, [str(server.home)], "stopped") as made:
        yield made


@contextlib.contextmanager
def _running(home: Path, more: Sequence[str], state: str) -> Iterator[Lent]:
    _require_all()
    with (home / "log").open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.k3s", str(home), str(os.getpid()), *more],
            cwd=components.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
        )
    try:
        made = Lent(home, process)
        made.wait(state)
        yield made
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
