"""What every place has to do that a site shows its models in: the embedded hub, and nginx with the static tree."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from airlift.errors import IntegrityError
from tests.support.hub import git_oid
from tests.support.mirrors import BACKENDS, Mirror
from tests.support.site_bundles import Cargo, ship
from tests.support.weights import good_safetensors

MODEL = "org/detector"
WEIGHTS = good_safetensors(300_000)
LFS = {"model.safetensors", "onnx/big model+1.bin"}
FILES = {
    "README.md": b"# d\n",
    "config.json": b'{"v": 1}',
    "empty.txt": b"",
    "model.safetensors": WEIGHTS,
    "onnx/config.json": b"{}",
    "onnx/big model+1.bin": b"\0" * 70_000,
}


@pytest.fixture(params=list(BACKENDS))
def mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mirror]:
    with BACKENDS[request.param](tmp_path) as made:
        yield made


def drop(files: dict[str, bytes] | None = None, *, channel: str = "stable", name: str = MODEL, **more: Any) -> Cargo:
    made = Cargo(channel)
    made.model(name, files or FILES, lfs=LFS, **more)
    return made


def commit_of(cargo: Cargo) -> str:
    return str(cargo.artifacts[0].facts["revision"])


def hub(mirror: Mirror) -> str:
    return f"{mirror.url}/hf"


def tree_of(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def snapshot(mirror: Mirror, cache: str, revision: str | None = None, model: str = MODEL, **more: Any) -> Path:
    folder = snapshot_download(model, revision=revision, endpoint=hub(mirror), cache_dir=mirror.folder / cache, **more)
    return Path(folder)


def ask(mirror: Mirror, path: str, method: str = "GET", **headers: str) -> requests.Response:
    return requests.request(method, f"{hub(mirror)}{path}", headers=headers, allow_redirects=False, timeout=30)


def resolve(
    mirror: Mirror, file: str, revision: str = "main", method: str = "GET", **headers: str
) -> requests.Response:
    return ask(mirror, f"/{MODEL}/resolve/{revision}/{file}", method, **headers)


def test_a_snapshot_by_branch_and_by_commit_has_all_files(mirror: Mirror) -> None:
    cargo = drop()
    mirror.take(cargo)
    for number, revision in enumerate((None, "main", commit_of(cargo))):
        folder = snapshot(mirror, f"cache{number}", revision)
        assert folder.name == commit_of(cargo)
        assert tree_of(folder) == FILES
    part = snapshot(mirror, "part", local_dir=mirror.folder / "local", allow_patterns=["onnx/*"])
    assert tree_of(part) == {path: data for path, data in FILES.items() if path.startswith("onnx/")}
    for path, data in FILES.items():
        one = hf_hub_download(MODEL, path, endpoint=hub(mirror), cache_dir=mirror.folder / "one")
        assert Path(one).read_bytes() == data


def test_a_client_that_is_told_the_endpoint_only_by_its_environment_sees_the_drop_that_is_active(
    mirror: Mirror,
) -> None:
    script = "import sys, huggingface_hub as h; print(h.hf_hub_download('org/detector', 'config.json'))"
    # One cache for all: a branch that moved is asked for again.
    home = {"HF_ENDPOINT": hub(mirror), "HF_HOME": str(mirror.folder / "hf"), "HOME": str(mirror.folder)}
    environment = {"PATH": os.environ["PATH"], "HF_HUB_DISABLE_TELEMETRY": "1", **home}

    def seen() -> bytes:
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return Path(done.stdout.split()[-1]).read_bytes()

    mirror.take(drop({"config.json": b"first"}))
    assert seen() == b"first"
    mirror.take(drop({"config.json": b"later"}))
    assert seen() == b"later"
    mirror.roll_back()
    assert seen() == b"first"


def test_what_the_client_is_told_about_a_model(mirror: Mirror) -> None:
    cargo = drop()
    mirror.take(cargo)
    api = HfApi(endpoint=hub(mirror))
    info = api.model_info(MODEL, files_metadata=True)
    assert (info.id, info.sha, info.gated, info.private) == (MODEL, commit_of(cargo), False, False)
    assert info.card_data is not None
    assert info.card_data.license == "mit"
    siblings = {item.rfilename: item for item in info.siblings or []}
    assert siblings.keys() == FILES.keys()
    weights = siblings["model.safetensors"]
    assert weights.lfs is not None
    assert (weights.size, weights.lfs.size) == (len(WEIGHTS), len(WEIGHTS))
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert siblings["config.json"].blob_id == git_oid(FILES["config.json"])
    refs = api.list_repo_refs(MODEL)
    assert [(ref.name, ref.ref, ref.target_commit) for ref in refs.branches] == [
        ("main", "refs/heads/main", commit_of(cargo))
    ]
    assert sorted(api.list_repo_files(MODEL)) == sorted(FILES)
    tree = {item.path for item in api.list_repo_tree(MODEL)}
    assert tree == {"README.md", "config.json", "empty.txt", "model.safetensors", "onnx"}
    assert [item.path for item in api.list_repo_tree(MODEL, "onnx")] == ["onnx/big model+1.bin", "onnx/config.json"]
    assert {item.path for item in api.list_repo_tree(MODEL, recursive=True)} == set(FILES)
    assert api.file_exists(MODEL, "config.json")
    assert not api.file_exists(MODEL, "other.json")
    assert api.revision_exists(MODEL, commit_of(cargo))
    assert not api.revision_exists(MODEL, "v9")
    assert [item["id"] for item in ask(mirror, "/api/models").json()] == [MODEL]


def test_each_thing_that_is_missing_has_its_own_error(mirror: Mirror) -> None:
    mirror.take(drop())
    given: dict[str, Any] = {"endpoint": hub(mirror), "cache_dir": mirror.folder / "cache"}
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(MODEL, "none.json", **given)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(MODEL, "config.json", revision="v9", **given)
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download("org/other", "config.json", **given)
    for call in (
        lambda: snapshot_download(MODEL, revision="v9", **given),
        lambda: HfApi(endpoint=hub(mirror)).model_info(MODEL, revision="0" * 40),
    ):
        with pytest.raises(RevisionNotFoundError):
            call()
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub(mirror)).model_info("other")


def test_a_refusal_is_json_with_an_error_code(mirror: Mirror) -> None:
    cargo = drop()
    mirror.take(cargo)
    for path, code in (
        ("/api/models/org/none", "RepoNotFound"),
        (f"/api/models/{MODEL}/revision/%0dX-Evil:1", "RevisionNotFound"),
        (f"/api/models/{MODEL}/tree/main/none", "EntryNotFound"),
        (f"/{MODEL}/resolve/main/none", "EntryNotFound"),
        (f"/{MODEL}/resolve/main/onnx", "EntryNotFound"),
        (f"/{MODEL}/resolve/v9/config.json", "RevisionNotFound"),
        (f"/{MODEL}/blob/main/config.json", "RepoNotFound"),
        ("/org/other/resolve/main/config.json", "RepoNotFound"),
        ("/x", "RepoNotFound"),
    ):
        answer = ask(mirror, path)
        assert (answer.status_code, answer.headers.get("X-Error-Code")) == (404, code), path
        assert isinstance(answer.json()["error"], str)
        assert "X-Evil" not in answer.headers
        # By that a client remembers that a commit does not have a file.
        commit = commit_of(cargo) if code == "EntryNotFound" else None
        assert answer.headers.get("X-Repo-Commit") == commit, path


def test_head_and_range_answer_with_the_hubs_headers(mirror: Mirror) -> None:
    cargo = drop()
    mirror.take(cargo)
    head = resolve(mirror, "model.safetensors", method="HEAD")
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(WEIGHTS)))
    etag = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert head.headers["X-Repo-Commit"] == commit_of(cargo)
    assert (head.headers["ETag"], head.headers["X-Linked-Etag"]) == (etag, etag)
    assert head.headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert "X-Xet-Hash" not in head.headers
    part = resolve(mirror, "model.safetensors", Range="bytes=10-99")
    assert (part.status_code, part.headers["Content-Range"]) == (206, f"bytes 10-99/{len(WEIGHTS)}")
    assert part.content == WEIGHTS[10:100]
    assert part.headers["X-Repo-Commit"] == commit_of(cargo)
    small = resolve(mirror, "config.json")
    assert (small.headers["ETag"], small.content) == (f'"{git_oid(FILES["config.json"])}"', FILES["config.json"])
    assert "X-Linked-Etag" not in small.headers


def test_half_a_file_is_gone_on_with_only_while_it_is_the_same_file(mirror: Mirror) -> None:
    mirror.take(drop({"model.safetensors": WEIGHTS}))
    etag = resolve(mirror, "model.safetensors", method="HEAD").headers["ETag"]
    rest = {"Range": "bytes=1000-", "If-Range": etag}
    same = resolve(mirror, "model.safetensors", **rest)
    assert (same.status_code, same.content) == (206, WEIGHTS[1000:])
    other = good_safetensors(300_000, fill=b"\x02")
    mirror.take(drop({"model.safetensors": other}))
    moved = resolve(mirror, "model.safetensors", **rest)
    assert (moved.status_code, moved.content) == (200, other)


def test_a_branch_moves_with_the_drop_and_a_commit_stays(mirror: Mirror) -> None:
    first, second = drop({**FILES, "config.json": b"first"}), drop({**FILES, "config.json": b"other"})
    old, new = commit_of(first), commit_of(second)
    assert old != new

    def seen(revision: str) -> tuple[str | None, bytes]:
        """What HEAD says and what is downloaded, of a file with the same length in both."""
        path = hf_hub_download(
            MODEL,
            "config.json",
            revision=revision,
            endpoint=hub(mirror),
            cache_dir=mirror.folder / "c",
            force_download=True,
        )
        return resolve(mirror, "config.json", revision, "HEAD").headers.get("X-Repo-Commit"), Path(path).read_bytes()

    mirror.take(first)
    assert seen("main") == (old, b"first")
    assert resolve(mirror, "config.json", new).status_code == 404
    for active, change in (
        (new, lambda: mirror.take(second)),
        (old, mirror.roll_back),
        (new, lambda: mirror.activate("stable/2")),
    ):
        change()
        assert seen("main") == (active, {old: b"first", new: b"other"}[active])
        assert snapshot(mirror, "cache").name == active
        assert HfApi(endpoint=hub(mirror)).model_info(MODEL).sha == active
        assert (seen(old), seen(new)) == ((old, b"first"), (new, b"other"))
        assert tree_of(snapshot(mirror, f"pinned at {active}", old)) == {**FILES, "config.json": b"first"}


def test_a_drop_that_is_only_kept_shows_no_name(mirror: Mirror) -> None:
    cargo = drop()
    mirror.take(Cargo())
    mirror.take(cargo)
    mirror.roll_back()
    assert ask(mirror, "/api/models").json() == []
    assert ask(mirror, f"/api/models/{MODEL}").status_code == 404
    assert resolve(mirror, "config.json").status_code == 404
    assert resolve(mirror, "config.json", commit_of(cargo)).status_code == 200
    assert tree_of(snapshot(mirror, "cache", commit_of(cargo))) == FILES


def test_two_parts_of_one_commit_in_two_kept_drops_add_up(mirror: Mirror) -> None:
    commit = "5" * 40
    for path in ("config.json", "model.safetensors"):
        mirror.take(drop({path: FILES[path]}, commit=commit))
    mirror.take(Cargo())
    for path in ("config.json", "model.safetensors"):
        assert resolve(mirror, path, commit).content == FILES[path]
    mirror.activate("stable/1")
    # The branch is what the active drop has of it.
    assert resolve(mirror, "config.json").status_code == 200
    assert resolve(mirror, "model.safetensors").status_code == 404


def test_branches_of_two_channels_stand_side_by_side(mirror: Mirror) -> None:
    tagged, newer = drop(branch="v1.0"), drop({"config.json": b"3"}, channel="edge")
    mirror.take(tagged)
    api = HfApi(endpoint=hub(mirror))
    # Alone, a tag is also what a client means that names no revision.
    assert api.model_info(MODEL).sha == commit_of(tagged)
    assert snapshot(mirror, "cache").name == commit_of(tagged)
    mirror.take(newer)
    assert api.model_info(MODEL).sha == commit_of(newer)
    assert api.model_info(MODEL, revision="v1.0").sha == commit_of(tagged)
    assert {ref.name for ref in api.list_repo_refs(MODEL).branches} == {"main", "v1.0"}
    assert resolve(mirror, "config.json").content == b"3"
    assert resolve(mirror, "config.json", "v1.0").content == FILES["config.json"]


def test_a_branch_with_a_slash_is_asked_for_in_one_part(mirror: Mirror) -> None:
    mirror.take(drop(branch="refs/pr/1"))
    assert tree_of(snapshot(mirror, "cache", "refs/pr/1")) == FILES


def test_a_model_without_an_organisation_is_served_like_any_other(mirror: Mirror) -> None:
    cargo = drop(name="fraud")
    mirror.take(cargo)
    folder = snapshot(mirror, "cache", model="fraud")
    assert (folder.name, tree_of(folder)) == (commit_of(cargo), FILES)


def test_a_pruned_drops_commit_is_gone_and_a_kept_ones_stays(mirror: Mirror) -> None:
    drops = [drop({"config.json": b"%d" % number}) for number in (1, 2, 3)]
    for cargo in drops:
        mirror.take(cargo)
    assert mirror.prune(keep=2) == 1
    gone, kept, active = (resolve(mirror, "config.json", commit_of(cargo)) for cargo in drops)
    assert (gone.status_code, gone.headers["X-Error-Code"]) == (404, "RevisionNotFound")
    assert (kept.content, active.content) == (b"2", b"3")


def test_nothing_is_seen_of_a_bundle_that_turns_out_wrong(mirror: Mirror) -> None:
    mirror.take(drop({"config.json": b"right"}))
    wrong = drop({"config.json": b"wrong", "model.safetensors": b"\1" * 10_000_000})
    bundle = ship(wrong, mirror.bundle(2), sequence=2)
    data = bytearray(bundle.read_bytes())
    data[-2 * 1024 * 1024] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(IntegrityError):
        mirror.import_again(bundle)
    assert resolve(mirror, "config.json").content == b"right"
    assert resolve(mirror, "config.json", commit_of(wrong)).status_code == 404
    assert json.loads(ask(mirror, f"/api/models/{MODEL}/refs").content)["branches"][0]["targetCommit"] != commit_of(
        wrong
    )
