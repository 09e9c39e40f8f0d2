from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airlift.oci import Platform
from airlift.site.deploy import k3s
from airlift.site.deploy.blobs import StoreBlobs
from airlift.site.deploy.registries import Endpoint, site_endpoint
from tests.support.drops import AMD64, Drops, drops_at

Planner = Callable[..., k3s.Plan]


@pytest.fixture
def drops(tmp_path: Path) -> Drops:
    return drops_at(tmp_path / "store")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def plan(drops: Drops, root: Path) -> Planner:
    """Plan for the drop as it is at the time of the call."""

    def make(
        given: Drops | None = None, *, platform: Platform = AMD64, endpoint: Endpoint | None = None, at: Path = root
    ) -> k3s.Plan:
        these = given or drops
        return k3s.make_plan(
            [these.config()],
            root=at,
            endpoint=endpoint or site_endpoint("http://10.0.0.1:8080"),
            platform=platform,
            blobs=StoreBlobs(these.store),
            values=these.store.read,
        )

    return make


@pytest.fixture
def deploy(plan: Planner) -> Planner:
    """Plan and write."""

    def run(*args: object, **more: object) -> k3s.Plan:
        made = plan(*args, **more)
        k3s.write(made)
        return made

    return run


def tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a root, with mode and content."""
    files = sorted(item for item in root.rglob("*") if item.is_file())
    return {str(item.relative_to(root)): (item.stat().st_mode & 0o7777, item.read_bytes()) for item in files}
