from __future__ import annotations

import json
from typing import Any

import pytest

from airlift import artifact, canonical, digest, oci
from airlift.artifact import Artifact, DropConfig, Kind
from airlift.errors import BundleError
from airlift.oci import Descriptor

ROOT = Descriptor(oci.INDEX, digest.of(b"root"), 4)
IMAGE = Artifact(Kind.IMAGE, "docker.io/library/redis:7.4", ROOT)
CHART = Artifact(Kind.CHART, "charts/site:1.0.0", Descriptor(oci.MANIFEST, digest.of(b"chart"), 5), {"images": None})
VALUES = Descriptor("application/yaml", digest.of(b"a: 1"), 4)
CONFIG = DropConfig("vision", "stable", {"a": "b"}, (IMAGE, CHART), ({"chart": "site"},), {"preload": []})


def test_a_config_is_read_back_as_it_was_written() -> None:
    assert artifact.decode_drop_config(CONFIG.encode()) == CONFIG


def test_the_drops_own_artifact_stands_first_in_the_index_and_names_the_rest() -> None:
    layout = artifact.lay_out(CONFIG, [VALUES])
    own, others = artifact.drop_entry(layout.index)
    assert own.digest == digest.of(layout.manifest)
    assert own.artifact_type == "application/vnd.airlift.drop.v1+json"
    assert [(item.digest, dict(item.annotations)) for item in others] == [
        (
            ROOT.digest,
            {
                "org.opencontainers.image.ref.name": "docker.io/library/redis:7.4",
                "io.containerd.image.name": "docker.io/library/redis:7.4",
            },
        ),
        (CHART.root.digest, {"org.opencontainers.image.ref.name": "charts/site:1.0.0"}),
    ]
    manifest = oci.parse_manifest(layout.manifest, subject="x")
    assert manifest.config is not None
    assert (manifest.config.digest, manifest.config.media_type) == (digest.of(layout.config), artifact.DROP_TYPE)
    assert [layer.digest for layer in manifest.layers] == [VALUES.digest]
    assert layout.content_id == digest.of(layout.index)


def test_without_values_the_one_layer_is_the_empty_one() -> None:
    layout = artifact.lay_out(CONFIG, [])
    assert [layer.digest for layer in oci.parse_manifest(layout.manifest, subject="x").layers] == [digest.of(b"{}")]


def test_only_an_image_with_a_tag_gets_containerds_name() -> None:
    pinned = Artifact(Kind.IMAGE, f"docker.io/library/redis@{ROOT.digest}", ROOT)
    layout = artifact.lay_out(DropConfig("x", "stable", {}, (pinned,)), [])
    (entry,) = artifact.drop_entry(layout.index)[1]
    assert dict(entry.annotations) == {"org.opencontainers.image.ref.name": pinned.name}


def test_one_drop_has_one_content_id_for_ever() -> None:
    # A change of the drop's form changes every content-id, and with it docs/bundle-format.md.
    assert artifact.lay_out(CONFIG, [VALUES]).content_id == (
        "sha256:7a499e999a01491bb4a153155471797304e8fcf9bd7a695d7f150a64733cc9f1"
    )


def config(**changes: Any) -> bytes:
    return canonical.encode({**json.loads(CONFIG.encode()), **changes})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{}", "the drop's config: expected exactly the fields name, channel, labels, artifacts, deploy, k3s"),
        (b"[]", "the drop's config: expected exactly the fields name, channel, labels, artifacts, deploy, k3s"),
        (
            config(more=1),
            "the drop's config: expected exactly the fields name, channel, labels, artifacts, deploy, k3s",
        ),
        (
            config(name=1),
            "the drop's config: expected exactly the fields name, channel, labels, artifacts, deploy, k3s",
        ),
        (config(artifacts=[1]), "the drop's config, artifacts[0]: expected exactly the fields kind, name, root, facts"),
        (
            config(artifacts=[{**CHART.to_json(), "name": ""}]),
            "the drop's config, artifacts[0]: expected a name and an object of facts",
        ),
        (
            config(artifacts=[{**CHART.to_json(), "facts": []}]),
            "the drop's config, artifacts[0]: expected a name and an object of facts",
        ),
        (config(artifacts=[{**CHART.to_json(), "kind": "deb"}]), "the drop's config, artifacts[0]: unknown kind 'deb'"),
        (
            CONFIG.encode() + b"\n",
            "the drop's config: not canonical JSON: another encoding of the same value was expected",
        ),
    ],
)
def test_a_config_of_another_shape_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        artifact.decode_drop_config(data)
    assert str(caught.value) == message


def test_an_index_that_does_not_start_with_a_drop_is_refused() -> None:
    empty = canonical.encode({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": []})
    other = canonical.encode({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [ROOT.to_json()]})
    for data in (empty, other):
        with pytest.raises(BundleError) as caught:
            artifact.drop_entry(data)
        assert str(caught.value) == (
            "index.json: expected the drop's own artifact (application/vnd.airlift.drop.v1+json) as the first entry"
        )
