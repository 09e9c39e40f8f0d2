"""Every file that deploy renders, byte for byte; AIRLIFT_WRITE_GOLDEN=1 writes them anew."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
import yaml

from airlift.site.deploy import k3s, settings
from airlift.site.deploy.files import Measure
from airlift.site.deploy.prechecks import Role
from airlift.site.deploy.registries import Endpoint
from airlift.site.deploy.settings import Wish
from tests.support.drops import Drops

GOLDEN = Path(__file__).parent / "golden"


def compare(name: str, data: bytes) -> None:
    if os.environ.get("AIRLIFT_WRITE_GOLDEN"):
        (GOLDEN / name).write_bytes(data)
    assert data == (GOLDEN / name).read_bytes()


def content(plan: k3s.Plan, path: str) -> bytes:
    (item,) = [item for item in plan.files if str(item.path).endswith(path)]
    found = bytearray()
    item.write(Measure(found.extend))
    return bytes(found)


@pytest.mark.parametrize(
    ("name", "wish"),
    [
        ("config-server.yaml", Wish()),
        ("config-first-of-several.yaml", Wish(cluster_init=True, node_ip="10.0.0.1")),
        ("config-joining-server.yaml", Wish(Role.SERVER, "https://10.0.0.1:6443", "token")),
        ("config-agent.yaml", Wish(Role.AGENT, "https://10.0.0.1:6443", "token")),
    ],
)
def test_config_yaml(tmp_path: Path, name: str, wish: Wish) -> None:
    (item,) = [item for item in settings.plan(tmp_path, wish, route=False) if item.path == settings.CONFIG]
    assert item.text is not None

    compare(name, item.text.encode())
    assert yaml.safe_load(item.text) == settings.content(wish)


def test_the_token_to_join_with(tmp_path: Path) -> None:
    wish = Wish(Role.AGENT, "https://10.0.0.1:6443", "K10abc::server:s3cret")
    (item,) = [item for item in settings.plan(tmp_path, wish, route=False) if item.path == settings.TOKEN]
    found = bytearray()
    item.write(Measure(found.extend))

    compare("airlift-token", bytes(found))
    assert (item.mode, item.text is None or "s3cret" not in item.text) == (0o600, True)


def test_the_unit_that_makes_a_route(tmp_path: Path) -> None:
    first = settings.plan(tmp_path, Wish(), route=True)[0]

    compare("airlift-default-route.service", str(first.text).encode())


def test_registries_yaml_with_certificates_and_a_login(drops: Drops, plan) -> None:
    drops.image("docker.io/library/redis:7.4")
    drops.image("registry.example.com:5000/vision/app:1")
    path = PurePosixPath("etc/rancher/k3s/airlift-ca-0123.pem")
    endpoint = Endpoint("https://harbor.example.com/v2/mirror", path, b"certificates\n", "robot$airlift", "s3cret")

    made = plan(endpoint=endpoint)

    compare("registries.yaml", content(made, "registries.yaml"))
    compare("airlift-ca.pem", content(made, ".pem"))


def test_a_helm_chart_with_merged_values(drops: Drops, plan) -> None:
    drops.image("docker.io/library/redis:7.4")
    drops.chart("site", "1.2.3+build", ["docker.io/library/redis:7.4"])
    drops.release("site", namespace="vision", release="web", one=b"a: 1\nb: {c: '1:30'}\n", two=b"b: {d: [1, 2]}\n")

    compare("helmchart.yaml", content(plan(), "airlift-web.yaml"))
