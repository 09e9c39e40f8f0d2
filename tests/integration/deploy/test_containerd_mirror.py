"""A containerd that has nothing but the hosts.toml that K3s makes of our registries.yaml pulls from `airlift serve`."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import grpc
import pytest
import yaml

from airlift.cli.main import run
from airlift.site.clients import client_config
from airlift.site.config import Site
from airlift.site.drops import active_drops
from tests import components
from tests.support.containerd import Containerd, containerd
from tests.support.deployable import activate, make_site
from tests.support.drops import AMD64, ARM64, Drops
from tests.support.folders import SharedFolder
from tests.support.registry import Front, Registry, running_front
from tests.support.serving import serving

PAUSE = "docker.io/airlift/pause:1"
BUSYBOX = "docker.io/library/busybox:1.36"
APP = "registry.example.com:5000/vision/app:2"


def layer(says: bytes) -> dict[str, bytes | str]:
    """A root file system that runs."""
    program = components.require("busybox").read_bytes()
    links = {f"bin/{name}": "busybox" for name in ("sh", "sleep", "cat")}
    return {"bin/": b"", "bin/busybox": program, **links, "says": says}


@pytest.fixture(scope="module")
def site(shared_folder: SharedFolder) -> Site:
    made = make_site(shared_folder("site") / "s", url="http://10.0.0.1:8080")
    drops = Drops(made.store)
    drops.image(PAUSE, layer(b"pause\n"), command=["/bin/sleep", "1000"])
    drops.image(BUSYBOX, layer(b"busybox from the site\n"), platforms=[ARM64, AMD64])
    drops.image(APP, layer(b"app from the site\n"), platforms=None)
    activate(made, drops)
    return made


def shipped(site: Site, name: str) -> str:
    (config,) = active_drops(site)
    return next(item.root.digest for item in config.artifacts if item.name == name)


@pytest.fixture(scope="module")
def front(site: Site) -> Iterator[Front]:
    """`airlift serve` behind something that writes down what containerd asks."""
    with serving(site.root) as url, running_front(Registry(urlsplit(url).netloc, site.root)) as running:
        yield running


@pytest.fixture(scope="module")
def endpoints(site: Site, front: Front, shared_folder: SharedFolder) -> dict[str, str]:
    """The endpoints of the registries.yaml that deploy writes, each at the front in place of 10.0.0.1."""
    root = shared_folder("node") / "root"
    assert run(["deploy", "k3s", "--site", str(site.root), "--root", str(root), "--platform", "linux/amd64"]) == 0
    written = yaml.safe_load((root / "etc/rancher/k3s/registries.yaml").read_text())
    return {host: f"{front.url}{urlsplit(mirror['endpoint'][0]).path}" for host, mirror in written["mirrors"].items()}


@pytest.fixture
def node() -> Iterator[Containerd]:
    """A fresh one for each test: what is on it came in that test."""
    with containerd(pause=PAUSE) as running:
        yield running


def asked_for_pods(front: Front, node: Containerd) -> list[str]:
    """Run a pod of each image, and return what was asked for them."""
    since = len(front.asked)
    with node.cri() as cri:
        for image, says in ((BUSYBOX, "busybox from the site"), (APP, "app from the site")):
            cri.pull(image)
            assert cri.run(image, ["/bin/cat", "/says"]) == (0, says)
    return [f"{item.method} {item.path}" for item in front.asked[since:]]


def test_a_pod_runs_from_the_mirrors_that_deploy_wrote(
    node: Containerd, front: Front, endpoints: dict[str, str]
) -> None:
    for host, endpoint in endpoints.items():
        # K3s: an endpoint with a path other than /v2 becomes a host with override_path.
        node.hosts(host, endpoint, override_path=True)

    requests = asked_for_pods(front, node)

    assert "HEAD /v2/docker.io/library/busybox/manifests/1.36?ns=docker.io" in requests
    assert "HEAD /v2/registry.example.com_5000/vision/app/manifests/2?ns=registry.example.com%3A5000" in requests


def test_a_pod_runs_from_the_plain_endpoint_that_tells_registries_apart_by_ns_alone(
    node: Containerd, front: Front
) -> None:
    for host in ("docker.io", "registry.example.com:5000"):
        node.hosts(host, front.url)

    requests = asked_for_pods(front, node)

    assert "HEAD /v2/library/busybox/manifests/1.36?ns=docker.io" in requests
    assert "HEAD /v2/vision/app/manifests/2?ns=registry.example.com%3A5000" in requests


def test_a_pod_runs_from_what_status_prints_for_containerd(node: Containerd, site: Site, front: Front) -> None:
    text = client_config(site, "containerd").replace(site.config.url, front.url)
    for block in text.split("# /etc/containerd/certs.d/")[1:]:
        name, _, body = block.partition("\n")
        (node.certs / name).parent.mkdir(parents=True)
        (node.certs / name).write_text(body)

    with node.cri() as cri:
        for image, says in ((BUSYBOX, "busybox from the site"), (APP, "app from the site")):
            cri.pull(image)
            assert cri.run(image, ["/bin/cat", "/says"]) == (0, says)


def test_the_running_digest_is_the_index_that_was_shipped(node: Containerd, site: Site, front: Front) -> None:
    node.hosts("docker.io", front.url)

    with node.cri() as cri:
        cri.pull(BUSYBOX)
        status = cri.status(BUSYBOX)

    assert status is not None
    assert list(status.repo_digests) == [f"docker.io/library/busybox@{shipped(site, BUSYBOX)}"]


def test_a_pull_by_the_pinned_digest_works(node: Containerd, site: Site, front: Front) -> None:
    for host in ("docker.io", "registry.example.com:5000"):
        node.hosts(host, front.url)
    pinned = f"registry.example.com:5000/vision/app@{shipped(site, APP)}"

    with node.cri() as cri:
        cri.pull(pinned)
        assert cri.run(pinned, ["/bin/cat", "/says"]) == (0, "app from the site")


def test_an_image_that_the_site_lacks_is_refused_at_once(node: Containerd, front: Front) -> None:
    node.hosts("docker.io", front.url)

    with node.cri() as cri, pytest.raises(grpc.RpcError, match="not found"):
        cri.pull("docker.io/library/absent:1")
