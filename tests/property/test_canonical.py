from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlift import canonical
from airlift.errors import BundleError

pytestmark = pytest.mark.property

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=15
)


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_one_value_has_one_encoding_and_comes_back(value: Any) -> None:
    data = canonical.encode(value)
    assert canonical.decode(data, limit=len(data), subject="x") == value
    assert canonical.encode(json.loads(data)) == data


@settings(max_examples=150, deadline=None)
@given(VALUES, st.data())
def test_a_changed_byte_is_refused_or_is_another_value(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(canonical.encode(value))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        again = canonical.decode(bytes(encoded), limit=1 << 20, subject="x")
    except BundleError:
        return
    assert json.dumps(again, sort_keys=True) != json.dumps(value, sort_keys=True)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:01e.-tru\\u ', max_size=40).map(str.encode))
def test_bytes_are_canonical_or_refused(data: bytes) -> None:
    try:
        value = canonical.decode(data, limit=1 << 20, subject="x")
    except BundleError:
        return
    assert canonical.encode(value) == data
