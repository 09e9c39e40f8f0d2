"""A network namespace with one address, as a machine in a network that this machine is in, too."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import components

SERVICES = "10.43.0.0/16"
"""Addresses of services, as K3s has them."""
PODS = "10.42.0.0/24"
"""Addresses of the server's pods, as K3s has them."""
PODS_OF_AGENT = "10.42.1.0/24"
API_SERVICE = "10.43.0.1"
_CNI_BIN = Path("/usr/lib/cni")


@dataclass(frozen=True)
class Network:
    """A namespace.

    Attributes:
        name: of the namespace.
        node: its address.
        outside: of this machine, as seen from inside.
    """

    name: str
    node: str
    outside: str

    @property
    def enter(self) -> tuple[str, ...]:
        """What is put before a program that is to run inside."""
        return entering(self.name)


def entering(name: str) -> tuple[str, ...]:
    """Return what is put before a program that is to run in a namespace."""
    return (str(components.require("nsenter")), f"--net=/run/netns/{name}", "--")


def named(name: str) -> Network:
    """Return the network whose namespace has this name."""
    third = int(name.rpartition("-")[2])
    return Network(name, f"10.213.{third}.2", f"10.213.{third}.1")


def link(agent: Network, server: Network) -> None:
    """Let two nodes reach each other, and the agent what the server reaches: the API's service and this machine.

    The link goes with the namespace of either.
    """
    ends = [(agent, server, "to-server"), (server, agent, f"to-{agent.name}"[:15])]
    (here, _, mine), (there, _, theirs) = ends
    _ip("-n", here.name, "link", "add", mine, "type", "veth", "peer", "name", theirs, "netns", there.name)
    for one, other, device in ends:
        _ip("-n", one.name, "link", "set", device, "up")
        _ip("-n", one.name, "route", "add", f"{other.node}/32", "dev", device, "src", one.node)
    _ip("-n", agent.name, "route", "add", f"{API_SERVICE}/32", "dev", "to-server", "src", agent.node)
    _ip("-n", agent.name, "route", "add", f"{server.outside}/32", "via", agent.outside)


def _ip(*arguments: str) -> None:
    command = [str(components.require("ip")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _free(third: int) -> bool:
    return f"10.213.{third}." not in Path("/proc/net/fib_trie").read_text()


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make a namespace, and remove it with all that is in it.

    Only this machine is reached from inside: there is no default route, so what asks for anybody else fails at once.
    The address of the API's service is the node's own, which is what kube-proxy is needed for otherwise.
    """
    third = next(number for number in iter(lambda: secrets.randbelow(256), -1) if _free(number))
    made = named(f"airlift-{third}")
    _ip("netns", "add", made.name)
    try:
        _ip("link", "add", made.name, "type", "veth", "peer", "name", "eth0", "netns", made.name)
        _ip("address", "add", f"{made.outside}/30", "dev", made.name)
        _ip("link", "set", made.name, "up")
        for command in (
            ("address", "add", f"{made.node}/30", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
            ("address", "add", f"{API_SERVICE}/32", "dev", "lo"),
        ):
            _ip("-n", made.name, *command)
        yield made
    finally:
        _ip("netns", "delete", made.name)


def write_cni(folder: Path, pods: str = PODS) -> Sequence[str]:
    """Write how pods get an address, and return containerd's words for it."""
    components.require(str(_CNI_BIN / "bridge"))
    folder.mkdir()
    (folder / "10-pods.conflist").write_text(
        f"""{{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {{
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
      "ipam": {{
        "type": "host-local",
        "ranges": [[{{"subnet": "{pods}"}}]],
        "routes": [{{"dst": "0.0.0.0/0"}}],
        "dataDir": "{folder.parent}/cni-addresses"
      }}
    }},
    {{"type": "portmap", "capabilities": {{"portMappings": true}}}}
  ]
}}
"""
    )
    return (f'bin_dirs = ["{_CNI_BIN}"]', f'conf_dir = "{folder}"')
