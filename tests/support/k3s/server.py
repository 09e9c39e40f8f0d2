"""K3s put together from its parts: Kubernetes, kine, helm-controller and containerd are real, what binds them is ours.

What K3s has and this has not: flannel, kube-proxy, CoreDNS, the packaged AddOns, several servers. See `network`, `agent`,
`addons`, `airgap` and `joining` for what stands in for the rest.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from airlift.site.deploy.helmchart import MANIFESTS
from tests import components
from tests.support.containerd import containerd
from tests.support.k3s.addons import CRD, Deployer, Manifests
from tests.support.k3s.agent import Agent
from tests.support.k3s.airgap import PAUSE, write_images
from tests.support.k3s.identities import make_identities
from tests.support.k3s.network import API_SERVICE, network, write_cni
from tests.support.k3s.parts import API_PORT, NODE, Maker, Part
from tests.support.mounts import unmount_below

_START_S = 180.0
_CRDS = components.TOOLS / "kubernetes" / "crds"
SERVER = MANIFESTS.parent


@dataclass
class Server:
    """A K3s that runs."""

    maker: Maker
    agent: Agent
    deployer: Deployer
    parts: list[Part] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start all parts and wait until the node is ready.

        Raises:
            RuntimeError: one ended, or the node is not ready in time.
        """
        self._begin(self.maker.kine())
        self._begin(self.maker.api_server())
        self._until("--raw=/readyz")
        self.deployer.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(_CRDS))
        self.deployer.kubectl("apply", "-f", "-", text=CRD)
        self.deployer.manifests.start()
        self.agent.start()
        for part in (self.maker.controller_manager(), self.maker.scheduler(), self.maker.listener()):
            self._begin(part)
        self.said += self.agent.import_images()
        self._begin(self.maker.kubelet())
        self._begin(self.maker.helm_controller())
        self._until("--raw=/api/v1/namespaces/kube-system/serviceaccounts/default")
        self._until("node", NODE)
        self.deployer.kubectl("label", "--overwrite", "node", NODE, "node-role.kubernetes.io/control-plane=true")
        self.deployer.kubectl("wait", "node", NODE, "--for=condition=Ready", f"--timeout={_START_S:.0f}s")

    def _begin(self, part: Part) -> None:
        part.start()
        self.parts.append(part)

    def _until(self, *arguments: str) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                self.deployer.kubectl("get", *arguments)
            except (RuntimeError, subprocess.SubprocessError) as error:
                self.refuse_ended()
                if time.monotonic() > deadline:
                    raise RuntimeError(f"not there after {_START_S:.0f} s: {error}") from None
                time.sleep(0.2)
            else:
                return

    def refuse_ended(self) -> None:
        """Raise RuntimeError with the log's end when a part has ended by itself."""
        for part in self.parts:
            if part.ended():
                raise RuntimeError(f"{part.name} ended:\n{part.log.read_text(errors='replace')[-4000:]}")

    def turn(self) -> None:
        """Take what lies in the node's folders now."""
        for line in (*self.agent.import_images(), *self.deployer.run()):
            self.said.append(line)

    def stop(self) -> None:
        """Stop all parts; pods go on running, as with K3s."""
        while self.parts:
            self.parts.pop().stop()


@contextlib.contextmanager
def k3s(home: Path) -> Iterator[Server]:
    """Start a K3s whose files are below `home`: its ``/`` is ``root``, its kubeconfig ``identities/k3s.yaml``."""
    root = home / "root"
    write_images(root, home / "airgap")
    shutil.rmtree(home / "airgap")
    for folder in (MANIFESTS, SERVER / "static" / "charts"):
        (root / folder).mkdir(parents=True)
    with network() as net, containerd(pause=PAUSE, prefix=net.enter, cni=write_cni(home / "cni")) as runtime:
        (home / "network").write_text(net.name)
        (home / "containerd").write_text(str(runtime.socket))
        cgroup = runtime.home.name
        names = (NODE, net.node, "127.0.0.1", API_SERVICE, "localhost", "kubernetes.default.svc")
        inside, outside = f"https://127.0.0.1:{API_PORT}", f"https://{net.node}:{API_PORT}"
        known = make_identities(home / "identities", NODE, names, inside, outside)
        (root / "etc/rancher/k3s").mkdir(parents=True)
        shutil.copy(known.outside, root / "etc/rancher/k3s/k3s.yaml")
        for name in ("token", "node-token"):
            (root / SERVER / name).write_text("K10a::server:of-this-K3s\n")
        maker = Maker(home, net, known, runtime.socket, cgroup, root / SERVER)
        deployer = Deployer(Manifests(root), known.inside, net.enter)
        server = Server(maker, Agent(root, runtime), deployer)
        try:
            server.start()
            yield server
        finally:
            server.stop()
            _remove_pods(server)
            unmount_below(home)
            remove_links(home)


def _remove_pods(server: Server) -> None:
    with server.agent.runtime.cri() as cri:
        cri.remove_all()


def remove_links(home: Path) -> None:
    """Remove what kubelet has at a place of its own for those who collect logs."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(home):
            link.unlink()
