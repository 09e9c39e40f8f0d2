"""Nodes that run what `airlift deploy` wrote: a real K3s where one is named, else two that are put together here.

* ``k3s`` is a real Kubernetes and what K3s adds to it, see tests/support/k3s.
* ``parts`` are containerd, helm and an API without a cluster behind it, for machines on which no Kubernetes is built.
  Between them stands what K3s was seen to do: pods are run over CRI as a kubelet does, and what the node reports of them
  is put into the API. What K3s does with files is the same in both.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from airlift.site.deploy.helmchart import CHARTS
from tests import components
from tests.support.cluster_api import Api, running_api
from tests.support.containerd import Containerd, containerd
from tests.support.helm_records import record
from tests.support.k3s.addons import Manifests
from tests.support.k3s.agent import Agent
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
        can_pull: whether `pull` is possible.
    """

    root: Path
    kubeconfig: Path
    address: str
    namespace: str
    preload: tuple[str, ...]
    can_pull: bool

    def pull(self, image: str) -> None:
        """Let the node ask for an image again, as a person there does with crictl."""

    def restart(self) -> None:
        """Start K3s again, so that it reads registries.yaml."""

    def settle(self) -> None:
        """Let the node take what lies in its directories now."""

    def recreate_pods(self) -> None:
        """Delete the pods, so that new ones are made."""

    def output(self, deployment: str, container: str) -> str:
        """Return what a container of a deployment printed so far; nothing while nobody can say."""


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
    can_pull: bool = True
    revisions: dict[str, int] = field(default_factory=dict)
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.agent = Agent(self.root, self.runtime)
        self.manifests = Manifests(self.root)

    def pull(self, image: str) -> None:
        self.kubelet.cri.pull(image)

    def restart(self) -> None:
        self.agent.start()
        self.manifests.start()

    def settle(self) -> None:
        assert self.agent.import_images() == []
        for _, _, content in self.manifests.changed():
            self._install(yaml.safe_load(content))

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
def running_parts(folder: Path) -> Iterator[Node]:
    """The parts of a node."""
    components.require("helm")
    components.require("kubectl")
    (folder / "root").mkdir()
    with containerd(pause=PAUSE) as runtime, running_api(folder) as api, runtime.cri() as cri:
        kubelet = Kubelet(cri)
        try:
            yield PartsOfANode(folder / "root", api.kubeconfig, api, runtime, kubelet)
        finally:
            kubelet.stop_all()


@contextlib.contextmanager
def given_node() -> Iterator[Node]:
    """The node that the environment names."""
    kubeconfig, root, restart = (os.environ[name] for name in VARIABLES)
    with real_node(Path(kubeconfig), Path(root), restart) as real:
        yield real


KINDS: Sequence[str] = ("given",) if all(os.environ.get(name) for name in VARIABLES) else ("parts", "k3s")
"""The kinds of nodes that tests run on."""
