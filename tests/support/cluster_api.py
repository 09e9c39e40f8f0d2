"""A Kubernetes API with objects in it (kmock), for kubectl in another process; nothing runs in it.

With AIRLIFT_TEST_KUBECONFIG set, tests that need a cluster in which things run use that one instead.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kmock
import yaml

PLURALS = {
    "Secret": ("v1", "secrets"),
    "Pod": ("v1", "pods"),
    "Deployment": ("apps/v1", "deployments"),
    "ReplicaSet": ("apps/v1", "replicasets"),
    "StatefulSet": ("apps/v1", "statefulsets"),
    "DaemonSet": ("apps/v1", "daemonsets"),
    "Job": ("batch/v1", "jobs"),
    "CronJob": ("batch/v1", "cronjobs"),
    "HelmChart": ("helm.cattle.io/v1", "helmcharts"),
    "HelmChartConfig": ("helm.cattle.io/v1", "helmchartconfigs"),
    "Addon": ("k3s.cattle.io/v1", "addons"),
}


@dataclass
class Api:
    """The running API."""

    kubeconfig: Path
    emulator: Any = field(repr=False)

    def put(self, kind: str, name: str, namespace: str = "vision", **fields: Any) -> None:
        """Set an object, whole."""
        version, plural = PLURALS[kind]
        metadata = {"name": name, "namespace": namespace, **fields.pop("metadata", {})}
        body = {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}
        self.emulator.objects[kmock.resource(f"{version}/{plural}"), namespace, name] = body

    def put_node(self, name: str, status: Mapping[str, Any]) -> None:
        """Set a node of the cluster."""
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}
        self.emulator.objects[kmock.resource("v1/nodes"), None, name] = body

    def put_service(self, name: str, available: str) -> None:
        """Set a service of the API, such as that of metrics-server."""
        status = {"conditions": [{"type": "Available", "status": available, "message": "no endpoints"}]}
        body = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}}
        key = (kmock.resource("apiregistration.k8s.io/v1/apiservices"), None, name)
        self.emulator.objects[key] = {**body, "status": status}

    def names(self, kind: str, namespace: str) -> set[str]:
        """Return the objects that are there."""
        version, plural = PLURALS[kind]
        wanted = kmock.resource(f"{version}/{plural}")
        return {
            name
            for (resource, space, name), history in self.emulator.objects.items()
            if (resource, space) == (wanted, namespace) and not history.deleted
        }

    def helm_release(self, number: int, status: str, record: Mapping[str, Any], description: str = "") -> None:
        """Set the Secret that Helm writes for a revision, from its record (tests/support/helm_records.py)."""
        name = record["name"]
        info = {**record["info"], "status": status, "description": description or "Upgrade complete"}
        record = {**record, "version": number, "info": info}
        packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(record).encode()))).decode()
        labels = {"owner": "helm", "name": name, "version": str(number), "status": status}
        self.put(
            "Secret",
            f"sh.helm.release.v1.{name}.v{number}",
            record["namespace"],
            metadata={"labels": labels},
            type="helm.sh/release.v1",
            data={"release": packed},
        )

    def deployment(
        self,
        name: str,
        containers: Mapping[str, tuple[str, str]],
        *,
        ready: bool = True,
        namespace: str = "vision",
    ) -> None:
        """Set a deployment with its replica set and one pod; `containers` are image and imageID by name."""
        spec = {"containers": [{"name": key, "image": image} for key, (image, _) in containers.items()]}
        reported = [{"name": key, "imageID": found} for key, (_, found) in containers.items()]
        self.rolled_out(name, spec, {"containerStatuses": reported}, ready=ready, namespace=namespace)

    def rolled_out(
        self, name: str, spec: Mapping[str, Any], status: Mapping[str, Any], *, ready: bool, namespace: str
    ) -> None:
        """Set a deployment with its replica set and one pod of this spec and status."""
        count = int(ready)
        replicas = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": count, "observedGeneration": 2}
        self.put("Deployment", name, namespace, metadata={"generation": 2}, spec={"replicas": 1}, status=replicas)
        self.put("ReplicaSet", f"{name}-5d", namespace, metadata=_owner("Deployment", name), spec={"replicas": 1})
        phase = {"phase": "Running" if ready else "Pending"}
        owner = _owner("ReplicaSet", f"{name}-5d")
        self.put("Pod", f"{name}-5d-abc", namespace, metadata=owner, spec=spec, status={**phase, **status})

    def change_pod(self, name: str, change: Callable[[dict[str, Any]], object], namespace: str = "vision") -> None:
        """Change the pod of a deployment."""
        key = (kmock.resource("v1/pods"), namespace, f"{name}-5d-abc")
        body = json.loads(json.dumps(self.emulator.objects[key].last, default=dict))
        change(body)
        self.emulator.objects[key] = body

    def mount(self, name: str, volume: Mapping[str, Any], status: Mapping[str, Any]) -> None:
        """Give the pod of a deployment a volume, and its first container's word for it."""

        def change(pod: dict[str, Any]) -> None:
            pod["spec"]["volumes"] = [volume]
            pod["status"]["containerStatuses"][0]["volumeMounts"] = [status]

        self.change_pod(name, change)


def _owner(kind: str, name: str) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": kind, "name": name, "controller": True}]}


@contextlib.contextmanager
def running_api(folder: Path, *, port: int | None = None) -> Iterator[Api]:
    """Serve an API from a thread of its own."""
    emulator = kmock.KubernetesEmulator()
    for kind, (version, plural) in PLURALS.items():
        emulator.resources[f"{version}/{plural}"] = kmock.ResourceInfo(
            kind=kind,
            singular=kind.lower(),
            namespaced=True,
            verbs={"get", "list", "create", "patch", "delete", "watch"},
        )
    wide = {"Node": "v1/nodes", "Namespace": "v1/namespaces", "APIService": "apiregistration.k8s.io/v1/apiservices"}
    for kind, name in wide.items():
        emulator.resources[name] = kmock.ResourceInfo(
            kind=kind, singular=kind.lower(), namespaced=False, verbs={"get", "list", "delete", "watch"}
        )
    emulator["get /readyz"] << "ok"
    ready = threading.Event()
    held: dict[str, Any] = {}

    async def serve() -> None:
        held["stop"], held["loop"] = asyncio.Event(), asyncio.get_running_loop()
        async with emulator, kmock.Server(emulator, port=port) as server:
            held["url"] = str(server.url)
            ready.set()
            await held["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": held["url"]}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
            "current-context": "c",
        }
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        yield Api(folder / "kubeconfig", emulator)
    finally:
        held["loop"].call_soon_threadsafe(held["stop"].set)
        thread.join(20)
