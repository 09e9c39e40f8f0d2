"""K3s's own settings on a node: config.yaml, the token to join with, and a default route where there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from airlift import fs, limits
from airlift.errors import UsageError
from airlift.site.deploy import documents
from airlift.site.deploy.files import PlannedFile, locate, plan_bytes
from airlift.site.deploy.prechecks import Role

CONFIG: Final = PurePosixPath("etc/rancher/k3s/config.yaml")
TOKEN: Final = PurePosixPath("etc/rancher/k3s/airlift-token")
ROUTE_UNIT: Final = PurePosixPath("etc/systemd/system/airlift-default-route.service")
_SECRET_MODE: Final = 0o600
_UNIT_MODE: Final = 0o644
_TOKEN_TEXT = re.compile(r"[!-~]{1,4096}")
_ROUTE: Final = """\
# Written by airlift deploy k3s: K3s finds its address by the default route, and this machine has none.
[Unit]
Description=A default route to nowhere, for K3s
Before=k3s.service k3s-agent.service
Wants=network.target
After=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/bin/sh -c 'ip link add dummy0 type dummy'
ExecStart=/bin/sh -c 'ip link set dummy0 up'
ExecStart=-/bin/sh -c 'ip addr add 203.0.113.254/31 dev dummy0'
ExecStart=/bin/sh -c 'ip route replace default via 203.0.113.255 dev dummy0 metric 1000'

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the machine is to be.

    Attributes:
        role: server or agent.
        server: URL of a server to join, or None for the first one.
        token: what it joins with, or None.
        node_ip: its address in the cluster, or None for K3s to find out.
        cluster_init: whether a first server starts etcd, so that servers can join.
    """

    role: Role = Role.SERVER
    server: str | None = None
    token: str | None = field(default=None, repr=False)
    node_ip: str | None = None
    cluster_init: bool = False

    @property
    def unit(self) -> str:
        """Name of K3s's systemd unit."""
        return "k3s" if self.role is Role.SERVER else "k3s-agent"

    @property
    def has_etcd(self) -> bool:
        """Whether K3s runs etcd there."""
        return self.role is Role.SERVER and (self.cluster_init or self.server is not None)


def check(wish: Wish) -> None:
    """Accept a wish that K3s can follow.

    Raises:
        UsageError: something is missing or contradicts the rest.
    """
    if wish.role is Role.AGENT and wish.server is None:
        raise UsageError("an agent joins a server", hint="name it with --server https://ADDRESS:6443")
    if wish.server is not None and (urlsplit(wish.server).scheme != "https" or not urlsplit(wish.server).hostname):
        raise UsageError(f"--server {wish.server[:200]!r}: expected a URL such as https://10.0.0.2:6443")
    if wish.server is not None and wish.token is None:
        raise UsageError(
            "joining a server needs its token",
            hint="give it with --token-file; a server has it in /var/lib/rancher/k3s/server/node-token",
        )
    if wish.cluster_init and (wish.server is not None or wish.role is Role.AGENT):
        raise UsageError("--cluster-init is for the first server of a cluster")


def read_token(path: Path) -> str:
    """Return the first line of a token file.

    Raises:
        StoreError: it cannot be read.
        UsageError: there is no token in it.
    """
    text = fs.read_bounded(path, limits.ERROR_BODY).split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    if not _TOKEN_TEXT.fullmatch(text):
        raise UsageError(f"{path}: the first line is no token")
    return text


def plan(root: Path, wish: Wish, *, route: bool) -> tuple[PlannedFile, ...]:
    """Return the plans for the settings' files.

    Args:
        root: what stands for ``/`` of the node.
        wish: what the machine is to be.
        route: whether it needs a default route.

    Raises:
        DeployError: config.yaml is not ours, or a place is taken.
        StoreError: the disk cannot be read.
    """
    place = locate(root, CONFIG)
    found, _ = documents.origin(place)
    documents.refuse_strangers(
        place, found, hint=f"move settings of your own into /{CONFIG}.d/*.yaml, which K3s reads after it"
    )
    data = documents.dump(content(wish), comment=f"Settings of your own belong into /{CONFIG}.d/*.yaml.")
    files = [plan_bytes(root, CONFIG, data, mode=_SECRET_MODE, text=data.decode())]
    if wish.token is not None:
        token, shown = f"{wish.token}\n".encode(), "(not shown)\n"
        files.insert(0, plan_bytes(root, TOKEN, token, mode=_SECRET_MODE, text=shown, is_secret=True))
    if route:
        files.insert(0, plan_bytes(root, ROUTE_UNIT, _ROUTE.encode(), mode=_UNIT_MODE, text=_ROUTE))
    return tuple(files)


def content(wish: Wish) -> dict[str, Any]:
    """Return what config.yaml says."""
    value: dict[str, Any] = {}
    if wish.server is not None:
        value["server"] = wish.server
    if wish.token is not None:
        value["token-file"] = f"/{TOKEN}"
    if wish.cluster_init:
        value["cluster-init"] = True
    if wish.node_ip is not None:
        value["node-ip"] = wish.node_ip
    # Without it every image that the site lacks costs seconds of asking a registry that cannot be reached.
    value["disable-default-registry-endpoint"] = True
    if wish.role is Role.SERVER:
        value["write-kubeconfig-mode"] = "0600"
    return value
