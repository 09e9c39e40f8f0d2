from __future__ import annotations

import json
from typing import Any

import pytest

from airlift import limits, oci
from airlift.errors import IntegrityError

DIGEST = "sha256:" + "a" * 64
LAYER = {"mediaType": oci.LAYER_GZIP, "digest": DIGEST, "size": 5}
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": oci.MANIFEST,
    "config": {**LAYER, "mediaType": oci.CONFIG},
    "layers": [LAYER],
}
INDEX = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [{**LAYER, "mediaType": oci.MANIFEST}]}


def parse(value: Any, **more: Any) -> oci.Manifest:
    return oci.parse_manifest(json.dumps(value).encode(), subject="x", **more)


def test_a_manifest_is_read_and_its_bytes_are_kept() -> None:
    data = json.dumps(MANIFEST, indent=3).encode()
    made = oci.parse_manifest(data, subject="x")
    assert made.data == data
    assert made.descriptor == oci.describe(data, oci.MANIFEST)
    assert not made.is_index
    assert made.config is not None
    assert made.config.media_type == oci.CONFIG
    assert [layer.to_json() for layer in made.layers] == [LAYER]
    assert (made.manifests, made.subject, made.artifact_type, made.annotations) == ((), None, None, {})


def test_an_index_is_read_with_platforms_subject_and_annotations() -> None:
    entry = {
        **LAYER,
        "mediaType": oci.MANIFEST,
        "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
        "annotations": {"a": "b"},
        "artifactType": "application/x",
    }
    made = parse(
        {**INDEX, "manifests": [entry], "subject": LAYER, "artifactType": "application/y", "annotations": {"c": "d"}}
    )
    assert made.is_index
    assert made.config is None
    assert made.manifests[0].to_json() == entry
    assert str(made.manifests[0].platform) == "linux/arm/v7"
    assert made.subject is not None
    assert (made.subject.digest, made.artifact_type, made.annotations) == (DIGEST, "application/y", {"c": "d"})


@pytest.mark.parametrize(
    ("value", "announced", "kind"),
    [
        ({key: item for key, item in MANIFEST.items() if key != "mediaType"}, None, oci.MANIFEST),
        ({key: item for key, item in INDEX.items() if key != "mediaType"}, None, oci.INDEX),
        ({key: item for key, item in MANIFEST.items() if key != "mediaType"}, oci.DOCKER_MANIFEST, oci.DOCKER_MANIFEST),
        ({key: item for key, item in MANIFEST.items() if key != "mediaType"}, "text/plain", oci.MANIFEST),
        ({**MANIFEST, "mediaType": oci.DOCKER_MANIFEST}, oci.INDEX, oci.DOCKER_MANIFEST),
    ],
)
def test_the_body_decides_its_type_then_the_server_then_the_shape(value: Any, announced: str | None, kind: str) -> None:
    assert parse(value, media_type=announced).media_type == kind


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "x: expected a manifest of schemaVersion 2, got []"),
        ({"schemaVersion": 1}, "x: expected a manifest of schemaVersion 2, got {'schemaVersion': 1}"),
        ({**MANIFEST, "mediaType": "a/b"}, "x: expected an image manifest or index, got 'a/b'"),
        (
            {**MANIFEST, "manifests": []},
            f"x: expected only what belongs into {oci.MANIFEST}, got 'layers and manifests'",
        ),
        ({**INDEX, "layers": []}, f"x: expected only what belongs into {oci.INDEX}, got 'layers and manifests'"),
        ({"schemaVersion": 2, "layers": []}, "x: expected a config, got None"),
        ({**MANIFEST, "config": 5}, "x, config: expected a descriptor, got 5"),
        ({**MANIFEST, "layers": 5}, "x, layers: expected a list of at most 200000, got 5"),
        (
            {**MANIFEST, "layers": [{**LAYER, "size": -1}]},
            f"x, layers[0]: expected a size from 0 to {limits.BLOB}, got -1",
        ),
        (
            {**MANIFEST, "layers": [{**LAYER, "size": True}]},
            f"x, layers[0]: expected a size from 0 to {limits.BLOB}, got True",
        ),
        (
            {**MANIFEST, "layers": [{**LAYER, "size": 1e3}]},
            f"x, layers[0]: expected a size from 0 to {limits.BLOB}, got 1000.0",
        ),
        ({**MANIFEST, "layers": [{**LAYER, "mediaType": ""}]}, "x, layers[0]: expected a media type, got ''"),
        (
            {**MANIFEST, "layers": [{**LAYER, "digest": "sha256:../x"}]},
            "x, layers[0], digest: expected sha256:<64 lower-case hex digits>, got 'sha256:../x'",
        ),
        ({**MANIFEST, "annotations": {"a": 1}}, "x: expected annotations from text to text, got {'a': 1}"),
        ({**MANIFEST, "artifactType": 1}, "x: expected an artifactType, got 1"),
        ({**INDEX, "manifests": [{**LAYER, "platform": "linux"}]}, "x, manifests[0]: expected a platform, got 'linux'"),
        (
            {**INDEX, "manifests": [{**LAYER, "platform": {"os": 1}}]},
            "x, manifests[0]: expected a platform, got {'os': 1}",
        ),
    ],
)
def test_what_has_not_that_shape_is_refused(value: Any, message: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse(value)
    assert str(caught.value) == message


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^x: expected a manifest in JSON, got "):
        oci.parse_manifest(data, subject="x")


def test_size_is_bounded() -> None:
    with pytest.raises(IntegrityError, match=r"^x: expected at most 10 bytes, got 11 bytes$"):
        oci.parse_manifest(b"x" * 11, subject="x", limit=10)


@pytest.mark.parametrize(
    ("text", "wanted", "answer"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/arm64", False),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm/v7", "linux/arm", True),
        ("linux/arm", "linux/arm/v7", False),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_a_platform_answers_a_wanted_one(text: str, wanted: str, answer: bool) -> None:
    assert oci.parse_platform(text).matches(oci.parse_platform(wanted)) is answer


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/ämd64"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as linux/amd64"):
        oci.parse_platform(text)
