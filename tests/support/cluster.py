"""A Kubernetes API that knows HelmChart, for kubectl; nothing runs in it (kmock)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import kmock
import yaml

from tests import components

_CRD = json.loads((Path(__file__).parent / "helm_cattle_io_v1.json").read_text())
_CHARTS = "helm.cattle.io/v1/helmcharts"
_VERBS = ("get", "list", "create", "patch", "update", "delete")


def check_crd(value: Mapping[str, Any]) -> None:
    """Compare an object with the published fields of its kind."""
    jsonschema.validate(value, _CRD[value["kind"]])


def server_side_apply(files: Sequence[Path], names: Sequence[str], scratch: Path) -> list[dict[str, Any]]:
    """Let kubectl apply the files, and return the HelmCharts of these names that the API then has."""
    return asyncio.run(_apply(files, names, scratch))


async def _apply(files: Sequence[Path], names: Sequence[str], scratch: Path) -> list[dict[str, Any]]:
    kubectl = components.require("kubectl")
    api = kmock.KubernetesEmulator()
    api["get /openapi/v3"] << {"paths": {}}
    api["get /version"] << {"major": "1", "minor": "36", "gitVersion": "v1.36.3+k3s1"}
    api["get /api/v1"] << {"kind": "APIResourceList", "groupVersion": "v1", "resources": []}
    api.resources[_CHARTS] = kmock.ResourceInfo(
        kind="HelmChart", singular="helmchart", namespaced=True, verbs=set(_VERBS)
    )
    keys = [(kmock.resource(_CHARTS), "kube-system", name) for name in names]
    for key in keys:
        # kmock's PATCH wants the object to be there, a real server-side apply creates it.
        api.objects[key] = {
            "apiVersion": "helm.cattle.io/v1",
            "kind": "HelmChart",
            "metadata": {"name": key[2], "namespace": key[1]},
        }
    async with api, kmock.Server(api) as server:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": str(server.url)}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
            "current-context": "c",
        }
        (scratch / "kubeconfig").write_text(yaml.safe_dump(config))
        arguments = ["--kubeconfig", str(scratch / "kubeconfig"), "--cache-dir", str(scratch / "cache"), "apply"]
        arguments += ["--server-side", "--force-conflicts", "--validate=false"]
        arguments += [f"--filename={path}" for path in files]
        process = await asyncio.create_subprocess_exec(
            str(kubectl), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, output.decode()
        return [json.loads(json.dumps(api.objects[key].last, default=dict)) for key in keys]
