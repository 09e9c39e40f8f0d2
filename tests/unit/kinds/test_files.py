"""A file's name and manifest."""

from __future__ import annotations

import json

import pytest

from airlift import digest, oci
from airlift.errors import IntegrityError
from airlift.kinds import files
from airlift.kinds.files import NamedFile

FILE = NamedFile("K3s/install_v1.35.3+k3s1.sh", digest.of(b"x"), 1)


def test_a_manifest_has_the_file_as_its_layer_with_its_title() -> None:
    data = files.pack(FILE)
    manifest = oci.parse_manifest(data, subject="f")
    assert manifest.artifact_type == "application/vnd.airlift.file.v1"
    assert manifest.layers[0].annotations == {"org.opencontainers.image.title": FILE.name}
    assert files.file_of(manifest, subject="f") == FILE
    assert FILE.artifact_name == "files/k3s-install-v1-35-3-k3s1-sh:2d711642b726"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("../x", "a relative path in its shortest form"),
        ("a/../b", "a relative path in its shortest form"),
        ("/a", "a relative path in its shortest form"),
        ("a//b", "a relative path in its shortest form"),
        ("a b", "letters, digits, '.', '_', '+', '-' and '/'"),
        ("a\n", "letters, digits, '.', '_', '+', '-' and '/'"),
        ("", "letters, digits, '.', '_', '+', '-' and '/'"),
        ("0" * 64 + "/x", "a name that does not start with a digest"),
    ],
)
def test_an_unsafe_name_is_refused(name: str, expected: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        files.pack(NamedFile(name, digest.of(b""), 0))
    assert caught.value.message == f"file name: expected {expected}, got {repr(name)[:100]}"


def test_another_artifact_is_not_a_file() -> None:
    document = json.loads(files.pack(FILE))
    document["layers"] *= 2
    with pytest.raises(IntegrityError, match=r"expected application/vnd\.airlift\.file\.v1 with one layer"):
        files.file_of(oci.parse_manifest(json.dumps(document).encode(), subject="f"), subject="f")
