"""A second node: a kubelet and a containerd in a namespace of their own, which joins when it is told to, as an agent.

It reads what K3s reads for that (server, token, name) and gets an identity from the server, here from its directory.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests import components
from tests.support.containerd import containerd
from tests.support.k3s.agent import Agent
from tests.support.k3s.airgap import PAUSE, write_images
from tests.support.k3s.identities import SECOND, join_identities
from tests.support.k3s.network import PODS_OF_AGENT, Network, link, named, network, write_cni
from tests.support.k3s.parts import API_PORT, Part, kubelet
from tests.support.k3s.server import SERVER, remove_links
from tests.support.mounts import unmount_below

_START_S = 180.0
_CONFIG = Path("etc/rancher/k3s/config.yaml")
KUBECONFIG = Path("var/lib/rancher/k3s/agent/kubelet.kubeconfig")


@dataclass
class Joining:
    """See the module.

    Attributes:
        home: its directory.
        server: that of the server.
    """

    home: Path
    server: Path
    network: Network
    agent: Agent
    parts: list[Part] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Join the server of config.yaml, and wait until the node is ready.

        Raises:
            RuntimeError: it is another server, or the token or the name is; or the node is not ready in time.
        """
        config = self._config()
        url = f"https://{named((self.server / 'network').read_text()).node}:{API_PORT}"
        if config.get("server") != url:
            raise RuntimeError(f"no server answers at {config.get('server')}, the only one is {url}")
        token = (self.agent.root / config["token-file"].lstrip("/")).read_text()
        if token != (self.server / "root" / SERVER / "node-token").read_text():
            raise RuntimeError("the server does not know this token")
        if (name := config["node-name"].lower()) != SECOND:
            raise RuntimeError(f"the server gives no identity to {name}")
        ca, serving, kubeconfig = join_identities(
            self.server / "identities", self.home / "identities", self.network.node
        )
        own = self.agent.root / KUBECONFIG
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(kubeconfig, own)
        self.agent.start()
        self.said += self.agent.import_images()
        runtime = self.agent.runtime
        cgroup, socket = runtime.home.name, runtime.socket
        part = kubelet(self.home, self.network, cgroup, socket, SECOND, ca, serving, own)
        part.start()
        self.parts.append(part)
        deadline = time.monotonic() + _START_S
        while not self._is_ready(own):
            self.refuse_ended()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{SECOND} is not ready: {part.log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.2)

    def _config(self) -> dict[str, Any]:
        folder = self.agent.root / _CONFIG.parent / f"{_CONFIG.name}.d"
        found: dict[str, Any] = {}
        for place in (self.agent.root / _CONFIG, *sorted(folder.glob("*.yaml"))):
            found |= yaml.safe_load(place.read_text()) or {}
        return found

    def _is_ready(self, kubeconfig: Path) -> bool:
        kubectl = [str(components.require("kubectl")), f"--kubeconfig={kubeconfig}"]
        command = [*self.network.enter, *kubectl, "get", "node", SECOND, "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        conditions = json.loads(done.stdout)["status"].get("conditions", []) if done.returncode == 0 else []
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)

    def refuse_ended(self) -> None:
        """Raise RuntimeError with the log's end when the kubelet has ended by itself."""
        for part in self.parts:
            if part.ended():
                raise RuntimeError(f"{part.name} ended:\n{part.log.read_text(errors='replace')[-4000:]}")

    def turn(self) -> None:
        """Take what lies in the node's folders now."""
        self.said += self.agent.import_images()

    def stop(self) -> None:
        """Stop the kubelet; pods go on running."""
        while self.parts:
            self.parts.pop().stop()


@contextlib.contextmanager
def joining(home: Path, server: Path) -> Iterator[Joining]:
    """Make a machine for a second node, whose ``/`` is ``root`` below `home`; K3s does not run on it yet."""
    root = home / "root"
    write_images(root, home / "airgap")
    shutil.rmtree(home / "airgap")
    with (
        network() as net,
        containerd(pause=PAUSE, prefix=net.enter, cni=write_cni(home / "cni", PODS_OF_AGENT)) as runtime,
    ):
        link(net, named((server / "network").read_text()))
        (home / "network").write_text(net.name)
        (home / "containerd").write_text(str(runtime.socket))
        made = Joining(home, server, net, Agent(root, runtime))
        try:
            yield made
        finally:
            made.stop()
            with runtime.cri() as cri:
                cri.remove_all()
            unmount_below(home)
            remove_links(home)
