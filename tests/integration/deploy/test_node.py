"""Drops on a node: deployed, compared, upgraded, taken back. See tests/support/node.py for which node."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlift.cli.main import run
from airlift.site.config import Site
from airlift.site.deploy.blobs import StoreBlobs
from airlift.site.deploy.images import Images
from airlift.site.deploy.tarball import FOLDER, ImageTar
from tests import components
from tests.support.deployable import activate, make_site
from tests.support.drops import AMD64, Drops, drops_at
from tests.support.node import Node, running_node

PAUSE = "docker.io/airlift/pause:1"
APP = "registry.example.com/airlift-test/app:1"
SPACE = "airlift-test"
RELEASE = "airlift-test"
TEMPLATE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata:
      labels: {app: app}
      annotations: {version: {{ .Chart.Version | quote }}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: app, image: {{ .Values.image }}, command: [/bin/sleep, "100000"]}]
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("node"), pause=PAUSE) as made:
        yield made
        made.forget(RELEASE, SPACE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = make_site(tmp_path_factory.mktemp("site") / "s", url="http://127.0.0.1:1")
    folder = tmp_path_factory.mktemp("charts")
    for sequence, version in enumerate(("1.0.0", "1.1.0"), 1):
        drops = Drops(made.store)
        drops.image(PAUSE, files(b"pause"), command=["/bin/sleep", "1000"])
        drops.image(f"{APP.rpartition(':')[0]}:{sequence}", files(version.encode()))
        drops.chart("app", version, None, archive=chart(folder, version))
        values = f"image: {APP.rpartition(':')[0]}:{sequence}\n".encode()
        drops.release("app", namespace=SPACE, release=RELEASE, v=values)
        drops.preload = [item.name for item in drops.artifacts[:2]]
        activate(made, drops, sequence=sequence)
    assert run(["drops", "activate", "--site", str(made.root), "stable/1"]) == 0
    return made


def files(says: bytes) -> dict[str, bytes | str]:
    program = components.require("busybox").read_bytes()
    links = {f"bin/{name}": "busybox" for name in ("sh", "true", "sleep", "cat")}
    return {"bin/": b"", "bin/busybox": program, **links, "says": says}


def chart(folder: Path, version: str) -> bytes:
    (folder / "app/templates").mkdir(parents=True, exist_ok=True)
    (folder / "app/Chart.yaml").write_text(f"apiVersion: v2\nname: app\nversion: {version}\n")
    (folder / "app/templates/app.yaml").write_text(TEMPLATE)
    (folder / "app/values.yaml").write_text(f"image: {APP}\n")
    command = [str(components.require("helm")), "package", "app"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    return (folder / f"app-{version}.tgz").read_bytes()


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{components.search_path()}{os.pathsep}/usr/bin")


def deploy(site: Site, node: Node, capsys: pytest.CaptureFixture[str], verb: str = "k3s") -> dict[str, Any]:
    where = ["--site", str(site.root), "--root", str(node.root), "--platform", "linux/amd64", "--json"]
    assert run(["deploy", verb, *where]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    if found["restart"]:
        node.restart()
    node.settle()
    return found


def status(site: Site, node: Node, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    where = ["--site", str(site.root), "--kubeconfig", str(node.kubeconfig), "--timeout", "240", "--json"]
    code = run(["deploy", "status", *where])
    said = capsys.readouterr()
    return code, json.loads(said.out)["releases"][0], said.err


def test_a_drop_runs_and_its_digests_are_those_that_were_shipped(
    site: Site, node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    made = deploy(site, node, capsys)
    code, release, said = status(site, node, capsys)

    assert code == 0, said
    assert (release["phase"], release["version"]) == ("ready", "1.0.0")
    assert {item["running"] for item in release["containers"]} == {made["images"][APP]}


def test_the_next_drop_is_an_upgrade_and_a_rollback_takes_it_back(
    site: Site, node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(site, node, capsys)
    assert run(["drops", "activate", "--site", str(site.root), "stable/2"]) == 0
    capsys.readouterr()
    deploy(site, node, capsys)
    code, release, said = status(site, node, capsys)
    assert (code, release["version"]) == (0, "1.1.0"), said

    deploy(site, node, capsys, "rollback")
    code, release, said = status(site, node, capsys)

    assert (code, release["version"]) == (0, "1.0.0"), said
    assert {item["image"] for item in release["containers"]} == {APP}


def test_an_image_that_was_swapped_on_the_node_is_found(
    site: Site, node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy(site, node, capsys)
    other = drops_at(tmp_path / "other")
    image = other.image(APP, files(b"swapped"))
    source = StoreBlobs(other.store)
    on_node = Images([other.config()], source).on_node(image, AMD64)
    place = node.root / FOLDER / "somebody-elses.tar"
    part = place.with_suffix(".part")
    with part.open("wb") as stream:
        ImageTar([on_node], source).write(_Sink(stream))
    part.rename(place)
    try:
        node.settle()
        node.recreate_pods(SPACE)
        code, release, said = status(site, node, capsys)
    finally:
        place.unlink()

    assert (code, release["phase"]) == (18, "differs"), said
    assert f"app: {image.root.digest} runs, " in said


class _Sink:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += self._stream.write(data)
