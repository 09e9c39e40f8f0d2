"""huggingface_hub, unchanged, against the hub of a site."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, HfFileSystem, snapshot_download

from airlift.connected.sources.models import ModelSource
from airlift.errors import BundleError
from airlift.lock import LockedEntry
from airlift.manifest import ModelWeights
from airlift.site.listing import Listing
from airlift.site.mirrors.models import listing
from airlift.site.server import models as hub_server
from tests.support.catalog import Shelf, carry, served
from tests.support.hub import Hub, HubModel, git_oid, running_hub
from tests.support.sources import settings
from tests.support.weights import good_safetensors

WEIGHTS = good_safetensors(300_000)
FILES = {"README.md": b"# d\n", "config.json": b'{"v": 1}', "model.safetensors": WEIGHTS, "onnx/config.json": b"{}"}


@pytest.fixture
def upstream() -> Iterator[Hub]:
    with running_hub({"org/detector": HubModel(dict(FILES), lfs={"model.safetensors"}, licence="mit")}) as hub:
        yield hub


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.catalog.close()


def bring(
    folder: Path, shelf: Shelf, request: ModelWeights, upstream: Hub | None = None
) -> tuple[LockedEntry, Listing]:
    """Resolve a model and put it into the shelf's store."""
    source = ModelSource(settings(folder, environment={"HF_ENDPOINT": upstream.url} if upstream else {}))
    entry = source.resolve(request, None)
    carry(entry, shelf.store, source.fetch)
    return entry, listing(entry.artifacts[0].artifact, shelf.store)


DETECTOR = ModelWeights(repo="org/detector")


def tree_of(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def ask(
    url: str, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    split = urlsplit(url)
    connection = http.client.HTTPConnection(split.hostname or "", split.port)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_a_model_of_a_hub_is_served_with_its_commit(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    entry, shown = bring(tmp_path, shelf, DETECTOR, upstream)
    shelf.publish(shown)
    commit = upstream.models["org/detector"].commit
    assert entry.artifacts[0].artifact.facts["revision"] == commit
    with served(shelf.catalog, hub_server.routes) as url:
        folder = snapshot_download("org/detector", endpoint=f"{url}/hf", cache_dir=tmp_path / "hub")
        assert Path(folder).name == commit
        assert tree_of(folder) == FILES
        config = HfApi(endpoint=f"{url}/hf").get_paths_info("org/detector", ["config.json", "none"])
        assert [(item.path, item.blob_id) for item in config] == [("config.json", git_oid(FILES["config.json"]))]  # type: ignore[union-attr]


def test_the_clients_file_system_reads_a_model(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    shelf.publish(bring(tmp_path, shelf, DETECTOR, upstream)[1])
    with served(shelf.catalog, hub_server.routes) as url:
        system = HfFileSystem(endpoint=f"{url}/hf", skip_instance_cache=True)
        assert sorted(map(str, system.ls("org/detector", detail=False))) == [
            f"org/detector/{name}" for name in ("README.md", "config.json", "model.safetensors", "onnx")
        ]
        assert system.info("org/detector/onnx/config.json")["size"] == 2
        with system.open("org/detector/model.safetensors", block_size=50_000) as stream:
            stream.seek(250_000)
            assert stream.read(100) == WEIGHTS[250_000:250_100]


def test_a_path_that_leaves_the_model_is_no_entry(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    shelf.publish(bring(tmp_path, shelf, DETECTOR, upstream)[1])
    with served(shelf.catalog, hub_server.routes) as url:
        status, headers, _ = ask(url, "/hf/org/detector/resolve/main/..%2F..%2Fetc%2Fpasswd")
        assert (status, headers["X-Error-Code"]) == (404, "EntryNotFound")


def test_a_change_is_refused_in_json(shelf: Shelf) -> None:
    with served(shelf.catalog, hub_server.routes) as url:
        status, _, body = ask(url, "/hf/api/models/org/detector/commit/main", method="POST")
        assert (status, json.loads(body)) == (405, {"error": "this hub is a read-only mirror"})


def test_a_local_model_is_served_like_any_other(tmp_path: Path, shelf: Shelf) -> None:
    for path, data in FILES.items():
        place = tmp_path / "models/fraud" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    (tmp_path / "models/fraud/empty.txt").write_bytes(b"")
    entry, shown = bring(tmp_path, shelf, ModelWeights(path="models/fraud", name="fraud"))
    shelf.publish(shown)
    with served(shelf.catalog, hub_server.routes) as url:
        folder = snapshot_download("fraud", endpoint=f"{url}/hf", cache_dir=tmp_path / "hub")
        assert tree_of(folder) == {**FILES, "empty.txt": b""}
        assert Path(folder).name == entry.artifacts[0].artifact.facts["revision"]


def test_a_listing_needs_id_revision_and_branch(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    entry, _ = bring(tmp_path, shelf, DETECTOR, upstream)
    artifact = entry.artifacts[0].artifact
    broken = type(artifact)(artifact.kind, artifact.name, artifact.root, {"id": "org/detector", "revision": ""})
    with pytest.raises(BundleError, match="names no id, revision and branch of the model"):
        listing(broken, shelf.store)
