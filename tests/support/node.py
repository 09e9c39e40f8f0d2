"""A node that runs what `airlift deploy` wrote: a real K3s where one is named, else its parts put together.

The parts are containerd, helm and an API without a cluster behind it. Between them stands what K3s was seen to do:
registries.yaml becomes hosts.toml at a start, tarballs are imported once by their name and named by digest, too, a
manifest is applied unless its AddOn has its digest, pods are run over CRI as a kubelet does, and what the node reports of
them is put into the API.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from airlift import digest
from airlift.site.deploy.helmchart import CHARTS, MANIFESTS
from airlift.site.deploy.registries import PATH as REGISTRIES
from airlift.site.deploy.tarball import FOLDER
from tests import components
from tests.support.cluster_api import Api, running_api
from tests.support.containerd import Containerd, containerd
from tests.support.helm_records import record
from tests.support.kubelet import Kubelet
from tests.support.real_node import VARIABLES, real_node

PAUSE = "docker.io/airlift/pause:1"


class Node(Protocol):
    """What tests need of a node.

    Attributes:
        root: what stands for its ``/``.
        kubeconfig: of its server.
        address: of this machine, as the node and its pods reach it.
        namespace: for what the tests deploy; no other run on the same node has it.
        preload: images that it needs in a tarball before anything runs.
    """

    root: Path
    kubeconfig: Path
    address: str
    namespace: str
    preload: tuple[str, ...]

    def restart(self) -> None:
        """Start K3s again, so that it reads registries.yaml."""

    def settle(self) -> None:
        """Let the node take what lies in its directories now."""

    def recreate_pods(self) -> None:
        """Delete the pods, so that new ones are made."""

    def output(self, deployment: str, container: str) -> str:
        """Return what a container of a deployment printed."""


@dataclass
class PartsOfANode:
    """See the module."""

    root: Path
    kubeconfig: Path
    api: Api
    runtime: Containerd
    kubelet: Kubelet
    address: str = "127.0.0.1"
    namespace: str = "airlift-test"
    preload: tuple[str, ...] = (PAUSE,)
    revisions: dict[str, int] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def restart(self) -> None:
        registries = yaml.safe_load((self.root / REGISTRIES).read_text())
        for host, mirror in registries["mirrors"].items():
            (endpoint,) = mirror["endpoint"]
            self.runtime.hosts(host, endpoint, override_path=True)
        self.checksums.clear()

    def settle(self) -> None:
        for path in sorted((self.root / FOLDER).glob("*.tar"), key=lambda item: item.stat().st_mtime_ns):
            if path.name not in self.seen:
                self.runtime.ctr("images", "import", str(path))
                self.seen.add(path.name)
        self._name_by_digest()
        for path in sorted((self.root / MANIFESTS).glob("[!.]*.yaml")):
            checksum = digest.of(path.read_bytes())
            if self.checksums.get(path.name) != checksum:
                self._install(yaml.safe_load(path.read_text()))
                self.checksums[path.name] = checksum

    def _name_by_digest(self) -> None:
        for line in self.runtime.ctr("images", "ls").splitlines()[1:]:
            name, _, target = line.split()[:3]
            if "@" not in name and not name.startswith("sha256:"):
                self.runtime.ctr("images", "tag", "--force", name, f"{name.rpartition(':')[0]}@{target}")

    def _install(self, chart: dict[str, Any]) -> None:
        name, spec = chart["metadata"]["name"], chart["spec"]
        archive = (self.root / CHARTS / spec["chart"].rpartition("/")[2]).read_bytes()
        values = spec.get("valuesContent", "")
        before = self.records.get(name)
        if not yaml.safe_load(values) and before is not None:
            values = json.dumps(before.get("config", {}))  # an upgrade with none, or {}, keeps those of before
        made = record(archive, values, release=name, namespace=spec["targetNamespace"])
        if made["chart"] == (before or {}).get("chart") and made.get("config") == (before or {}).get("config"):
            return  # its job is the same as before
        self.revisions[name] = self.revisions.get(name, 0) + 1
        self.records[name] = made
        self.api.helm_release(self.revisions[name], "deployed", made)
        self._run_pods(name)

    def _run_pods(self, release: str) -> None:
        for item in yaml.safe_load_all(self.records[release]["manifest"]):
            if item and item["kind"] == "Deployment":
                name, spec = item["metadata"]["name"], item["spec"]["template"]["spec"]
                status = self.kubelet.run(name, spec)
                self.api.rolled_out(name, spec, status, ready=True, namespace=self.namespace)

    def recreate_pods(self) -> None:
        for name in self.records:
            self._run_pods(name)

    def output(self, deployment: str, container: str) -> str:
        return self.kubelet.output(deployment, container)


@contextlib.contextmanager
def running_node(folder: Path) -> Iterator[Node]:
    """A real node where all three variables are set, else the parts of one."""
    given = [os.environ.get(name, "") for name in VARIABLES]
    if all(given):
        with real_node(Path(given[0]), Path(given[1]), given[2]) as real:
            yield real
        return
    components.require("helm")
    components.require("kubectl")
    (folder / "root").mkdir()
    with containerd(pause=PAUSE) as runtime, running_api(folder) as api, runtime.cri() as cri:
        kubelet = Kubelet(cri)
        try:
            yield PartsOfANode(folder / "root", api.kubeconfig, api, runtime, kubelet)
        finally:
            kubelet.stop_all()
