from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlift import oci
from airlift.errors import IntegrityError

pytestmark = pytest.mark.property

SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=6)
    | st.sampled_from([2, oci.INDEX, oci.MANIFEST, "sha256:" + "0" * 64, "linux"])
)  # fmt: skip
KEYS = st.sampled_from(
    [
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "subject",
        "artifactType",
        "annotations",
        "digest",
        "size",
        "platform",
        "os",
        "architecture",
        "variant",
    ]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=15
)
DESCRIPTORS = st.fixed_dictionaries(
    {
        "mediaType": st.sampled_from([oci.MANIFEST, oci.LAYER]),
        "digest": st.just("sha256:" + "0" * 64),
        "size": st.integers(0, 2**40),
    },
    optional={
        "annotations": st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
        "artifactType": st.text(min_size=1, max_size=4),
    },
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=8))
def test_any_json_is_a_manifest_or_an_integrity_error(value: dict[str, Any]) -> None:
    data = json.dumps({"schemaVersion": 2, **value}).encode()
    try:
        made = oci.parse_manifest(data, subject="x")
    except IntegrityError:
        return
    assert made.data == data
    assert made.is_index == (made.config is None)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_manifest_or_an_integrity_error(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        oci.parse_manifest(data, subject="x")


@settings(max_examples=100, deadline=None)
@given(DESCRIPTORS)
def test_a_descriptor_is_read_back_as_it_was_written(value: dict[str, Any]) -> None:
    parsed = oci.parse_descriptor(value, subject="x")
    assert oci.parse_descriptor(parsed.to_json(), subject="x") == parsed
