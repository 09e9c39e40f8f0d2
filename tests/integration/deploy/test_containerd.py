"""The tarballs and mirrors that deploy writes, in the containerd that K3s has."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.site.deploy import k3s
from airlift.site.deploy.blobs import StoreBlobs
from airlift.site.deploy.registries import site_endpoint
from airlift.site.deploy.tarball import FOLDER
from tests import components
from tests.support.containerd import Containerd, containerd
from tests.support.drops import AMD64, ARM64, Drops, drops_at
from tests.support.folders import SharedFolder

PAUSE = "docker.io/airlift/pause:1"
BUSYBOX = "docker.io/library/busybox:1.36"
BUSYBOX_TOO = "docker.io/library/busybox:latest"


def layer() -> dict[str, bytes | str]:
    """A root file system that runs."""
    program = components.require("busybox").read_bytes()
    links = {f"bin/{name}": "busybox" for name in ("sh", "echo", "sleep", "cat")}
    return {"bin/": b"", "bin/busybox": program, **links}


@pytest.fixture(scope="module")
def drops(shared_folder: SharedFolder) -> Drops:
    made = drops_at(shared_folder("drops") / "store")
    made.image(PAUSE, layer(), command=["/bin/sleep", "1000"])
    busybox = {**layer(), "says": b"what was shipped\n"}
    made.image(BUSYBOX, busybox, platforms=[ARM64, AMD64])
    made.image(BUSYBOX_TOO, busybox, platforms=[ARM64, AMD64])
    made.preload = [PAUSE, BUSYBOX, BUSYBOX_TOO]
    return made


@pytest.fixture(scope="module")
def root(drops: Drops, shared_folder: SharedFolder) -> Path:
    path = shared_folder("node") / "root"
    k3s.write(
        k3s.make_plan(
            [drops.config()],
            root=path,
            endpoint=site_endpoint("http://127.0.0.1:1"),
            platform=AMD64,
            blobs=StoreBlobs(drops.store),
            values=drops.store.read,
        )
    )
    return path


def test_skopeo_reads_a_tarball_by_the_full_name(root: Path, drops: Drops) -> None:
    skopeo = components.require("skopeo")
    found = {}
    for path in sorted((root / FOLDER).iterdir()):
        for name in (PAUSE, BUSYBOX, BUSYBOX_TOO):
            command = [str(skopeo), "inspect", "--raw", f"oci-archive:{path}:{name}"]
            done = subprocess.run(command, capture_output=True, check=False, timeout=60)
            if done.returncode == 0:
                found[name] = f"sha256:{hashlib.sha256(done.stdout).hexdigest()}"

    assert found == {name: digest_of(drops, name) for name in (PAUSE, BUSYBOX, BUSYBOX_TOO)}


@pytest.fixture(scope="module")
def node(root: Path) -> Iterator[Containerd]:
    with containerd(pause=PAUSE) as running:
        for path in sorted((root / FOLDER).iterdir()):
            running.ctr("images", "import", str(path))
        yield running


def digest_of(drops: Drops, name: str) -> str:
    return next(item.root.digest for item in drops.artifacts if item.name == name)


def test_every_tag_of_a_tarball_is_visible_under_its_full_name_with_the_shipped_index(
    node: Containerd, drops: Drops
) -> None:
    lines = [line.split() for line in node.ctr("images", "ls").splitlines()[1:]]
    found = {line[0]: line[2] for line in lines if not line[0].startswith("sha256:")}

    assert found == {name: digest_of(drops, name) for name in (PAUSE, BUSYBOX, BUSYBOX_TOO)}


def test_cri_knows_all_tags_as_one_image(node: Containerd) -> None:
    with node.cri() as cri:
        status = cri.status(BUSYBOX)

    assert status is not None
    assert sorted(status.repo_tags) == [BUSYBOX, BUSYBOX_TOO]


def test_a_pod_runs_from_the_tarball_without_any_registry(node: Containerd) -> None:
    with node.cri() as cri:
        assert cri.run(BUSYBOX, ["/bin/cat", "/says"]) == (0, "what was shipped")


def test_importing_again_changes_nothing(node: Containerd, root: Path) -> None:
    before = node.ctr("images", "ls")

    for path in sorted((root / FOLDER).iterdir()):
        node.ctr("images", "import", str(path))

    assert node.ctr("images", "ls") == before


def test_the_content_in_containerd_is_what_the_store_has(node: Containerd, drops: Drops) -> None:
    listed = {line.split()[0] for line in node.ctr("content", "ls").splitlines()[1:]}

    ours = {f"sha256:{path.name}" for path in (drops.store.root / "blobs/sha256").iterdir()}
    shipped = listed & ours
    assert digest_of(drops, BUSYBOX) in shipped
    for digest in shipped:
        data = (node.home / "root/io.containerd.content.v1.content/blobs/sha256" / digest[7:]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest[7:]
