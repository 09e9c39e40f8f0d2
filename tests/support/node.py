"""A node that runs what `airlift deploy` wrote: a real K3s where one is named, else its parts put together.

With AIRLIFT_TEST_KUBECONFIG, AIRLIFT_TEST_K3S_ROOT (the directory that stands for ``/`` of that node) and
AIRLIFT_TEST_K3S_RESTART (a command) it is a real one. Else containerd imports the tarballs, helm renders the written
charts, every container is started once over CRI, and what a cluster would say of them is put into an API of kmock.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from airlift.site.deploy.helmchart import CHARTS, MANIFESTS
from airlift.site.deploy.tarball import FOLDER
from tests import components
from tests.support.cluster_api import Api, running_api
from tests.support.containerd import Containerd, Cri, containerd

VARIABLES = ("AIRLIFT_TEST_KUBECONFIG", "AIRLIFT_TEST_K3S_ROOT", "AIRLIFT_TEST_K3S_RESTART")


class Node(Protocol):
    """What tests need of a node."""

    root: Path
    kubeconfig: Path

    def restart(self) -> None:
        """Start K3s again, so that it reads registries.yaml."""

    def settle(self) -> None:
        """Let the node take what lies in its directories now."""

    def recreate_pods(self, namespace: str) -> None:
        """Delete the pods, so that new ones are made."""

    def forget(self, release: str, namespace: str) -> None:
        """Remove a release and its files."""


@dataclass
class RealNode:
    """A K3s that somebody started."""

    root: Path
    kubeconfig: Path
    command: list[str]

    def restart(self) -> None:
        subprocess.run(self.command, check=True, timeout=300)

    def settle(self) -> None:
        """K3s looks by itself, every 15 s at manifests and every few at images."""
        time.sleep(20)

    def kubectl(self, *arguments: str) -> None:
        program = [str(components.require("kubectl")), f"--kubeconfig={self.kubeconfig}"]
        subprocess.run([*program, *arguments], check=True, timeout=300)

    def recreate_pods(self, namespace: str) -> None:
        self.kubectl("-n", namespace, "delete", "pods", "--all", "--wait=true")

    def forget(self, release: str, namespace: str) -> None:
        (self.root / MANIFESTS / f"airlift-{release}.yaml").unlink(missing_ok=True)
        self.kubectl("-n", "kube-system", "delete", "helmchart", release, "--ignore-not-found", "--wait=true")
        self.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=true")


@dataclass
class PartsOfANode:
    """Containerd, helm and an API, without what K3s puts between them."""

    root: Path
    kubeconfig: Path
    api: Api
    runtime: Containerd
    revisions: dict[str, tuple[int, str]] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def restart(self) -> None:
        """Nothing here reads registries.yaml."""

    def settle(self) -> None:
        for path in sorted((self.root / FOLDER).glob("*.tar"), key=lambda item: item.stat().st_mtime_ns):
            if path.name not in self.seen:
                self.runtime.ctr("images", "import", str(path))
                self.seen.add(path.name)
        self._name_by_digest()
        with self.runtime.cri() as cri:
            for path in sorted((self.root / MANIFESTS).glob("airlift-*.yaml")):
                self._install(cri, yaml.safe_load(path.read_text()))

    def _name_by_digest(self) -> None:
        """K3s names every image of a tarball by its digest, too."""
        for line in self.runtime.ctr("images", "ls").splitlines()[1:]:
            name, _, digest = line.split()[:3]
            if "@" not in name and not name.startswith("sha256:"):
                self.runtime.ctr("images", "tag", "--force", name, f"{name.rpartition(':')[0]}@{digest}")

    def _install(self, cri: Cri, chart: dict[str, Any]) -> None:
        name, spec = chart["metadata"]["name"], chart["spec"]
        (self.root.parent / "values.yaml").write_text(spec.get("valuesContent", ""))
        file = self.root / CHARTS / spec["chart"].rpartition("/")[2]
        command = [str(components.require("helm")), "template", name, str(file), "--namespace", spec["targetNamespace"]]
        command += ["-f", str(self.root.parent / "values.yaml")]
        text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
        documents = [item for item in yaml.safe_load_all(text) if item]
        number, before = self.revisions.get(name, (0, ""))
        if text != before:
            number += 1
            self.revisions[name] = number, text
        version = file.name.removesuffix(".tgz").split("-")[-2]
        self.api.helm_release(name, number, "deployed", version, documents, namespace=spec["targetNamespace"])
        for item in documents:
            if item["kind"] == "Deployment":
                self._run(cri, item, spec["targetNamespace"])

    def _run(self, cri: Cri, item: dict[str, Any], namespace: str) -> None:
        found = {}
        for container in item["spec"]["template"]["spec"]["containers"]:
            image = container["image"]
            code, said = cri.run(image, ["/bin/true"])
            assert code == 0, said
            status = cri.status(image)
            assert status is not None
            found[container["name"]] = (image, status.repo_digests[0])
        self.api.deployment(item["metadata"]["name"], found, namespace=namespace)

    def recreate_pods(self, namespace: str) -> None:
        del namespace
        self.settle()

    def forget(self, release: str, namespace: str) -> None:
        """All of it ends with the test."""


@contextlib.contextmanager
def running_node(folder: Path, *, pause: str) -> Iterator[Node]:
    """A real node where all three variables are set, else the parts of one."""
    given = [os.environ.get(name, "") for name in VARIABLES]
    if all(given):
        yield RealNode(Path(given[1]), Path(given[0]), shlex.split(given[2]))
        return
    components.require("helm")
    components.require("kubectl")
    (folder / "root").mkdir()
    with containerd(pause=pause) as runtime, running_api(folder) as api:
        yield PartsOfANode(folder / "root", api.kubeconfig, api, runtime)
