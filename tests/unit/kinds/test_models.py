"""A model's paths, patterns and ModelPack documents."""

from __future__ import annotations

import hashlib
import json

import pytest
from huggingface_hub.utils._paths import filter_repo_objects

from airlift import digest, oci
from airlift.errors import IntegrityError, PolicyError, ResolveError
from airlift.kinds import models
from airlift.kinds.models import ModelFile

PATHS = [
    ".gitattributes",
    "README.md",
    "config.json",
    "model.safetensors",
    "onnx/config.json",
    "onnx/model.onnx",
    "pytorch_model.bin",
]


def a_file(path: str, data: bytes = b"x", *, git_oid: str | None = None) -> ModelFile:
    return ModelFile(path, digest.of(data), len(data), git_oid)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../x", "a path that leaves its directory or is not in its shortest form"),
        ("a/../../x", "a path that leaves its directory or is not in its shortest form"),
        ("a//b", "a path that leaves its directory or is not in its shortest form"),
        ("./a", "a path that leaves its directory or is not in its shortest form"),
        ("a/", "a path that leaves its directory or is not in its shortest form"),
        ("/etc/passwd", "an absolute path"),
        ("C:x", "an absolute path"),
        ("a\\b", "a backslash or control character"),
        ("a\nb", "a backslash or control character"),
        ("a\x00b", "a backslash or control character"),
        ("a\u202eb", "a backslash or control character"),
        ("a\ud800b", "a backslash or control character"),
        ("", "not of 1 to 1024 characters"),
        ("a" * 1025, "not of 1 to 1024 characters"),
    ],
)
def test_an_unsafe_path_is_refused(path: str, why: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        models.check_paths(["ok", path], subject="model a/b")
    assert caught.value.message == f"model a/b: expected a safe file name, got {f'{path!r}: {why}'[:300]}"


@pytest.mark.parametrize(
    ("first", "second"), [("A.json", "a.json"), ("a", "a"), ("stra\u00dfe", "STRASSE"), ("\u00e9", "e\u0301")]
)
def test_names_that_collide_on_some_disk_are_refused(first: str, second: str) -> None:
    with pytest.raises(IntegrityError, match="expected file names that differ in more than case"):
        models.check_paths([first, second], subject="model a/b")


def test_a_name_cannot_be_file_and_directory() -> None:
    with pytest.raises(IntegrityError, match="expected a file or a directory, got 'A' as both"):
        models.check_paths(["A", "a/b"], subject="model a/b")


@pytest.mark.parametrize(
    ("include", "exclude"),
    [
        ([], []),
        (["*.json"], []),
        (["onnx/"], []),
        (["*.safetensors", "*.json"], ["onnx/*"]),
        ([], ["*.bin", "onnx/"]),
        (["?onfig.json"], []),
        (["[cm]*"], []),
        (["CONFIG.JSON", "*.md"], []),
    ],
)
def test_patterns_mean_what_huggingface_hub_means(include: list[str], exclude: list[str]) -> None:
    expected = list(
        filter_repo_objects(PATHS, allow_patterns=include or None, ignore_patterns=exclude or None),
    )
    matching = [item for item in include if any(models.matches(path, item) for path in PATHS)]
    assert models.select(PATHS, include=matching, exclude=exclude, unsafe=[], subject="m") == sorted(expected)


def test_a_pattern_that_matches_nothing_is_named() -> None:
    with pytest.raises(ResolveError) as caught:
        models.select(PATHS, include=["*.json", "*.safetensor"], exclude=[], unsafe=[], subject="model a/b")
    assert caught.value.message == "model a/b: include pattern '*.safetensor' matches none of its 7 files"
    assert caught.value.hint == f"its files are {', '.join(PATHS)}"
    with pytest.raises(ResolveError, match=r"model a/b: unsafe_files pattern 'x\.pt' matches none of its 7 files"):
        models.select(PATHS, include=[], exclude=[], unsafe=["x.pt"], subject="model a/b")


def test_an_empty_selection_is_refused() -> None:
    with pytest.raises(ResolveError, match="model a/b: no files are left of 7 after include and exclude"):
        models.select(PATHS, include=["*.json"], exclude=["*"], unsafe=[], subject="model a/b")


def test_files_that_run_code_are_refused_and_listed() -> None:
    dangers = [("a.pkl", "is a pickle"), ("x/b.py", "is code"), ("c.pt", "is a pickle")]
    models.refuse_dangerous(dangers, allowed=["*.pkl", "x/", "c.pt"], subject="model a/b")
    with pytest.raises(PolicyError) as caught:
        models.refuse_dangerous(dangers, allowed=["c.pt"], subject="model a/b")
    assert caught.value.message == (
        "model a/b: 2 files may run code when loaded\n  a.pkl: is a pickle\n  x/b.py: is code"
    )
    assert caught.value.hint is not None
    assert "unsafe_files" in caught.value.hint


def test_the_manifest_is_a_model_pack_with_one_raw_layer_per_file() -> None:
    files = [a_file(path, path.encode(), git_oid="0" * 40 if path.endswith("json") else None) for path in PATHS]
    packed = models.pack("org/m", reversed(files), revision="a" * 40, licence="mit", source="https://hub.example/org/m")
    assert packed == models.pack("org/m", files, revision="a" * 40, licence="mit", source="https://hub.example/org/m")
    config = json.loads(packed.config)
    assert config["descriptor"] == {
        "licenses": ["mit"],
        "name": "org/m",
        "revision": "a" * 40,
        "sourceURL": "https://hub.example/org/m",
    }
    assert config["modelfs"] == {"type": "layers", "diffIds": [item.digest for item in files]}
    manifest = oci.parse_manifest(packed.manifest, subject="m")
    assert manifest.artifact_type == packed.root.artifact_type == "application/vnd.cncf.model.manifest.v1+json"
    assert [
        (layer.annotations["org.cncf.model.filepath"], layer.media_type.split(".v1")[0]) for layer in manifest.layers
    ] == [
        (".gitattributes", "application/vnd.cncf.model.doc"),
        ("README.md", "application/vnd.cncf.model.doc"),
        ("config.json", "application/vnd.cncf.model.weight.config"),
        ("model.safetensors", "application/vnd.cncf.model.weight"),
        ("onnx/config.json", "application/vnd.cncf.model.weight.config"),
        ("onnx/model.onnx", "application/vnd.cncf.model.weight"),
        ("pytorch_model.bin", "application/vnd.cncf.model.weight"),
    ]
    assert models.files_of(manifest, subject="m") == tuple(files)


def test_a_local_revision_comes_from_the_manifest() -> None:
    packed = models.pack("acme/fraud", [a_file("a")])
    assert packed.revision == hashlib.sha256(packed.manifest).hexdigest()[:40]
    assert "revision" not in json.loads(packed.config)["descriptor"]


def test_a_manifest_of_another_type_or_with_an_unsafe_path_is_refused() -> None:
    document = json.loads(models.pack("a/b", [a_file("a")]).manifest)
    document["layers"][0]["annotations"]["org.cncf.model.filepath"] = "../a"
    with pytest.raises(IntegrityError, match="expected a safe file name"):
        models.files_of(oci.parse_manifest(json.dumps(document).encode(), subject="m"), subject="m")
    del document["artifactType"]
    with pytest.raises(IntegrityError, match=r"expected application/vnd\.cncf\.model\.manifest"):
        models.files_of(oci.parse_manifest(json.dumps(document).encode(), subject="m"), subject="m")


def test_a_model_of_too_many_files_is_refused() -> None:
    with pytest.raises(IntegrityError, match="expected files that a manifest of 4194304 bytes can list"):
        models.pack("a/b", [a_file(f"{number:05d}") for number in range(30_000)])


def test_the_git_object_id_is_gits() -> None:
    blob = models.git_blob(6)
    blob.update(b"hello\n")
    assert blob.hexdigest() == "ce013625030ba8dba906f756967f9e9ca394464a"
