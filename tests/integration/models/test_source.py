"""Models from a hub and from a directory, pinned and fetched."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift import digest, lock, oci
from airlift.artifact import Kind
from airlift.connected.sources.models import ModelSource
from airlift.errors import AirliftError, FetchError, IntegrityError, PolicyError, ResolveError
from airlift.kinds import models
from airlift.lock import LockedEntry
from airlift.manifest import ModelWeights
from tests.support.hub import Hub, HubModel, git_oid, lfs_pointer, running_hub
from tests.support.sources import Taken, Talk, settings
from tests.support.weights import good_safetensors

WEIGHTS = good_safetensors(200_000)
FILES = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"# detector\n",
    "config.json": b'{"model_type": "detector"}',
    "model.safetensors": WEIGHTS,
    "onnx/config.json": b"{}",
    "pytorch_model.bin": pickle.dumps({"a": 1}),
}
TOKEN = "hf_secret"


def detector() -> HubModel:
    return HubModel(dict(FILES), lfs={"model.safetensors", "pytorch_model.bin"}, licence="apache-2.0")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub({"org/detector": detector()}) as hub:
        yield hub


def source(hub: Hub, folder: Path, *, cached: bool = True, token: str | None = None) -> ModelSource:
    environment = {"HF_ENDPOINT": hub.url} | ({"HF_TOKEN": token} if token else {})
    return ModelSource(settings(folder, cached=cached, environment=environment))


def wanted(**changes: object) -> ModelWeights:
    value = {"repo": "org/detector", "include": ["*.safetensors", "*.json"], **changes}
    return ModelWeights.model_validate(value)


def encoded(entry: LockedEntry) -> bytes:
    return lock.Lock("n", "stable", {}, ("linux/amd64",), (entry,)).encode()


def test_a_model_is_pinned_to_a_commit_and_large_files_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    entry = source(hub, tmp_path).resolve(wanted(), None)
    commit = hub.models["org/detector"].commit
    item = entry.artifacts[0]
    assert (entry.kind, entry.name, entry.source) == (Kind.MODEL, "org/detector", "huggingface.co")
    assert item.artifact.name == f"models/org/detector:{commit[:12]}"
    assert item.artifact.facts == {
        "id": "org/detector",
        "revision": commit,
        "branch": "main",
        "licence": "apache-2.0",
        "source": "huggingface.co/org/detector",
    }
    assert [blob.origin for blob in item.large] == [
        {"repo": "org/detector", "revision": commit, "path": path}
        for path in ("config.json", "model.safetensors", "onnx/config.json")
    ]
    manifest = oci.parse_manifest((item.small[0].text or "").encode(), subject="m")
    files = {file.path: file for file in models.files_of(manifest, subject="m")}
    assert files["model.safetensors"].digest == digest.of(WEIGHTS)
    assert files["model.safetensors"].git_oid is None
    assert files["config.json"].git_oid == git_oid(FILES["config.json"])
    component = entry.components[0]
    assert component.purl == f"pkg:huggingface/org/detector@{commit}"
    assert (component.type, component.licence, component.digest) == (
        "machine-learning-model",
        "apache-2.0",
        item.artifact.root.digest,
    )
    fetched = [request for request in hub.requests if request[0] == "content"]
    assert [request[4] for request in fetched] == ["bytes=0-4095"]
    assert lock.decode(encoded(entry), subject="lock").entries[0].artifacts == entry.artifacts


def test_a_second_resolve_gives_the_same_bytes_and_nothing_of_the_machine(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = encoded(source(hub, tmp_path).resolve(wanted(), None))
    assert encoded(source(hub, tmp_path / "other", cached=False).resolve(wanted(), None)) == first
    for secret in (str(tmp_path), hub.url, "127.0.0.1"):
        assert secret.encode() not in first


def test_every_file_is_fetched_as_it_was_pinned(hub: Hub, tmp_path: Path) -> None:
    models_source = source(hub, tmp_path, cached=False)
    entry = models_source.resolve(wanted(include=[], exclude=["*.bin"]), None)
    got = {}
    for blob in entry.artifacts[0].large:
        sink = Taken()
        models_source.fetch(entry, blob, sink)
        assert digest.of(sink.data) == blob.digest
        got[blob.origin["path"]] = bytes(sink.data)
    assert got == {path: data for path, data in FILES.items() if path != "pytorch_model.bin"}


def test_small_files_lie_in_the_cache_after_resolve(hub: Hub, tmp_path: Path) -> None:
    source(hub, tmp_path).resolve(wanted(), None)
    cached = {path.name for path in (tmp_path / "cache/blobs/sha256").iterdir()}
    assert cached == {hashlib.sha256(FILES[path]).hexdigest() for path in ("config.json", "onnx/config.json")}


def test_a_cut_transfer_goes_on_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    models_source = source(hub, tmp_path, cached=False)
    entry = models_source.resolve(wanted(include=["*.safetensors"]), None)
    hub.requests.clear()
    hub.cuts = 2
    sink = Taken()
    models_source.fetch(entry, entry.artifacts[0].large[0], sink)
    assert bytes(sink.data) == WEIGHTS
    ranges = [request[4] for request in hub.requests if request[0] == "content"]
    assert len(ranges) == 3
    assert all(item is not None for item in ranges[1:])


def test_a_tree_of_many_pages_is_read_whole(hub: Hub, tmp_path: Path) -> None:
    hub.page = 2
    entry = source(hub, tmp_path).resolve(wanted(include=[], exclude=["*.bin"]), None)
    assert len(entry.artifacts[0].large) == 5


def test_a_next_page_on_another_host_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.page, hub.next_page_host = 2, hub.content_url
    with pytest.raises(IntegrityError, match="expected a next page of the same hub"):
        source(hub, tmp_path, token=TOKEN).resolve(wanted(), None)
    assert not [request for request in hub.requests if request[0] == "content"]


def test_a_pinned_commit_and_a_tag_are_accepted(hub: Hub, tmp_path: Path) -> None:
    commit = hub.models["org/detector"].commit
    hub.models["org/detector"].branches = {"v1.0": commit, "refs/pr/1": commit}
    facts = source(hub, tmp_path).resolve(wanted(revision=commit), None).artifacts[0].artifact.facts
    assert (facts["revision"], facts["branch"]) == (commit, "main")
    for name in ("v1.0", "refs/pr/1"):
        facts = source(hub, tmp_path).resolve(wanted(revision=name), None).artifacts[0].artifact.facts
        assert (facts["revision"], facts["branch"]) == (commit, name)


def test_another_name_and_licence_are_taken_from_the_manifest(hub: Hub, tmp_path: Path) -> None:
    entry = source(hub, tmp_path).resolve(wanted(name="acme/detector", licence="proprietary"), None)
    facts = entry.artifacts[0].artifact.facts
    assert (facts["id"], facts["licence"], facts["source"]) == (
        "acme/detector",
        "proprietary",
        "huggingface.co/org/detector",
    )
    assert entry.artifacts[0].artifact.name.startswith("models/acme/detector:")


def test_another_hub_is_named_in_the_lock_and_never_gets_the_token(hub: Hub, tmp_path: Path) -> None:
    with running_hub({"org/detector": detector()}) as other:
        entry = source(hub, tmp_path, token=TOKEN).resolve(wanted(endpoint=other.url), None)
        host = other.url.partition("://")[2]
        assert entry.source == host
        assert {blob.origin["endpoint"] for blob in entry.artifacts[0].large} == {other.url}
        assert other.requests
        assert all(request[3] is None for request in other.requests)
    assert not hub.requests


def test_the_token_goes_to_the_hub_and_not_to_its_content_host(hub: Hub, tmp_path: Path) -> None:
    hub.models["org/detector"].gated = {TOKEN}
    models_source = source(hub, tmp_path, token=TOKEN)
    entry = models_source.resolve(wanted(), None)
    for blob in entry.artifacts[0].large:
        models_source.fetch(entry, blob, Taken())
    assert {request[3] for request in hub.requests if request[0] == "hub"} == {f"Bearer {TOKEN}"}
    content = [request for request in hub.requests if request[0] == "content"]
    assert content
    assert all(request[3] is None for request in content)
    assert TOKEN.encode() not in encoded(entry)


@pytest.mark.parametrize(
    ("token", "hint"),
    [
        (None, "accept the model's terms on the hub's page and set HF_TOKEN"),
        ("hf_other", "the account of HF_TOKEN has no access; accept the model's terms on the hub's page"),
    ],
)
def test_a_gated_model_says_what_to_do(hub: Hub, tmp_path: Path, token: str | None, hint: str) -> None:
    hub.models["org/detector"].gated = {TOKEN}
    with pytest.raises(FetchError) as caught:
        source(hub, tmp_path, token=token).resolve(wanted(), None)
    assert caught.value.hint == hint
    assert not caught.value.temporary
    assert "hf_" not in str(caught.value)


def test_a_missing_model_and_a_missing_revision_are_told_apart(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match=r"model org/none, revision main: the hub has no such model"):
        source(hub, tmp_path).resolve(wanted(repo="org/none"), None)
    with pytest.raises(ResolveError, match=r"model org/detector, revision v9: the hub has no such revision"):
        source(hub, tmp_path).resolve(wanted(revision="v9"), None)


def test_a_pattern_that_matches_nothing_is_named(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match=r"include pattern '\*\.gguf' matches none of its 6 files"):
        source(hub, tmp_path).resolve(wanted(include=["*.json", "*.gguf"]), None)


def test_an_exclude_pattern_that_matches_nothing_is_said(hub: Hub, tmp_path: Path) -> None:
    models_source = source(hub, tmp_path)
    models_source.resolve(wanted(exclude=["*.h5"]), None)
    talk = models_source._settings.progress
    assert isinstance(talk, Talk)
    assert talk.said == ["model org/detector: exclude pattern '*.h5' matches none of its files"]


def test_a_pickle_is_refused_unless_it_is_named(hub: Hub, tmp_path: Path) -> None:
    request = wanted(include=["*.bin", "config.json"])
    with pytest.raises(PolicyError) as caught:
        source(hub, tmp_path).resolve(request, None)
    assert caught.value.message == (
        "model org/detector: 1 file may run code when loaded\n  pytorch_model.bin: is of a kind that holds a pickle"
    )
    models_source = source(hub, tmp_path)
    entry = models_source.resolve(request.model_copy(update={"unsafe_files": ["pytorch_model.bin"]}), None)
    assert len(entry.artifacts[0].large) == 2
    talk = models_source._settings.progress
    assert isinstance(talk, Talk)
    assert talk.said == [
        "model org/detector: pytorch_model.bin is of a kind that holds a pickle; taken because unsafe_files names it"
    ]


@pytest.mark.parametrize("is_lfs", [True, False])
def test_a_pickle_under_an_innocent_name_is_found_by_its_content(hub: Hub, tmp_path: Path, is_lfs: bool) -> None:
    model = hub.models["org/detector"]
    model.files["weights.dat"] = pickle.dumps([1] * 9000)
    if is_lfs:
        model.lfs.add("weights.dat")
    with pytest.raises(PolicyError, match=r"weights\.dat: starts like a pickle"):
        source(hub, tmp_path).resolve(wanted(include=["*.dat"]), None)


@pytest.mark.parametrize(
    ("served", "message"),
    [
        (lfs_pointer(WEIGHTS), "expected 4096 bytes from 0, got 13"),
        (b"<html>sign in</html>" * 300, "expected a safetensors header within"),
    ],
)
def test_what_the_content_host_sends_instead_is_refused_at_resolve(
    hub: Hub, tmp_path: Path, served: bytes, message: str
) -> None:
    hub.models["org/detector"].served["model.safetensors"] = served
    with pytest.raises(IntegrityError, match=message):
        source(hub, tmp_path).resolve(wanted(), None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lfs_pointer(WEIGHTS), "got a Git LFS pointer to it"),
        (b"", "expected weights, got an empty file"),
        (WEIGHTS[:-1], "bytes by its header"),
        (WEIGHTS + b"\0", "bytes by its header"),
    ],
)
@pytest.mark.parametrize("is_lfs", [True, False])
def test_wrong_weights_are_refused_at_resolve(
    hub: Hub,
    tmp_path: Path,
    data: bytes,
    message: str,
    is_lfs: bool,
) -> None:
    model = hub.models["org/detector"]
    model.files["model.safetensors"] = data
    if not is_lfs:
        model.lfs.clear()
    with pytest.raises(IntegrityError, match=message) as caught:
        source(hub, tmp_path).resolve(wanted(), None)
    assert caught.value.subject == "model org/detector, model.safetensors"


def test_bytes_that_differ_from_the_git_object_are_refused(hub: Hub, tmp_path: Path) -> None:
    data = FILES["config.json"]
    hub.models["org/detector"].served["config.json"] = data[:-1] + b" "
    with pytest.raises(IntegrityError) as caught:
        source(hub, tmp_path).resolve(wanted(), None)
    assert caught.value.subject == "model org/detector, config.json"
    assert caught.value.expected == f"the Git object {git_oid(data)}"


def test_weights_that_were_exchanged_after_the_lock_are_seen_while_they_stream(hub: Hub, tmp_path: Path) -> None:
    models_source = source(hub, tmp_path, cached=False)
    entry = models_source.resolve(wanted(include=["*.safetensors"]), None)
    hub.models["org/detector"].served["model.safetensors"] = bytes(len(WEIGHTS))
    with pytest.raises(IntegrityError, match="a safetensors header that starts with"):
        models_source.fetch(entry, entry.artifacts[0].large[0], Taken())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", "model org/detector, revision main: expected JSON, got b'<html>'"),
        (b"[" * 100_000, f"model org/detector, revision main: expected JSON, got {b'[' * 40!r}"),
        (b"[]", "model org/detector, revision main: expected a commit of 40 hex digits, got None"),
        (b'{"sha": "main"}', "model org/detector, revision main: expected a commit of 40 hex digits, got 'main'"),
    ],
)
def test_an_answer_that_names_no_commit_is_refused(hub: Hub, tmp_path: Path, body: bytes, message: str) -> None:
    hub.answers["/api/models/org/detector/revision/main"] = body
    with pytest.raises(IntegrityError) as caught:
        source(hub, tmp_path).resolve(wanted(), None)
    assert caught.value.message == message


def test_another_commit_than_the_one_that_was_asked_for_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.answers[f"/api/models/org/detector/revision/{'a' * 40}"] = b'{"sha": "%s"}' % (b"b" * 40)
    with pytest.raises(IntegrityError, match=f"expected {'a' * 40}, got {'b' * 40}"):
        source(hub, tmp_path).resolve(wanted(revision="a" * 40), None)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"type": "file", "path": "a.json", "oid": "0"}', "expected a file with a size"),
        ('{"type": "file", "path": "a.json", "oid": "0", "size": -1}', "expected a file with a size"),
        ('{"type": "file", "path": "a.json", "oid": "0", "size": 1e9}', "expected a file with a size"),
        ('{"type": "file", "path": "a.json", "oid": "0", "size": true}', "expected a file with a size"),
        (f'{{"type": "file", "path": "a.json", "oid": "0", "size": {2**60}}}', "expected a file with a size"),
        ('{"type": "file", "path": 1, "oid": "0", "size": 1}', "expected a file with path and oid"),
        ('{"type": "link", "path": "a.json", "oid": "0", "size": 1}', "expected a file with path and oid"),
        (
            '{"type": "file", "path": "a.json", "oid": "0", "size": 1, "lfs": {"oid": "abc", "size": 1}}',
            "expected sha256:<64 lower-case hex digits>",
        ),
        ('"a.json"', "expected a file with a size"),
    ],
)
def test_a_tree_entry_of_another_shape_is_refused(hub: Hub, tmp_path: Path, entry: str, message: str) -> None:
    commit = hub.models["org/detector"].commit
    hub.answers[f"/api/models/org/detector/tree/{commit}"] = f"[{entry}]".encode()
    with pytest.raises(IntegrityError, match=message):
        source(hub, tmp_path).resolve(wanted(), None)


def test_a_tree_that_is_no_list_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.answers[f"/api/models/org/detector/tree/{hub.models['org/detector'].commit}"] = b'{"error": "busy"}'
    with pytest.raises(IntegrityError, match="expected a list of files"):
        source(hub, tmp_path).resolve(wanted(), None)


@pytest.mark.parametrize("path", ["../evil.json", "a/../../evil.json", "/evil.json", "a\\evil.json", "Config.json"])
def test_an_unsafe_or_colliding_name_in_a_tree_is_refused(hub: Hub, tmp_path: Path, path: str) -> None:
    hub.models["org/detector"].files[path] = b"{}"
    with pytest.raises(IntegrityError, match=r"a safe file name|differ in more than case"):
        source(hub, tmp_path).resolve(wanted(), None)


def local(folder: Path) -> Path:
    place = folder / "models/fraud"
    (place / "onnx").mkdir(parents=True)
    for path, data in FILES.items():
        if not path.endswith(".bin"):
            (place / path).write_bytes(data)
    return place


FRAUD = ModelWeights(path="./models/fraud", name="acme/fraud", licence="proprietary")


def test_a_directory_is_a_model_whose_revision_is_its_content(tmp_path: Path) -> None:
    place = local(tmp_path)
    (place / ".git").mkdir()
    (place / ".git/HEAD").write_text("ref: refs/heads/main\n")
    models_source = ModelSource(settings(tmp_path))
    entry = models_source.resolve(FRAUD, None)
    item = entry.artifacts[0]
    revision = digest.hex_of(item.artifact.root.digest)[:40]
    assert item.artifact.facts == {
        "id": "acme/fraud",
        "revision": revision,
        "branch": "main",
        "licence": "proprietary",
        "source": "local",
    }
    assert (entry.name, entry.source) == ("acme/fraud", "local")
    assert entry.components[0].purl == f"pkg:generic/acme/fraud@{revision}"
    assert str(tmp_path).encode() not in encoded(entry)
    got = {}
    for blob in item.large:
        sink = Taken()
        models_source.fetch(entry, blob, sink)
        assert digest.of(sink.data) == blob.digest
        got[blob.origin["path"]] = bytes(sink.data)
    assert got == {path: data for path, data in FILES.items() if path != "pytorch_model.bin"}
    talk = models_source._settings.progress
    assert isinstance(talk, Talk)
    assert talk.said == ["model acme/fraud: .git is left out"]


def test_modes_times_and_order_of_a_directory_leave_no_trace(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    local(first)
    for path in sorted(local(second).rglob("*")):
        path.chmod(0o700)
        os.utime(path, (1, 1))
    assert encoded(ModelSource(settings(first)).resolve(FRAUD, None)) == encoded(
        ModelSource(settings(second)).resolve(FRAUD, None)
    )


def test_a_symbolic_link_in_a_directory_is_refused(tmp_path: Path) -> None:
    (local(tmp_path) / "link.json").symlink_to("/etc/passwd")
    with pytest.raises(ResolveError, match=r"model acme/fraud: 'link\.json' is a symbolic link"):
        ModelSource(settings(tmp_path)).resolve(FRAUD, None)


def test_a_pipe_in_a_directory_is_refused(tmp_path: Path) -> None:
    os.mkfifo(local(tmp_path) / "pipe")
    with pytest.raises(ResolveError, match="model acme/fraud: 'pipe' is neither a file nor a directory"):
        ModelSource(settings(tmp_path)).resolve(FRAUD, None)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match=r"model acme/fraud: \./models/fraud is not a directory"):
        ModelSource(settings(tmp_path)).resolve(FRAUD, None)


def test_a_pickle_or_pointer_in_a_directory_is_refused(tmp_path: Path) -> None:
    place = local(tmp_path)
    (place / "model.pt").write_bytes(b"x")
    with pytest.raises(PolicyError, match=r"model\.pt: is of a kind that holds a pickle"):
        ModelSource(settings(tmp_path)).resolve(FRAUD, None)
    (place / "model.pt").unlink()
    (place / "model.safetensors").write_bytes(lfs_pointer(WEIGHTS))
    with pytest.raises(IntegrityError, match=r"model acme/fraud, model\.safetensors: .* Git LFS pointer"):
        ModelSource(settings(tmp_path)).resolve(FRAUD, None)


def test_a_file_that_changed_after_the_lock_does_not_get_through(tmp_path: Path) -> None:
    place = local(tmp_path)
    models_source = ModelSource(settings(tmp_path))
    entry = models_source.resolve(FRAUD, None)
    (place / "config.json").unlink()
    blob = next(blob for blob in entry.artifacts[0].large if blob.origin["path"] == "config.json")
    with pytest.raises(AirliftError, match="reading"):
        models_source.fetch(entry, blob, Taken())


def test_the_same_content_twice_is_carried_once(hub: Hub, tmp_path: Path) -> None:
    hub.models["org/detector"].files["copy.json"] = FILES["config.json"]
    entry = source(hub, tmp_path).resolve(wanted(include=["*.json"]), None)
    assert [blob.origin["path"] for blob in entry.artifacts[0].large] == ["config.json", "onnx/config.json"]
