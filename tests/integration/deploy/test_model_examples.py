"""The charts under appliance/models: deployed from a drop, valid, and doing what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from airlift import helm
from airlift.site.config import Site
from airlift.site.deploy import k3s
from airlift.site.deploy.blobs import StoreBlobs
from airlift.site.deploy.helmchart import MANIFESTS
from airlift.site.deploy.registries import site_endpoint
from airlift.site.deploy.rendered import Renderer
from tests import components
from tests.support.deployable import activate, make_site
from tests.support.drops import AMD64, Drops, drops_at
from tests.support.folders import SharedFolder
from tests.support.serving import serving

EXAMPLES = components.ROOT / "appliance" / "models"
NAMES = sorted(item.parent.name for item in EXAMPLES.glob("*/Chart.yaml"))
PAUSE = "docker.io/airlift/pause:1"
BUSYBOX = "docker.io/library/busybox:1.36"
MODEL = "registry.example.com/acme/fraud-model:1"
FILES = {"config.json": b'{"model_type": "fraud"}', "weights/part.safetensors": b"w" * 5000}


def template(name: str, values: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    (folder / "values.yaml").write_text(yaml.safe_dump(values))
    command = [str(components.require("helm")), "template", "fraud", str(EXAMPLES / name), "--kube-version", "1.36.3"]
    command += ["-f", str(folder / "values.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (only,) = documents
    spec: dict[str, Any] = only["spec"]["template"]["spec"]
    return spec


def test_there_is_one_for_each_way() -> None:
    assert NAMES == ["hf-endpoint", "image-volume", "init-container"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid_kubernetes(name: str, tmp_path: Path) -> None:
    for document in template(name, {}, tmp_path):
        kubernetes_validate.validate(document, "1.36", strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_deployed_from_a_drop_that_has_all_its_images(name: str, tmp_path: Path) -> None:
    command = [str(components.require("helm")), "package", str(EXAMPLES / name)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    drops = drops_at(tmp_path / "store")
    for image in (BUSYBOX, MODEL, "docker.io/library/inference:1"):
        drops.image(image, image.encode())
    drops.chart(name, "1.0.0", None, archive=(tmp_path / f"{name}-1.0.0.tgz").read_bytes())
    drops.release(name, namespace="vision", release="fraud", v=b"site: http://10.0.0.1:8080\n")
    program = helm.at(components.require("helm"), tmp_path / "work")
    made = k3s.make_plan(
        [drops.config()],
        root=tmp_path / "root",
        endpoint=site_endpoint("http://10.0.0.1:8080"),
        platform=AMD64,
        blobs=StoreBlobs(drops.store),
        values=drops.store.read,
        shown=Renderer(program, StoreBlobs(drops.store), drops.store.read),
    )
    k3s.write(made)

    assert (tmp_path / "root" / MANIFESTS / "airlift-fraud.yaml").exists()
    assert (MODEL in made.pins) == (name == "image-volume")


@pytest.fixture(scope="module")
def site(shared_folder: SharedFolder) -> Site:
    """A site that has the model acme/fraud."""
    made = make_site(shared_folder("hub") / "site")
    drops = Drops(made.store)
    drops.model("acme/fraud", FILES)
    activate(made, drops)
    return made


@pytest.fixture(scope="module")
def url(site: Site) -> Iterator[str]:
    with serving(site.root) as address:
        yield address


def test_the_program_of_hf_endpoint_downloads_the_model(url: str, tmp_path: Path) -> None:
    (container,) = pod(template("hf-endpoint", {"site": url}, tmp_path))["containers"]
    environment = {item["name"]: item["value"] for item in container["env"]}
    environment |= {"HF_HOME": str(tmp_path / "models"), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    program = container["args"][0].replace("while True:", "while False:")
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "fraud"}
