"""A K3s that somebody started, lent to the tests: what they put there goes again, what was there before comes back."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import socket
import subprocess
import tempfile
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
from tests.support.containerd import cri_at

VARIABLES = ("AIRLIFT_TEST_KUBECONFIG", "AIRLIFT_TEST_K3S_ROOT", "AIRLIFT_TEST_K3S_RESTART")
NAMES = "airlift-test-"
_ASIDE = REGISTRIES.with_name(f"{REGISTRIES.name}.before-airlift-tests")
_ADDONS = "apis/k3s.cattle.io/v1"
_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
_NODES = "/api/v1/nodes"
_STARTED = re.compile(r"^process_start_time_seconds (\S+)$", re.MULTILINE)
_READY_S = 300.0
_GONE_S = 180.0


@dataclass
class RealNode:
    """See `tests.support.node.Node`."""

    root: Path
    kubeconfig: Path
    command: str
    address: str = ""
    namespace: str = field(default_factory=lambda: f"{NAMES}{secrets.token_hex(3)}")
    preload: tuple[str, ...] = ()
    settling_s: float = 8.0
    steady: int = 5
    runtime: Path | None = None

    @property
    def can_pull(self) -> bool:
        """A kubeconfig gives no way to do so."""
        return self.runtime is not None

    def pull(self, image: str) -> None:
        """Ask for an image on the node, whose containerd listens at `runtime`."""
        assert self.runtime is not None
        with cri_at(self.runtime) as cri:
            cri.pull(image)

    def restart(self) -> None:
        """Start K3s again, and wait until its API answers and every node is ready.

        The command may return before the old server is down, and may leave the new one behind it.
        """
        before = self._started()
        with tempfile.TemporaryFile() as said:
            done = subprocess.run(
                ["/bin/sh", "-c", self.command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=_READY_S,
                check=False,
            )
            said.seek(0)
            words = said.read(10_000).decode("utf-8", "replace")
        assert done.returncode == 0, f"{self.command} ended with {done.returncode}: {words}"
        deadline = time.monotonic() + _READY_S
        steady = 0
        while steady < self.steady:
            assert time.monotonic() < deadline, f"K3s is not ready {_READY_S:.0f} s after {self.command}"
            time.sleep(1)
            is_new = before is None or (self._started() or 0) > before
            steady = steady + 1 if is_new and self._is_ready() else 0

    def _started(self) -> float | None:
        """When the server began, by its own word; None when it gives none."""
        found = _STARTED.search(self.kubectl("get", "--raw", "/metrics").stdout)
        return None if found is None else float(found[1])

    def _is_ready(self) -> bool:
        if self.kubectl("get", "--raw", "/readyz").returncode:
            return False
        done = self.kubectl("get", "--raw", _NODES)
        return done.returncode == 0 and all(
            any(entry["type"] == "Ready" and entry["status"] == "True" for entry in item["status"]["conditions"])
            for item in _items(done)
        )

    def settle(self) -> None:
        """K3s imports tarballs some seconds after they appear; releases are waited for by ``deploy status``."""
        time.sleep(self.settling_s)

    def recreate_pods(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        old = {item["metadata"]["uid"] for item in _items(self.kubectl("get", "--raw", path))}
        done = self.kubectl("delete", "--raw", path)
        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + _READY_S
        while old & {item["metadata"]["uid"] for item in _items(self.kubectl("get", "--raw", path))}:
            assert time.monotonic() < deadline, f"pods of {self.namespace} do not go"
            time.sleep(1)

    def output(self, deployment: str, container: str) -> str:
        done = self.kubectl("-n", self.namespace, "logs", f"deployment/{deployment}", "-c", container)
        # The pod that was picked may go just now, or its container not be there yet.
        return done.stdout if done.returncode == 0 else ""

    def kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = [str(components.require("kubectl")), f"--kubeconfig={self.kubeconfig}", "--request-timeout=60s"]
        return subprocess.run([*program, *arguments], capture_output=True, text=True, timeout=_READY_S, check=False)

    def delete(self, path: str) -> str | None:
        """Delete an object and wait until it is gone; return what went wrong."""
        done = self.kubectl("delete", "--raw", path)
        deadline = time.monotonic() + _GONE_S
        while done.returncode == 0:
            if time.monotonic() > deadline:
                return f"{path} is not gone after {_GONE_S:.0f} s: {_conditions(done.stdout)}"
            time.sleep(1)
            done = self.kubectl("get", "--raw", path)
        return None if "NotFound" in done.stderr or "not found" in done.stderr else f"{path}: {done.stderr.strip()}"


def _items(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, f"the cluster of {VARIABLES[0]} does not answer: {done.stderr}"
    found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return found


def _conditions(text: str) -> str:
    try:
        found = json.loads(text).get("status", {}).get("conditions", [])
    except ValueError:
        return "without a word"
    return "; ".join(str(item.get("message", "")) for item in found) or "without a word"


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()


def _address(node: RealNode) -> str:
    """Return an address of this machine at which pods reach it: the node's own, else the one towards its API server."""
    (item,) = _items(node.kubectl("get", "--raw", _NODES))
    for entry in item["status"]["addresses"]:
        if entry["type"] == "InternalIP":
            with contextlib.suppress(OSError), socket.socket() as listener:
                listener.bind((entry["address"], 0))
                return str(entry["address"])
    view = json.loads(node.kubectl("config", "view", "--minify", "-o", "json").stdout)
    server: Any = urlsplit(view["clusters"][0]["cluster"]["server"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((server.hostname, server.port or 443))
        found = str(probe.getsockname()[0])
    assert not found.startswith("127."), (
        f"pods cannot reach this machine at {found}, by which it reaches {server.netloc}"
    )
    return found


def _refuse_what_keeps_namespaces(node: RealNode) -> None:
    """Kubernetes ends no namespace while a service of its API does not answer, such as metrics-server's without image."""
    for item in _items(node.kubectl("get", "--raw", _SERVICES)):
        for entry in item.get("status", {}).get("conditions", []):
            if entry["type"] == "Available" and entry["status"] != "True":
                name = item["metadata"]["name"]
                pytest.fail(f"{name} does not answer ({entry.get('message')}): no namespace could be removed", False)


def _forget(node: RealNode, before: dict[str, set[str]]) -> list[str]:
    """Remove what came since, and what a killed run left; return what could not be removed."""
    said = []
    namespaces = {node.namespace}
    for path in sorted((node.root / MANIFESTS).glob(f"{PREFIX}{NAMES}*.yaml")):
        chart = yaml.safe_load(path.read_text())
        namespaces.add(chart["spec"]["targetNamespace"])
        skip = path.with_name(f"{path.name}.skip")
        skip.touch()
        said.append(node.delete(f"/{GROUP}/namespaces/{SYSTEM}/helmcharts/{chart['metadata']['name']}"))
        said.append(node.delete(f"/{_ADDONS}/namespaces/{SYSTEM}/addons/{path.stem}"))
        path.unlink()
        skip.unlink()
    said += [node.delete(f"/api/v1/namespaces/{name}") for name in sorted(namespaces)]
    for folder, names in before.items():
        for name in _names(node.root / folder) - names:
            (node.root / folder / name).unlink()
    (node.root / REGISTRIES).unlink(missing_ok=True)
    aside = node.root / _ASIDE
    if aside.exists():
        kept = json.loads(aside.read_text())
        if kept["registries"] is not None:
            (node.root / REGISTRIES).write_text(kept["registries"])
            (node.root / REGISTRIES).chmod(kept["mode"])
    try:
        node.restart()
    except (AssertionError, subprocess.SubprocessError) as error:
        said.append(str(error))
    aside.unlink(missing_ok=True)
    return [item for item in said if item is not None]


def _put_aside(root: Path) -> dict[str, set[str]]:
    """Keep what the node has of its own, unless a killed run did; return the names of its files."""
    place, aside = root / REGISTRIES, root / _ASIDE
    if not aside.exists():
        files = {str(folder): sorted(_names(root / folder)) for folder in (FOLDER, CHARTS)}
        kept: dict[str, Any] = {"files": files, "registries": None, "mode": 0}
        if place.exists():
            kept |= {"registries": place.read_text(), "mode": place.stat().st_mode & 0o7777}
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.touch(0o600)
        aside.write_text(json.dumps(kept))
    place.unlink(missing_ok=True)
    return {folder: set(names) for folder, names in json.loads(aside.read_text())["files"].items()}


def reach(kubeconfig: Path, root: Path, restart: str, *, steady: int) -> RealNode:
    """Return a node, with the address at which it reaches this machine."""
    node = RealNode(root, kubeconfig, restart, steady=steady)
    node.address = _address(node)
    return node


@contextlib.contextmanager
def real_node(kubeconfig: Path, root: Path, restart: str, *, steady: int = 5) -> Iterator[RealNode]:
    """Lend a node to the tests.

    `steady` is how often in a row, a second apart, it has to be ready after a restart.

    What it has of its own is kept beside its registries.yaml, so that the next run puts it back when this one is killed.
    """
    node = reach(kubeconfig, root, restart, steady=steady)
    _refuse_what_keeps_namespaces(node)
    before = _put_aside(root)
    try:
        yield node
    finally:
        said = _forget(node, before)
        if said:
            pytest.fail("\n".join(["the node keeps:", *said]), pytrace=False)
