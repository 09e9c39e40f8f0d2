"""Drops on a node: deployed, compared, upgraded, taken back, swapped. See tests/support/node.py for which node."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from airlift import digest
from airlift.site.deploy.tarball import FOLDER
from tests import components
from tests.support.deployable import activate, make_site
from tests.support.drops import AMD64, Drops, drops_at
from tests.support.folders import SharedFolder
from tests.support.node import Node
from tests.support.places import Places, helm_package, package
from tests.support.python_image import VARIABLES, python_root
from tests.support.servers import free_port
from tests.support.serving import serving
from tests.support.tarballs import write_tarball

EXAMPLES = components.ROOT / "appliance" / "models"
MODEL = {"config.json": b'{"model_type": "fraud"}', "weights/part.safetensors": b"w" * 5000}


@pytest.fixture(scope="module")
def places(node: Node, shared_folder: SharedFolder) -> Places:
    """A site with three drops of one release: 1.0.0, 1.1.0, and 1.1.0 with another value."""
    folder = shared_folder("places")
    listen = f"{node.address}:{free_port()}"
    made = Places(node, make_site(folder / "s", url=f"http://{listen}"), listen, folder)
    charts = {version: package(folder, version) for version in ("1.0.0", "1.1.0")}
    for name, version, tag, note in (
        ("first", "1.0.0", 1, "a"),
        ("second", "1.1.0", 2, "a"),
        ("note", "1.1.0", 2, "b"),
    ):
        drops = made.begin()
        for image in ("app", "side"):
            drops.image(f"{made.image(image)}:{tag}", made.files(f"{image} {tag}"))
        drops.preload.append(f"{made.image('app')}:{tag}")
        made.charts[version] = drops.chart("app", version, None, archive=charts[version])
        drops.release("app", namespace=node.namespace, release=node.namespace, v=made.values(tag, note))
        made.import_as(name, drops)
    return made


@pytest.fixture
def _served(places: Places) -> Iterator[None]:
    with places.serving():
        yield


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{components.search_path()}{os.pathsep}/usr/bin")


@pytest.mark.usefixtures("_served")
def test_a_drop_runs_and_its_digests_are_those_that_were_shipped(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.activate("first")
    made = places.deploy(capsys)
    code, release, said = places.status(capsys)

    assert code == 0, said
    assert (release["phase"], release["version"]) == ("ready", "1.0.0")
    pins = {name: made["images"][f"{places.image(name)}:1"] for name in ("app", "side")}
    assert {item["container"]: item["running"] for item in release["containers"]} == pins
    for name in pins:
        says = [f"{name} 1 of {places.node.namespace}"]
        places.prints("app", name, says.__eq__)


@pytest.mark.usefixtures("_served")
def test_the_next_drop_is_an_upgrade_and_a_rollback_takes_it_back(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    places.activate("first")
    places.deploy(capsys)
    places.activate("second")
    places.deploy(capsys)
    code, release, said = places.status(capsys)
    assert (code, release["version"]) == (0, "1.1.0"), said
    places.prints("app", "side", [f"side 2 of {places.node.namespace}"].__eq__)

    places.deploy(capsys, "rollback")
    code, release, said = places.status(capsys)

    assert (code, release["version"]) == (0, "1.0.0"), said
    assert {item["image"] for item in release["containers"]} == {f"{places.image(name)}:1" for name in ("app", "side")}


@pytest.mark.usefixtures("_served")
def test_a_drop_that_changes_a_value_only_is_waited_for(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    places.activate("second")
    places.deploy(capsys)
    code, before, said = places.status(capsys)
    assert code == 0, said
    places.activate("note")

    code, release, said = places.status(capsys, seconds=0)
    assert (code, release["phase"]) == (18, "outdated"), said
    assert "has other values: note" in said

    places.deploy(capsys)
    code, release, said = places.status(capsys)
    assert (code, release["phase"], release["version"]) == (0, "ready", "1.1.0"), said
    assert release["revision"] > before["revision"]


@pytest.mark.usefixtures("_served")
def test_a_drop_without_values_does_not_run_with_those_of_the_drop_before(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    defaults = {name: f"{places.image(name)}:1" for name in ("app", "side")}
    drops = places_drops(places, "side", 1)
    drops.image(defaults["app"], places.files("app 1"))
    drops.chart("app", "1.2.0", None, archive=package(places.folder, "1.2.0", **defaults))
    drops.release("app", namespace=places.node.namespace, release=places.node.namespace)
    places.import_as("bare", drops)
    places.activate("note")
    places.deploy(capsys)
    code, before, said = places.status(capsys)
    assert code == 0, said

    places.activate("bare")
    places.deploy(capsys)
    code, release, said = places.status(capsys)

    assert (code, release["phase"], release["version"]) == (0, "ready", "1.2.0"), said
    assert release["revision"] == before["revision"] + 1
    assert {item["image"] for item in release["containers"]} == set(defaults.values())


@pytest.mark.usefixtures("_served")
def test_a_tag_with_other_content_needs_what_is_said(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    """Chart and values stay, so nothing is rolled out; the node has the tag, so a new pod alone is not enough."""
    if not places.node.can_pull:
        pytest.skip("a kubeconfig gives no way to pull on a node")
    drops = places.begin()
    for name in ("app", "side"):
        drops.image(f"{places.image(name)}:1", places.files(f"{name} 1, mended"))
    drops.artifacts.append(places.charts["1.0.0"])
    drops.release("app", namespace=places.node.namespace, release=places.node.namespace, v=places.values(1, "a"))
    places.activate("first")
    places.deploy(capsys)
    code, before, said = places.status(capsys)
    assert code == 0, said

    places.import_as("mended", drops)
    places.deploy(capsys)
    code, release, said = places.status(capsys)
    assert (code, release["phase"], release["revision"]) == (18, "differs", before["revision"]), said
    places.node.recreate_pods()
    code, _, said = places.status(capsys)
    assert (code, f"k3s crictl pull {places.image('app')}:1" in said) == (18, True), said
    for wanted in ("mended", "first"):
        places.activate(wanted)
        places.node.pull(f"{places.image('app')}:1")
        places.node.recreate_pods()
        assert places.status(capsys)[0] == 0


@pytest.mark.usefixtures("_served")
def test_an_image_that_was_swapped_on_the_node_is_found(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places.activate("first")
    places.deploy(capsys)
    other = drops_at(tmp_path / "other")
    image = other.image(f"{places.image('app')}:1", places.files("swapped"))
    put_tarball(places, "swapped", other)
    try:
        code, release, said = places.recreated("differs", capsys)
    finally:
        put_tarball(places, "whole", places_drops(places, "app", 1))
        again, _, said_again = places.recreated("ready", capsys)

    assert (code, release["phase"]) == (18, "differs"), said
    assert f"app: {image.root.digest} runs, " in said
    assert again == 0, said_again


def places_drops(places: Places, name: str, tag: int) -> Drops:
    drops = Drops(places.site.store)
    drops.image(f"{places.image(name)}:{tag}", places.files(f"{name} {tag}"))
    return drops


def put_tarball(places: Places, name: str, drops: Drops) -> None:
    """Put an image on the node as somebody else would."""
    (artifact,) = drops.artifacts
    write_tarball(places.node.root / FOLDER / f"{name}-{places.node.namespace}.tar", drops, artifact)


def test_an_image_that_was_swapped_in_the_registry_behind_our_back_is_found(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same name answers with other content at the same place, and the pod is made again."""
    places.activate("first")
    stranger = make_site(tmp_path / "stranger", url=f"http://{places.listen}")
    drops = Drops(stranger.store)
    swapped = drops.image(f"{places.image('side')}:1", places.files("swapped in the registry"))
    activate(stranger, drops)
    with places.serving():
        places.deploy(capsys)
        code, _, said = places.status(capsys)
        assert code == 0, said
    with serving(stranger.root, listen=places.listen):
        code, release, said = places.recreated("differs", capsys)
    with places.serving():
        again, _, said_again = places.recreated("ready", capsys)

    assert (code, release["phase"]) == (18, "differs"), said
    assert f"side: {swapped.root.digest} runs, " in said
    assert again == 0, said_again


