"""What a kubelet does with a pod, on a containerd: pulls, volumes, init containers, and what it reports."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cri_api.v1 import api_pb2 as cri

from tests.support.containerd import Cri, Sandbox


@dataclass
class Kubelet:
    """Runs pods until it is stopped; a pod of a name takes the place of the one before."""

    cri: Cri
    pods: dict[str, Sandbox] = field(default_factory=dict)

    def run(self, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Start a pod and return its status; init containers have ended well by then."""
        self.stop(name)
        self.pods[name] = sandbox = self.cri.start_sandbox()
        volumes = {item["name"]: self._volume(item) for item in spec.get("volumes", [])}
        status: dict[str, Any] = {"initContainerStatuses": [], "containerStatuses": []}
        for item in spec.get("initContainers", []):
            made = self._start(sandbox, item, volumes)
            code = self.cri.wait(made)
            assert code == 0, f"{item['name']} ended with {code}: {sandbox.output(item['name'])}"
            status["initContainerStatuses"].append(self._status(item, made))
        for item in spec["containers"]:
            status["containerStatuses"].append(self._status(item, self._start(sandbox, item, volumes)))
        return status

    def stop(self, name: str) -> None:
        if (sandbox := self.pods.pop(name, None)) is not None:
            self.cri.stop_sandbox(sandbox)

    def stop_all(self) -> None:
        for name in list(self.pods):
            self.stop(name)

    def _pulled(self, image: str, policy: str) -> None:
        if policy == "Always" or self.cri.status(image) is None:
            self.cri.pull(image)

    def _volume(self, volume: Mapping[str, Any]) -> dict[str, Any]:
        if (image := volume.get("image")) is not None:
            self._pulled(image["reference"], image.get("pullPolicy", "IfNotPresent"))
            return {"image": cri.ImageSpec(image=image["reference"]), "readonly": True}
        assert volume["emptyDir"] == {}
        return {"host_path": tempfile.mkdtemp(dir=self.cri.home, prefix="volume-")}

    def _start(self, sandbox: Sandbox, item: Mapping[str, Any], volumes: Mapping[str, dict[str, Any]]) -> str:
        self._pulled(item["image"], item.get("imagePullPolicy", "IfNotPresent"))
        mounts = [
            cri.Mount(container_path=mount["mountPath"], **{**volumes[mount["name"]], **_mode(mount)})
            for mount in item.get("volumeMounts", [])
        ]
        environment = {entry["name"]: entry["value"] for entry in item.get("env", [])}
        command, arguments = item.get("command", []), item.get("args", [])
        return self.cri.start(
            sandbox,
            item["image"],
            command,
            name=item["name"],
            arguments=arguments,
            environment=environment,
            mounts=mounts,
        )

    def _status(self, item: Mapping[str, Any], made: str) -> dict[str, Any]:
        return {"name": item["name"], "image": item["image"], "imageID": self.cri.container(made).image_ref}

    def output(self, name: str, container: str) -> str:
        return self.pods[name].output(container)


def _mode(mount: Mapping[str, Any]) -> dict[str, Any]:
    return {"readonly": True} if mount.get("readOnly") else {}
