"""A K3s that somebody started, lent to the tests: what they put there goes again, what was there before comes back."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from airlift.site.deploy.helmchart import CHARTS, GROUP, MANIFESTS, PREFIX, SYSTEM
from airlift.site.deploy.registries import PATH as REGISTRIES
from airlift.site.deploy.tarball import FOLDER
from tests import components

VARIABLES = ("AIRLIFT_TEST_KUBECONFIG", "AIRLIFT_TEST_K3S_ROOT", "AIRLIFT_TEST_K3S_RESTART")
_ASIDE = REGISTRIES.with_name(f"{REGISTRIES.name}.before-airlift-tests")
_READY_S = 300.0
_GONE_S = 180.0
_STEADY = 5
_IMPORT_S = 8.0


@dataclass
class RealNode:
    """See `tests.support.node.Node`."""

    root: Path
    kubeconfig: Path
    command: str
    address: str
    namespace: str = field(default_factory=lambda: f"airlift-test-{secrets.token_hex(3)}")
    preload: tuple[str, ...] = ()

    def restart(self) -> None:
        """Start K3s again, and wait until its API answers and every node is ready.

        For a while: the command may return before the old server is down.
        """
        done = subprocess.run(
            ["/bin/sh", "-c", self.command], capture_output=True, text=True, timeout=_READY_S, check=False
        )
        assert done.returncode == 0, f"{self.command} ended with {done.returncode}: {done.stdout}{done.stderr}"
        deadline = time.monotonic() + _READY_S
        steady = 0
        while steady < _STEADY:
            assert time.monotonic() < deadline, f"K3s is not ready {_READY_S:.0f} s after {self.command}"
            time.sleep(1)
            steady = steady + 1 if self._is_ready() else 0

    def _is_ready(self) -> bool:
        done = self._kubectl("get", "--raw", "/readyz")
        if done.returncode:
            return False
        done = self._kubectl("get", "--raw", "/api/v1/nodes")
        return done.returncode == 0 and all(
            any(entry["type"] == "Ready" and entry["status"] == "True" for entry in item["status"]["conditions"])
            for item in _items(done)
        )

    def settle(self) -> None:
        """K3s imports tarballs some seconds after they appear; releases are waited for by ``deploy status``."""
        time.sleep(_IMPORT_S)

    def recreate_pods(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        old = {item["metadata"]["uid"] for item in _items(self._kubectl("get", "--raw", path))}
        done = self._kubectl("delete", "--raw", path)
        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + _READY_S
        while old & {item["metadata"]["uid"] for item in _items(self._kubectl("get", "--raw", path))}:
            assert time.monotonic() < deadline, f"pods of {self.namespace} do not go"
            time.sleep(1)

    def output(self, deployment: str, container: str) -> str:
        done = self._kubectl("-n", self.namespace, "logs", f"deployment/{deployment}", "-c", container)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = [str(components.require("kubectl")), f"--kubeconfig={self.kubeconfig}", "--request-timeout=60s"]
        return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=_READY_S, check=False)

    def _delete(self, path: str) -> str | None:
        """Delete an object and wait until it is gone; return what went wrong."""
        done = self._kubectl("delete", "--raw", path)
        deadline = time.monotonic() + _GONE_S
        while done.returncode == 0:
            if time.monotonic() > deadline:
                return f"{path} is not gone after {_GONE_S:.0f} s"
            time.sleep(1)
            done = self._kubectl("get", "--raw", path)
        return None if "NotFound" in done.stderr or "not found" in done.stderr else f"{path}: {done.stderr.strip()}"

    def forget(self, before: dict[str, set[str]]) -> list[str]:
        """Remove what came since; return what could not be removed."""
        said = []
        manifests = self.root / MANIFESTS
        for path in sorted(manifests.glob(f"{PREFIX}*.yaml")):
            if self.namespace in path.read_text():
                # The release first: it would be made again from a manifest that stayed.
                release = yaml.safe_load(path.read_text())["metadata"]["name"]
                said.append(self._delete(f"/{GROUP}/namespaces/{SYSTEM}/helmcharts/{release}"))
                said.append(self._delete(f"/apis/k3s.cattle.io/v1/namespaces/{SYSTEM}/addons/{path.stem}"))
                path.unlink()
        said.append(self._delete(f"/api/v1/namespaces/{self.namespace}"))
        for folder, names in before.items():
            for name in _names(self.root / folder) - names:
                (self.root / folder / name).unlink()
        (self.root / REGISTRIES).unlink(missing_ok=True)
        if (self.root / _ASIDE).exists():
            (self.root / _ASIDE).rename(self.root / REGISTRIES)
        self.restart()
        return [item for item in said if item is not None]


def _items(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, f"the cluster of {VARIABLES[0]} does not answer: {done.stderr}"
    found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return found


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()


def _address(kubeconfig: Path) -> str:
    """Return an address of this machine at which pods reach it: the node's own, else the one towards its API server."""
    program = [str(components.require("kubectl")), f"--kubeconfig={kubeconfig}", "get", "--raw", "/api/v1/nodes"]
    (item,) = _items(subprocess.run(program, capture_output=True, text=True, timeout=60, check=False))
    for entry in item["status"]["addresses"]:
        if entry["type"] == "InternalIP":
            with contextlib.suppress(OSError), socket.socket() as listener:
                listener.bind((entry["address"], 0))
                return str(entry["address"])
    server: Any = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((server.hostname, server.port or 443))
        return str(probe.getsockname()[0])


@contextlib.contextmanager
def real_node(kubeconfig: Path, root: Path, restart: str) -> Iterator[RealNode]:
    """Lend a node to the tests.

    An own registries.yaml of the node is put aside beside it, and put back also by the next run when this one is killed.
    """
    node = RealNode(root, kubeconfig, restart, _address(kubeconfig))
    if (root / _ASIDE).exists():
        (root / REGISTRIES).unlink(missing_ok=True)
    elif (root / REGISTRIES).exists():
        (root / REGISTRIES).rename(root / _ASIDE)
    folders = (str(FOLDER), str(CHARTS))
    before = {folder: _names(root / folder) for folder in folders}
    try:
        yield node
    finally:
        said = node.forget(before)
        if said:
            pytest.fail("\n".join(["the node keeps:", *said]), pytrace=False)
