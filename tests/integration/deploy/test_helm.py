"""What is written for releases, read by helm, kubectl and the schemas of Kubernetes."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from airlift.site.deploy import k3s
from airlift.site.deploy.blobs import StoreBlobs
from airlift.site.deploy.helmchart import CHARTS, MANIFESTS
from airlift.site.deploy.registries import site_endpoint
from tests import components
from tests.support.cluster import check_crd, server_side_apply
from tests.support.drops import AMD64, Drops, drops_at
from tests.support.folders import SharedFolder

IMAGE = "docker.io/library/redis:7.4"
VALUES = {
    "one.yaml": b"image: {repository: docker.io/library/redis, tag: '7.4'}\nservice: {port: 6379}\nreplicaCount: 2\n",
    "two.yaml": b"service: {type: NodePort}\npodAnnotations: {at: '1:30'}\nreplicaCount: 3\n",
}


def helm(*arguments: str | Path, folder: Path) -> str:
    command = [str(components.require("helm")), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archive(shared_folder: SharedFolder) -> bytes:
    folder = shared_folder("chart")
    helm("create", "site", folder=folder)
    helm("package", "site", "--version", "1.2.3+build", folder=folder)
    return (folder / "site-1.2.3+build.tgz").read_bytes()


@pytest.fixture
def deployed(tmp_path: Path, archive: bytes) -> Path:
    drops = drops_at(tmp_path / "store")
    drops.image(IMAGE)
    drops.chart("site", "1.2.3+build", [IMAGE], archive=archive)
    drops.release("site", namespace="vision", release="web", **VALUES)
    drops.release("site", namespace="other", release="second")
    write(drops, tmp_path / "root")
    return tmp_path / "root"


def write(drops: Drops, root: Path) -> None:
    made = k3s.make_plan(
        [drops.config()],
        root=root,
        endpoint=site_endpoint("http://10.0.0.1:8080"),
        platform=AMD64,
        blobs=StoreBlobs(drops.store),
        values=drops.store.read,
    )
    k3s.write(made)


def manifests(root: Path) -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text()) for path in sorted((root / MANIFESTS).iterdir())]


def render(root: Path, chart: dict[str, Any], scratch: Path) -> str:
    """What klipper-helm renders from the written files."""
    spec = chart["spec"]
    (scratch / "values.yaml").write_text(spec.get("valuesContent", ""))
    file = root / CHARTS / spec["chart"].rpartition("/")[2]
    name, namespace = chart["metadata"]["name"], spec["targetNamespace"]
    return helm("template", name, file, "--namespace", namespace, "-f", scratch / "values.yaml", folder=scratch)


def test_every_field_is_one_of_the_published_crd_and_every_policy_is_abort(deployed: Path) -> None:
    for chart in manifests(deployed):
        check_crd(chart)
        assert chart["spec"]["failurePolicy"] == "abort"


@pytest.mark.parametrize("change", [{"failurePolicy": "retry"}, {"valueContent": "a: 1"}, {"createNamespace": "true"}])
def test_the_crd_of_the_tests_refuses_what_a_server_refuses_or_drops(deployed: Path, change: dict[str, Any]) -> None:
    chart = manifests(deployed)[0]

    with pytest.raises(jsonschema.ValidationError):
        check_crd({**chart, "spec": {**chart["spec"], **change}})


def test_kubectl_applies_the_manifests_server_side(deployed: Path, tmp_path: Path) -> None:
    files = sorted((deployed / MANIFESTS).iterdir())

    found = server_side_apply(files, ["second", "web"], tmp_path)

    assert [item["spec"] for item in found] == [item["spec"] for item in manifests(deployed)]


def test_the_rendered_workloads_are_valid_kubernetes(deployed: Path, tmp_path: Path) -> None:
    kinds = set()
    for chart in manifests(deployed):
        for document in yaml.safe_load_all(render(deployed, chart, tmp_path)):
            if document:
                kubernetes_validate.validate(document, "1.36", strict=True)
                kinds.add(document["kind"])

    assert {"Deployment", "Service"} <= kinds


def test_merged_values_render_as_helm_renders_the_single_files(deployed: Path, tmp_path: Path, archive: bytes) -> None:
    (tmp_path / "site.tgz").write_bytes(archive)
    options: list[str | Path] = []
    for name, data in VALUES.items():
        (tmp_path / name).write_bytes(data)
        options += ["-f", name]
    expected = helm("template", "web", "site.tgz", "--namespace", "vision", *options, folder=tmp_path)

    web = next(item for item in manifests(deployed) if item["metadata"]["name"] == "web")

    assert render(deployed, web, tmp_path) == expected
    assert 'at: "1:30"' in expected or "at: 1:30" in expected
