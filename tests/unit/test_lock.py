from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from airlift import artifact, canonical, digest, lock, oci
from airlift.artifact import Artifact, Kind
from airlift.errors import ResolveError
from airlift.lock import Component, Lock, LockedArtifact, LockedBlob, LockedEntry

LAYER = LockedBlob(digest.of(b"layer"), 5, oci.LAYER, origin={"repository": "library/redis"})
SHARED = LockedBlob(digest.of(b"shared"), 6, oci.LAYER)


def image(name: str, *layers: LockedBlob) -> LockedArtifact:
    config = lock.made(canonical.encode({"name": name}), oci.CONFIG)
    manifest = lock.made(
        canonical.encode(
            {
                "schemaVersion": 2,
                "mediaType": oci.MANIFEST,
                "config": config.descriptor.to_json(),
                "layers": [layer.descriptor.to_json() for layer in layers],
            }
        ),
        oci.MANIFEST,
    )
    return LockedArtifact(Artifact(Kind.IMAGE, name, manifest.descriptor), (manifest, config), layers)


ONE = image("docker.io/library/redis:7", LAYER, SHARED)
TWO = image("docker.io/library/valkey:8", SHARED)
VALUES = LockedBlob(digest.of(b"a: 1"), 4, "application/yaml", origin={"path": "values/site.yaml"})


def entry(item: LockedArtifact) -> LockedEntry:
    name = item.artifact.name
    component = Component(
        f"pkg:oci/{name}", "container", name, "7", item.artifact.root.digest, "BSD-3-Clause", ("pkg:a/b",)
    )
    return LockedEntry(Kind.IMAGE, name, {"ref": name}, "docker.io", (item,), (component,))


LOCK = Lock(
    "vision",
    "stable",
    {"residency.region": "eu"},
    ("linux/amd64",),
    (entry(ONE), entry(TWO)),
    ({"chart": "site", "namespace": "vision"},),
    (VALUES,),
    {"preload": ["docker.io/library/redis:7"]},
)


def test_a_lock_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "drop.lock.json"
    path.write_bytes(LOCK.encode())
    assert lock.load(path) == LOCK
    assert lock.load(path).encode() == LOCK.encode()


def test_a_lock_is_canonical_and_carries_the_digest_of_its_body() -> None:
    value = json.loads(LOCK.encode())
    assert sorted(value) == ["body", "digest"]
    assert value["digest"] == digest.of(canonical.encode(value["body"]))
    assert value["body"]["format"] == "airlift.lock/v1"


def test_blobs_come_once_small_ones_first_and_the_drops_own_before_all() -> None:
    layout = LOCK.layout()
    assert [blob.digest for blob in LOCK.blobs()] == [
        digest.of(layout.manifest),
        digest.of(layout.config),
        *(blob.digest for blob in ONE.small),
        *(blob.digest for blob in TWO.small),
        VALUES.digest,
        LAYER.digest,
        SHARED.digest,
    ]


def test_without_values_the_drop_brings_the_empty_blob() -> None:
    bare = Lock("x", "stable", {}, (), (entry(ONE),))
    assert digest.of(b"{}") in [blob.digest for blob in bare.blobs()]


def test_an_artifact_that_two_entries_bring_is_there_once() -> None:
    double = Lock("x", "stable", {}, (), (entry(ONE), entry(ONE)))
    assert [item.artifact.name for item in double.artifacts()] == ["docker.io/library/redis:7"]


def test_the_first_entry_that_carries_a_blob_fetches_it() -> None:
    assert LOCK.entry_of()[SHARED.digest].name == "docker.io/library/redis:7"


def test_the_index_names_every_artifact() -> None:
    _, others = artifact.drop_entry(LOCK.layout().index)
    assert [item.annotations[oci.REF_NAME] for item in others] == [ONE.artifact.name, TWO.artifact.name]


HINT = "run airlift resolve again; a lock is not edited by hand"


def refused(data: bytes) -> str:
    with pytest.raises(ResolveError) as caught:
        lock.decode(data, subject="d.json")
    assert caught.value.hint == HINT
    return str(caught.value)


def signed(body: dict[str, Any]) -> bytes:
    return canonical.encode({"body": body, "digest": digest.of(canonical.encode(body))})


def test_an_edit_by_hand_is_noticed() -> None:
    data = LOCK.encode()
    assert refused(data.replace(b'"stable"', b'"latest"')) == "d.json: the lock was changed after it was resolved"
    assert refused(data + b"\n") == (
        "d.json: not a lock: d.json: not canonical JSON: another encoding of the same value was expected"
    )


def test_another_format_is_said() -> None:
    body = {**json.loads(LOCK.encode())["body"], "format": "airlift.lock/v2"}
    assert refused(signed(body)) == "d.json: lock format 'airlift.lock/v2', expected 'airlift.lock/v1'"


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'"x"', b'{"body":{},"digest":"x"}', signed({"format": "airlift.lock/v1"})],
)
def test_what_is_no_lock_is_said(data: bytes) -> None:
    assert refused(data).startswith("d.json: ")


def change(**changes: Any) -> bytes:
    return signed({**json.loads(LOCK.encode())["body"], **changes})


def test_a_lock_that_is_right_by_its_digest_and_wrong_inside_is_refused() -> None:
    blob = {"digest": LAYER.digest, "size": 5, "mediaType": "a/b"}
    assert refused(change(name=5)) == "d.json: not a lock: expected text, got 5"
    assert refused(change(k3s=None)) == "d.json: not a lock: expected an object, got None"
    assert refused(change(platforms="linux/amd64")) == "d.json: not a lock: expected a list, got 'linux/amd64'"
    assert refused(change(entries=[{}])) == "d.json: not a lock: 'kind' is missing"
    assert refused(change(values=[{**blob, "size": -1}])).startswith(
        "d.json: not a lock: a blob: expected a size from 0"
    )
    assert refused(change(values=[{**blob, "text": "other"}])) == (
        f"d.json: not a lock: a blob's text: expected {LAYER.digest}, got {digest.of(b'other')}"
    )
    (first, *_) = json.loads(LOCK.encode())["body"]["entries"]
    assert refused(change(entries=[{**first, "kind": "deb"}])) == ("d.json: not a lock: 'deb' is not a valid Kind")


def test_many_blobs_take_no_time_that_a_person_notices() -> None:
    layers = tuple(LockedBlob(digest.of(str(number).encode()), number, oci.LAYER) for number in range(20_000))
    big = LockedArtifact(ONE.artifact, ONE.small, layers)
    began = time.process_time()
    assert len(Lock("x", "stable", {}, (), (entry(big),)).blobs()) == 20_000 + 5
    # Comparing each with each takes minutes.
    assert time.process_time() - began < 10
