"""Drives ``kubectl``, or ``k3s kubectl``: what a cluster says about its objects, and what a node is told to run.

Objects are asked for by their path on the API (``get --raw``): no discovery, no cache on the disk, and JSON as the
server gave it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess  # noqa: TID251 - this file drives kubectl
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote

from airlift import fs, limits
from airlift.errors import DeployError, UsageError
from airlift.site.deploy.cluster import AwayError
from airlift.site.deploy.program import BINARY

K3S_KUBECONFIG: Final = Path("/etc/rancher/k3s/k3s.yaml")
_ON_NODE: Final = (f"/{BINARY}", "kubectl")
OF_AGENT: Final = PurePosixPath("var/lib/rancher/k3s/agent/kubelet.kubeconfig")
"""What K3s writes on an agent once a server has taken it."""
_TIMEOUT_S: Final = 60
_OUTPUT: Final = 256 * limits.MIB
# What kubectl says while an API server starts, is busy or cannot be reached.
_AWAY = re.compile(
    r"connection to the server|Unable to connect|ServiceUnavailable|TooManyRequests|\(Timeout\)|InternalError"
    r"|unable to handle the request|connection (reset|lost)|i/o timeout|handshake timeout|\bEOF\b|etcdserver"
    r"|deadline exceeded|stream error|Client\.Timeout|GOAWAY"
)


class Kubectl:
    """A kubectl program and the cluster that it asks."""

    def __init__(self, command: tuple[str, ...], environment: Mapping[str, str]) -> None:
        """Take a program.

        Args:
            command: program and first arguments.
            environment: of the program.
        """
        self._command = command
        self._environment = dict(environment)

    def items(self, group: str, plural: str, namespace: str, *, selector: str = "") -> list[dict[str, Any]]:
        """See `Cluster.items`."""
        query = f"?labelSelector={quote(selector, safe='')}" if selector else ""
        path = f"/{group}/namespaces/{quote(namespace, safe='')}/{plural}{query}"
        value = self._get(path)
        found = value.get("items", []) if isinstance(value, dict) else []
        return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []

    def _get(self, path: str) -> Any:
        code, output, said = self._run(["get", "--raw", path])
        if code == 0:
            try:
                return json.loads(output)
            except (ValueError, RecursionError):
                raise DeployError(f"{path}: the cluster's answer is not JSON") from None
        if "NotFound" in said:
            return None
        is_away = _AWAY.search(said) is not None and "x509" not in said
        raise (AwayError if is_away else DeployError)(
            f"{path}: kubectl ended with {code}: {' '.join(said.split())[:500] or 'without a word'}",
            hint="check that the API server runs and that the kubeconfig is right (--kubeconfig)",
        )

    def _run(self, arguments: list[str]) -> tuple[int, bytes, str]:
        command = [*self._command, f"--request-timeout={_TIMEOUT_S // 2}s", *arguments]
        with fs.guarded("starting kubectl"), tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                done = subprocess.run(  # noqa: S603 - a program that the user named by PATH, no shell
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=self._environment,
                    timeout=_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise AwayError(f"{arguments[-1]}: kubectl did not finish in {_TIMEOUT_S} s") from None
            out.seek(0)
            err.seek(0)
            output = out.read(_OUTPUT + 1)
            if len(output) > _OUTPUT:
                raise DeployError(f"{arguments[-1]}: the cluster answers with more than {_OUTPUT} bytes")
            return done.returncode, output, err.read(limits.ERROR_BODY).decode("utf-8", "replace")


def find(environment: Mapping[str, str], kubeconfig: Path | None) -> Kubectl:
    """Return the kubectl of PATH, or that inside K3s, for a cluster.

    Args:
        environment: the process's.
        kubeconfig: which cluster; None is $KUBECONFIG, else K3s's own on this machine, else kubectl's default.

    Raises:
        UsageError: there is no such program.
    """
    path = environment.get("PATH", "")
    kubectl, k3s = (shutil.which(name, path=path) if path else None for name in ("kubectl", "k3s"))
    if kubectl is None and k3s is None:
        raise UsageError("neither kubectl nor k3s is on the PATH", hint="run it on a server of the cluster")
    if kubeconfig is None and not environment.get("KUBECONFIG") and K3S_KUBECONFIG.is_file():
        kubeconfig = K3S_KUBECONFIG
    program = (kubectl,) if kubectl is not None else (str(k3s), "kubectl")
    return Kubectl((*program, *(() if kubeconfig is None else (f"--kubeconfig={kubeconfig}",))), environment)


def of_node(environment: Mapping[str, str]) -> Kubectl:
    """Return K3s's own kubectl for the cluster of the server that this machine is, whatever $KUBECONFIG says."""
    return Kubectl(_ON_NODE, {name: value for name, value in environment.items() if name != "KUBECONFIG"})


def ask_for_node(name: str, *, is_agent: bool) -> tuple[str, ...]:
    """Return the command that a node is asked with about itself."""
    return ask(f"/api/v1/nodes/{name}", is_agent=is_agent)


def ask(path: str, *, is_agent: bool) -> tuple[str, ...]:
    """Return the command that asks the cluster from a node; an agent may ask about itself and for versions only."""
    return (*_ON_NODE, *((f"--kubeconfig=/{OF_AGENT}",) if is_agent else ()), "get", "--raw", path)


def delete(namespace: str, kind: str, name: str) -> tuple[str, ...]:
    """Return the command that takes an object out of a server's cluster, if it is there."""
    return (*_ON_NODE, "-n", namespace, "delete", "--ignore-not-found", kind, name)
