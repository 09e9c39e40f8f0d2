"""Programs of a cluster: how each is started, and what it is told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import components
from tests.support.k3s.airgap import KLIPPER
from tests.support.k3s.identities import Identities
from tests.support.k3s.network import PODS, SERVICES, Network

NODE = os.uname().nodename.lower()
"""Name of the node: as with K3s, the machine's."""
API_PORT = 6443
_KINE_PORT = 2379
PROGRAMS = ("kine", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "helm-controller")
_FOLDER = components.TOOLS / "kubernetes"


def program(name: str) -> str:
    """Return where a program of scripts/tool-kubernetes is."""
    return str(components.require_built(_FOLDER / name, "scripts/tool-kubernetes"))


@dataclass
class Part:
    """A program that runs until it is stopped.

    Attributes:
        name: of its log, too.
        command: with arguments.
    """

    name: str
    command: Sequence[str]
    logs: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.logs / f"{self.name}.log"

    def start(self) -> None:
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                list(self.command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def stop(self, seconds: float = 20) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = None


def part(home: Path, network: Network, name: str, *arguments: str) -> Part:
    """Return a part that runs in a network, with its log in a home."""
    logs = home / "logs"
    logs.mkdir(exist_ok=True)
    return Part(name, [*network.enter, *arguments], logs)


def kubelet(
    home: Path,
    network: Network,
    cgroup: str,
    socket: Path,
    name: str,
    ca: Path,
    serving: tuple[Path, Path],
    kubeconfig: Path,
) -> Part:
    """The kubelet of a node, which talks to the containerd of a socket."""
    root = home / "kubelet"
    value = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": network.node,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        # Root of a sandbox may not make the trees of cgroups that kubelet keeps pods of a class in.
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "localStorageCapacityIsolation": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "memory.available": "1Mi"},
        "containerRuntimeEndpoint": f"unix://{socket}",
        "clusterDomain": "cluster.local",
        "clusterDNS": ["10.43.0.10"],
        "resolvConf": "",
        "podLogsDir": str(home / "pods"),
        "tlsCertFile": str(serving[0]),
        "tlsPrivateKeyFile": str(serving[1]),
        "volumePluginDir": str(root / "plugins"),
        "healthzPort": 10248,
        "featureGates": {"KubeletInUserNamespace": True},
        "nodeStatusUpdateFrequency": "2s",
    }
    config = home / "kubelet.json"
    config.write_text(json.dumps(value))
    return part(
        home,
        network,
        "kubelet",
        program("kubelet"),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={root}",
        f"--hostname-override={name}",
        f"--node-ip={network.node}",
    )


@dataclass(frozen=True)
class Maker:
    """Makes the parts of one cluster."""

    home: Path
    network: Network
    identities: Identities
    socket: Path
    cgroup: str
    server: Path

    def _part(self, name: str, *arguments: str) -> Part:
        return part(self.home, self.network, name, *arguments)

    def kine(self) -> Part:
        """K3s's own datastore: SQLite that talks as etcd does."""
        database = self.server / "db" / "state.db"
        database.parent.mkdir(exist_ok=True)
        return self._part(
            "kine",
            program("kine"),
            f"--endpoint=sqlite://{database}?_journal=WAL&cache=shared&_busy_timeout=30000&_txlock=immediate",
            f"--listen-address=tcp://127.0.0.1:{_KINE_PORT}",
            "--metrics-bind-address=0",
        )

    def api_server(self) -> Part:
        known = self.identities
        return self._part(
            "kube-apiserver",
            program("kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{_KINE_PORT}",
            f"--advertise-address={self.network.node}",
            "--bind-address=127.0.0.1",
            f"--secure-port={API_PORT}",
            f"--service-cluster-ip-range={SERVICES}",
            f"--tls-cert-file={known.serving[0]}",
            f"--tls-private-key-file={known.serving[1]}",
            f"--client-ca-file={known.ca}",
            f"--token-auth-file={known.tokens}",
            f"--kubelet-certificate-authority={known.ca}",
            f"--kubelet-client-certificate={known.admin[0]}",
            f"--kubelet-client-key={known.admin[1]}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={known.accounts[1]}",
            f"--service-account-signing-key-file={known.accounts[0]}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--api-audiences=https://kubernetes.default.svc.cluster.local,k3s",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
        )

    def controller_manager(self) -> Part:
        known = self.identities
        return self._part(
            "kube-controller-manager",
            program("kube-controller-manager"),
            f"--kubeconfig={known.inside}",
            f"--root-ca-file={known.ca}",
            f"--service-account-private-key-file={known.accounts[0]}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            f"--cluster-cidr={PODS}",
            f"--cert-dir={self.home}/controller-manager",
        )

    def scheduler(self) -> Part:
        return self._part(
            "kube-scheduler",
            program("kube-scheduler"),
            f"--kubeconfig={self.identities.inside}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            f"--cert-dir={self.home}/scheduler",
        )

    def kubelet(self) -> Part:
        known = self.identities
        return kubelet(self.home, self.network, self.cgroup, self.socket, NODE, known.ca, known.serving, known.inside)

    def helm_controller(self) -> Part:
        return self._part(
            "helm-controller",
            program("helm-controller"),
            f"--kubeconfig={self.identities.inside}",
            "--namespace=kube-system",
            f"--node-name={NODE}",
            f"--default-job-image={KLIPPER}",
        )

    def listener(self) -> Part:
        """What listens at the node's address, as K3s itself does: charts without a login, and all else is the API."""
        work = self.home / "nginx"
        work.mkdir(exist_ok=True)
        places = "".join(
            f"  {kind}_temp_path {work}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        certificate, key = self.identities.serving
        (work / "nginx.conf").write_text(
            f"""\
daemon off;
master_process off;
user root;
pid {work}/pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log {work}/access.log;
{places}  client_max_body_size 0;
  map $http_upgrade $airlift_connection {{ default upgrade; "" ""; }}
  server {{
    listen {self.network.node}:{API_PORT} ssl;
    listen 10.43.0.1:443 ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    location /static/ {{ root {self.server}; autoindex on; }}
    location / {{
      proxy_pass https://127.0.0.1:{API_PORT};
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $airlift_connection;
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 3600s;
    }}
  }}
}}
"""
        )
        return self._part("nginx", str(components.require("nginx")), "-c", str(work / "nginx.conf"), "-p", str(work))