@pytest.mark.usefixtures("_served")
def test_a_model_reaches_a_pod_by_the_hub_of_the_site(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    inference = f"{places.image('inference')}:1"
    drops = places.begin()
    drops.image(inference, python_root("huggingface_hub"), platforms=[AMD64], Env=VARIABLES)
    drops.model("acme/fraud", MODEL)
    values = {"site": places.site.config.url, "image": inference, "model": "acme/fraud", "revision": "main"}
    release = deploy_example(places, drops, "hf-endpoint", values, capsys)

    snapshot = f"/models/hub/models--acme--fraud/snapshots/{'a' * 40}"
    places.prints(release["release"], "inference", lambda said: snapshot in said)


@pytest.mark.usefixtures("_served")
def test_a_model_reaches_a_pod_by_an_init_container(places: Places, capsys: pytest.CaptureFixture[str]) -> None:
    busybox = f"{places.image('busybox')}:1"
    files = [{"path": path, "sha256": digest.hex_of(digest.of(data))} for path, data in MODEL.items()]
    values = {"site": places.site.config.url, "image": busybox, "fetch": busybox, "files": files}
    drops = places.begin()
    drops.image(busybox, places.files("busybox"))
    drops.model("acme/fraud", MODEL)
    release = deploy_example(places, drops, "init-container", values, capsys)

    assert {item["container"] for item in release["containers"]} == {"model", "inference"}
    places.prints(release["release"], "model", [f"{path}: OK" for path in MODEL].__eq__)
    places.prints(release["release"], "inference", lambda said: "weights" in " ".join(said))


@pytest.mark.usefixtures("_served")
def test_a_model_reaches_a_pod_by_an_image_that_is_its_volume(
    places: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    busybox = f"{places.image('busybox')}:2"
    drops = places.begin()
    drops.image(busybox, places.files("busybox"))
    folders: dict[str, bytes | str] = {"weights/": b"", "run": places.node.namespace.encode()}
    model = drops.image(f"{places.image('model')}:1", {**folders, **MODEL})
    values = {"image": busybox, "model": f"{places.image('model')}@{model.root.digest}"}
    release = deploy_example(places, drops, "image-volume", values, capsys)

    running = {item["container"]: item["running"] for item in release["containers"]}
    assert running["volume models"] == model.root.digest
    places.prints(release["release"], "inference", lambda said: "part.safetensors" in " ".join(said))


def deploy_example(
    places: Places, drops: Drops, name: str, values: Mapping[str, Any], capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    archive = helm_package(EXAMPLES / name, places.folder, f"{name}-1.0.0.tgz")
    drops.chart(name, "1.0.0", None, archive=archive)
    release = f"{places.node.namespace}-{name}"
    drops.release(name, namespace=places.node.namespace, release=release, v=json.dumps(values).encode())
    places.import_as(name, drops)
    places.deploy(capsys)
    code, found, said = places.status(capsys)
    assert code == 0, said
    return found
