"""huggingface_hub, unchanged, against the hub of a site."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

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


def test_a_snapshot_by_branch_and_by_commit_is_the_hubs_own(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    entry, shown = bring(tmp_path, shelf, DETECTOR, upstream)
    shelf.publish(shown)
    commit = entry.artifacts[0].artifact.facts["revision"]
    with served(shelf.catalog, hub_server.routes) as url:
        for number, revision in enumerate((None, "main", commit)):
            folder = snapshot_download(
                "org/detector", revision=revision, endpoint=f"{url}/hf", cache_dir=tmp_path / f"hub{number}"
            )
            assert Path(folder).name == commit
            assert tree_of(folder) == FILES
        folder = snapshot_download(
            "org/detector", endpoint=f"{url}/hf", local_dir=tmp_path / "local", allow_patterns=["onnx/*"]
        )
        assert tree_of(folder) == {"onnx/config.json": b"{}"}
        one = hf_hub_download("org/detector", "config.json", endpoint=f"{url}/hf", cache_dir=tmp_path / "one")
        assert Path(one).read_bytes() == FILES["config.json"]


def test_what_the_client_is_told_about_a_model(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    entry, shown = bring(tmp_path, shelf, DETECTOR, upstream)
    shelf.publish(shown)
    commit = entry.artifacts[0].artifact.facts["revision"]
    with served(shelf.catalog, hub_server.routes) as url:
        api = HfApi(endpoint=f"{url}/hf")
        info = api.model_info("org/detector", files_metadata=True)
        assert (info.id, info.sha, info.gated, info.private) == ("org/detector", commit, False, False)
        assert info.card_data is not None
        assert info.card_data.license == "mit"
        siblings = {item.rfilename: item for item in info.siblings or []}
        assert siblings.keys() == FILES.keys()
        weights = siblings["model.safetensors"]
        assert weights.lfs is not None
        assert (weights.size, weights.lfs.size) == (len(WEIGHTS), len(WEIGHTS))
        assert siblings["config.json"].blob_id == git_oid(FILES["config.json"])
        refs = api.list_repo_refs("org/detector")
        assert [(ref.name, ref.ref, ref.target_commit) for ref in refs.branches] == [
            ("main", "refs/heads/main", commit)
        ]
        assert sorted(api.list_repo_files("org/detector")) == sorted(FILES)
        tree = {item.path: item for item in api.list_repo_tree("org/detector")}
        assert tree.keys() == {"README.md", "config.json", "model.safetensors", "onnx"}
        assert [item.path for item in api.list_repo_tree("org/detector", "onnx")] == ["onnx/config.json"]
        assert [item.path for item in api.get_paths_info("org/detector", ["config.json", "none"])] == ["config.json"]
        assert api.file_exists("org/detector", "config.json")
        assert not api.file_exists("org/detector", "other.json")
        assert api.revision_exists("org/detector", commit)
        assert json.loads(ask(url, "/hf/api/models")[2])[0]["id"] == "org/detector"


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


def test_each_thing_that_is_missing_has_its_own_error(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    shelf.publish(bring(tmp_path, shelf, DETECTOR, upstream)[1])
    with served(shelf.catalog, hub_server.routes) as url:
        given: dict[str, Any] = {"endpoint": f"{url}/hf", "cache_dir": tmp_path / "hub"}
        with pytest.raises(EntryNotFoundError):
            hf_hub_download("org/detector", "none.json", **given)
        with pytest.raises(RevisionNotFoundError):
            hf_hub_download("org/detector", "config.json", revision="v9", **given)
        with pytest.raises(RepositoryNotFoundError):
            hf_hub_download("org/other", "config.json", **given)
        for call in (
            lambda: snapshot_download("org/detector", revision="v9", **given),
            lambda: HfApi(endpoint=f"{url}/hf").model_info("org/detector", revision="0" * 40),
        ):
            with pytest.raises(RevisionNotFoundError):
                call()
        with pytest.raises(RepositoryNotFoundError):
            HfApi(endpoint=f"{url}/hf").model_info("other")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/hf/api/models/org/none", 404, "RepoNotFound"),
        ("/hf/api/models/org/detector/revision/%0dX-Evil:1", 404, "RevisionNotFound"),
        ("/hf/api/models/org/detector/tree/main/none", 404, "EntryNotFound"),
        ("/hf/org/detector/resolve/main/..%2F..%2Fetc%2Fpasswd", 404, "EntryNotFound"),
        ("/hf/org/detector/resolve/main/none", 404, "EntryNotFound"),
        ("/hf/org/detector/resolve/v9/config.json", 404, "RevisionNotFound"),
        ("/hf/org/detector/blob/main/config.json", 404, "RepoNotFound"),
        ("/hf/x", 404, "RepoNotFound"),
    ],
)
def test_a_refusal_is_json_with_an_error_code(
    tmp_path: Path, shelf: Shelf, upstream: Hub, path: str, status: int, code: str
) -> None:
    shelf.publish(bring(tmp_path, shelf, DETECTOR, upstream)[1])
    with served(shelf.catalog, hub_server.routes) as url:
        got, headers, body = ask(url, path)
        assert (got, headers["X-Error-Code"]) == (status, code)
        assert isinstance(json.loads(body)["error"], str)
        assert "X-Evil" not in headers


def test_a_change_is_refused_in_json(shelf: Shelf) -> None:
    with served(shelf.catalog, hub_server.routes) as url:
        status, _, body = ask(url, "/hf/api/models/org/detector/commit/main", method="POST")
        assert (status, json.loads(body)) == (405, {"error": "this hub is a read-only mirror"})


def test_head_and_range_answer_with_the_hubs_headers(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    entry, shown = bring(tmp_path, shelf, DETECTOR, upstream)
    shelf.publish(shown)
    facts = entry.artifacts[0].artifact.facts
    with served(shelf.catalog, hub_server.routes) as url:
        status, headers, body = ask(url, "/hf/org/detector/resolve/main/model.safetensors", method="HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", str(len(WEIGHTS)))
        assert headers["X-Repo-Commit"] == facts["revision"]
        assert headers["X-Linked-Size"] == str(len(WEIGHTS))
        assert len(headers["ETag"]) == 66
        assert headers["ETag"] == headers["X-Linked-Etag"]
        assert "X-Xet-Hash" not in headers
        status, headers, body = ask(
            url, "/hf/org/detector/resolve/main/model.safetensors", headers={"Range": "bytes=10-99"}
        )
        assert (status, headers["Content-Range"]) == (206, f"bytes 10-99/{len(WEIGHTS)}")
        assert body == WEIGHTS[10:100]
        _, headers, body = ask(url, "/hf/org/detector/resolve/main/config.json")
        assert (headers["ETag"], body) == (f'"{git_oid(FILES["config.json"])}"', FILES["config.json"])


def test_a_commit_answers_while_its_drop_is_kept_and_the_branch_moves(
    tmp_path: Path, shelf: Shelf, upstream: Hub
) -> None:
    first_entry, first = bring(tmp_path, shelf, DETECTOR, upstream)
    upstream.models["org/detector"].files["config.json"] = b'{"v": 2}'
    second_entry, second = bring(tmp_path, shelf, DETECTOR, upstream)
    old = first_entry.artifacts[0].artifact.facts["revision"]
    new = second_entry.artifacts[0].artifact.facts["revision"]
    assert old != new
    shelf.publish(first)
    shelf.publish(second, active=False)
    with served(shelf.catalog, hub_server.routes) as url:

        def config(revision: str) -> bytes:
            path = hf_hub_download(
                "org/detector", "config.json", revision=revision, endpoint=f"{url}/hf",
                cache_dir=tmp_path / "hub", force_download=True,
            )  # fmt: skip
            return Path(path).read_bytes()

        assert (config("main"), config(old), config(new)) == (b'{"v": 1}', b'{"v": 1}', b'{"v": 2}')
        shelf.publish(second)
        assert (config("main"), config(old), config(new)) == (b'{"v": 2}', b'{"v": 1}', b'{"v": 2}')


def test_a_drop_that_is_only_kept_shows_no_name(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    entry, shown = bring(tmp_path, shelf, DETECTOR, upstream)
    shelf.publish(shown, active=False)
    commit = entry.artifacts[0].artifact.facts["revision"]
    with served(shelf.catalog, hub_server.routes) as url:
        assert ask(url, "/hf/api/models")[2] == b"[]"
        assert ask(url, "/hf/api/models/org/detector")[0] == 404
        assert ask(url, "/hf/org/detector/resolve/main/config.json")[0] == 404
        assert ask(url, f"/hf/org/detector/resolve/{commit}/config.json")[0] == 200
        assert tree_of(
            snapshot_download("org/detector", revision=commit, endpoint=f"{url}/hf", cache_dir=tmp_path / "hub")
        ) == FILES  # fmt: skip


def test_two_parts_of_one_commit_in_two_kept_drops_add_up(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    for pattern in ("*.json", "*.safetensors"):
        _, shown = bring(tmp_path, shelf, ModelWeights(repo="org/detector", include=[pattern]), upstream)
        shelf.publish(shown, active=False)
    commit = upstream.models["org/detector"].commit
    with served(shelf.catalog, hub_server.routes) as url:
        for path in ("config.json", "model.safetensors"):
            assert ask(url, f"/hf/org/detector/resolve/{commit}/{path}")[0] == 200


def test_branches_of_two_channels_stand_side_by_side(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    model = upstream.models["org/detector"]
    model.branches = {"v1.0": model.commit}
    tagged, shown = bring(tmp_path, shelf, ModelWeights(repo="org/detector", revision="v1.0"), upstream)
    shelf.publish(shown, channel="stable")
    with served(shelf.catalog, hub_server.routes) as url:
        # Alone, a tag is also what a client means that names no revision.
        info = HfApi(endpoint=f"{url}/hf").model_info("org/detector")
        assert info.sha == tagged.artifacts[0].artifact.facts["revision"]
        model.files["config.json"] = b'{"v": 3}'
        newer, shown = bring(tmp_path, shelf, DETECTOR, upstream)
        shelf.publish(shown, channel="edge")
        api = HfApi(endpoint=f"{url}/hf")
        assert api.model_info("org/detector").sha == newer.artifacts[0].artifact.facts["revision"]
        assert api.model_info("org/detector", revision="v1.0").sha == info.sha
        assert {ref.name for ref in api.list_repo_refs("org/detector").branches} == {"main", "v1.0"}


def test_a_branch_with_a_slash_is_asked_for_in_one_part(tmp_path: Path, shelf: Shelf, upstream: Hub) -> None:
    model = upstream.models["org/detector"]
    model.branches = {"refs/pr/1": model.commit}
    shelf.publish(bring(tmp_path, shelf, ModelWeights(repo="org/detector", revision="refs/pr/1"), upstream)[1])
    with served(shelf.catalog, hub_server.routes) as url:
        folder = snapshot_download(
            "org/detector", revision="refs/pr/1", endpoint=f"{url}/hf", cache_dir=tmp_path / "hub"
        )
        assert tree_of(folder) == FILES


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
