"""A K3s put together from its parts, lent to the tests as a real node is: by kubeconfig, root and restart command.

It goes with all that is in it, so nothing is put back.
"""

from __future__ import annotations

import contextlib
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import components
from tests.support.k3s import parts
from tests.support.real_node import VARIABLES, RealNode, reach

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


def _variables(process: subprocess.Popen[str], log: Path) -> dict[str, str]:
    """Read what it prints when the node is ready."""
    found: dict[str, str] = {}
    deadline = time.monotonic() + _START_S
    assert process.stdout is not None
    while len(found) < len(VARIABLES):
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        line = process.stdout.readline() if ready else ""
        if not line:
            pytest.fail(f"K3s does not start: {log.read_text(errors='replace')[-6000:]}", pytrace=False)
        name, _, value = line.strip().partition("=")
        (found[name],) = shlex.split(value)
    return found


@contextlib.contextmanager
def lent_k3s(home: Path) -> Iterator[RealNode]:
    """Start one and lend it."""
    _require_all()
    log = home / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.k3s", str(home)],
            cwd=components.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            bufsize=1,
        )
    try:
        found = _variables(process, log)
        kubeconfig, root, restart = (found[name] for name in VARIABLES)
        node = reach(Path(kubeconfig), Path(root), restart, steady=2)
        node.settling_s = 2.0
        yield node
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
