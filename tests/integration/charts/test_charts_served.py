from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import requests

from airlift.connected.sources.charts import ChartSource
from airlift.lock import LockedEntry
from airlift.manifest import Chart
from airlift.site.listing import Listing
from airlift.site.mirrors import charts as mirror
from airlift.site.server import charts as server
from airlift.store import Store
from tests.components import require
from tests.support.catalog import Routes, Shelf, carry, served
from tests.support.chart_servers import helm, nginx
from tests.support.charts import archive, chart
from tests.support.registry import running_registry
from tests.support.sources import settings


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.catalog.close()


def _entry(folder: Path, store: Store, name: str, data: bytes, signed: bytes | None = None) -> LockedEntry:
    (folder / name).write_bytes(data)
    if signed is not None:
        (folder / f"{name}.prov").write_bytes(signed)
    source = ChartSource(settings(folder, environment={"PATH": os.environ["PATH"]}))
    entry = source.resolve(Chart.model_validate({"path": name}), None)
    carry(entry, store, source.fetch)
    return entry


def _publish(shelf: Shelf, *entries: LockedEntry, active: bool = True) -> None:
    listings = [mirror.listing(entry.artifacts[0].artifact, shelf.store) for entry in entries]
    whole = Listing(tuple(n for item in listings for n in item.names), tuple(h for item in listings for h in item.held))
    shelf.publish(whole, active=active)


def test_helms_strict_parser_reads_every_field_that_a_chart_may_have(tmp_path: Path, shelf: Shelf) -> None:
    require("helm")
    more = """dependencies:
  - name: sub
    version: ^1
    repository: https://example.com
    alias: other
    condition: other.on
    tags: [a, b]
    enabled: true
    import-values: [plain, {child: a, parent: b}]
tags: x
condition: y
"""
    new = chart("app", "1.0.0", {"charts/sub-1.0.0.tgz": chart("sub", "1.0.0")}, more=more)
    old = archive(
        {
            "Chart.yaml": "apiVersion: v1\nname: old\nversion: 0.1.0\nengine: gotpl\ntillerVersion: '>=2'\n",
            "requirements.yaml": "dependencies: [{name: sub, version: '*', repository: ''}]",
            "charts/sub/Chart.yaml": "apiVersion: v1\nname: sub\nversion: 0.1.0\n",
        },
        top="old",
    )
    _publish(shelf, *(_entry(tmp_path, shelf.store, f"{n}.tgz", d) for n, d in (("app", new), ("old", old))))
    with served(shelf.catalog, server.routes) as url:
        helm("repo", "add", "strict", f"{url}/charts", "--force-update")
        listed = helm("search", "repo", "strict/")
        assert "strict/app" in listed
        assert "strict/old" in listed
        helm("pull", "old", "--repo", f"{url}/charts", "--version", "0.1.0", "-d", tmp_path)
        assert (tmp_path / "old-0.1.0.tgz").read_bytes() == old


def test_the_index_is_the_same_every_time_and_has_exact_digests_and_relative_links(
    tmp_path: Path, shelf: Shelf
) -> None:
    data = chart("app", "1.0.0")
    _publish(shelf, _entry(tmp_path, shelf.store, "a.tgz", data))
    with served(shelf.catalog, server.routes) as url:
        first = requests.get(f"{url}/charts/index.yaml", timeout=10)
        assert requests.get(f"{url}/charts/index.yaml", timeout=10).content == first.content
        head = requests.head(f"{url}/charts/index.yaml", timeout=10)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(first.content)))
    assert first.headers["Content-Type"] == "application/yaml"
    right = hashlib.sha256(data).hexdigest()
    assert first.json() == {
        "apiVersion": "v1",
        "generated": "1970-01-01T00:00:00Z",
        "entries": {
            "app": [
                {
                    "apiVersion": "v2",
                    "name": "app",
                    "version": "1.0.0",
                    "created": "1970-01-01T00:00:00Z",
                    "digest": right,
                    "urls": [f"{right}/app-1.0.0.tgz"],
                }
            ]
        },
    }


def test_the_repository_works_behind_a_path_prefix(tmp_path: Path, shelf: Shelf) -> None:
    require("helm")
    data = chart("app", "1.0.0")
    _publish(shelf, _entry(tmp_path, shelf.store, "a.tgz", data))
    (tmp_path / "empty").mkdir()
    with served(shelf.catalog, server.routes) as url:
        more = f"location /deep/er/ {{ proxy_pass {url}/; }}"
        with nginx(tmp_path / "empty", tmp_path / "nginx", more) as front:
            helm("pull", "app", "--repo", f"{front}/deep/er/charts", "-d", tmp_path)
    assert (tmp_path / "app-1.0.0.tgz").read_bytes() == data


@pytest.fixture
def image_routes() -> Routes:
    images = pytest.importorskip("airlift.site.server.images")
    return cast("Routes", images.routes)


def test_helm_pulls_local_and_registry_charts_as_oci(tmp_path: Path, shelf: Shelf, image_routes: Routes) -> None:
    require("helm")
    local, remote = chart("app", "1.0.0+b1"), chart("web", "2.0.0")
    here = _entry(tmp_path, shelf.store, "a.tgz", local)
    (tmp_path / "web-2.0.0.tgz").write_bytes(remote)
    with running_registry(tmp_path / "registry") as registry:
        helm("push", tmp_path / "web-2.0.0.tgz", f"oci://{registry.host}/org", "--plain-http")
        source = ChartSource(settings(tmp_path, environment={"PATH": os.environ["PATH"]}))
        entry = source.resolve(Chart.model_validate({"ref": f"oci://{registry.host}/org/web:2.0.0"}), None)
        carry(entry, shelf.store, source.fetch)
    _publish(shelf, here, entry)
    (tmp_path / "out").mkdir()
    with served(shelf.catalog, server.routes, image_routes) as url:
        host = url.removeprefix("http://")
        helm("pull", f"oci://{host}/charts/app", "--version", "1.0.0+b1", "--plain-http", "-d", tmp_path / "out")
        place = f"oci://{host}/{registry.host.replace(':', '_')}/org/web"
        helm("pull", place, "--version", "^2", "--plain-http", "-d", tmp_path / "out")
        helm("pull", "web", "--repo", f"{url}/charts", "-d", tmp_path)
    assert (tmp_path / "out/app-1.0.0+b1.tgz").read_bytes() == local
    assert (tmp_path / "out/web-2.0.0.tgz").read_bytes() == remote
    assert (tmp_path / "web-2.0.0.tgz").read_bytes() == remote
