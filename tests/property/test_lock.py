from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlift import canonical, digest, lock, oci
from airlift.artifact import Artifact, Kind
from airlift.errors import ResolveError
from airlift.lock import Component, Lock, LockedArtifact, LockedBlob, LockedEntry

pytestmark = pytest.mark.property

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
BLOBS = st.builds(
    lambda data, media_type, origin: LockedBlob(digest.of(data), len(data), media_type, None, origin),
    st.binary(max_size=4),
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=2),
)
MADE = st.builds(
    lambda value: lock.made(canonical.encode(value), oci.MANIFEST), st.dictionaries(TEXT, TEXT, max_size=2)
)
ARTIFACTS = st.builds(
    lambda kind, name, small, large, facts: LockedArtifact(
        Artifact(kind, name, small[0].descriptor, facts), tuple(small), tuple(large)
    ),
    st.sampled_from(Kind),
    TEXT,
    st.lists(MADE, min_size=1, max_size=3),
    st.lists(BLOBS, max_size=3),
    st.dictionaries(TEXT, TEXT | st.integers(0, 9), max_size=2),
)
COMPONENTS = st.builds(
    Component, TEXT, TEXT, TEXT, TEXT, st.none() | st.binary(max_size=2).map(digest.of), st.none() | TEXT
)
ENTRIES = st.builds(
    lambda kind, name, request, source, artifacts, components: LockedEntry(
        kind, name, request, source, tuple(artifacts), tuple(components)
    ),
    st.sampled_from(Kind),
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=2),
    TEXT,
    st.lists(ARTIFACTS, max_size=2),
    st.lists(COMPONENTS, max_size=2),
)
LOCKS = st.builds(
    lambda name, labels, entries, values: Lock(
        name, "stable", labels, ("linux/amd64",), tuple(entries), (), tuple(values)
    ),
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=2),
    st.lists(ENTRIES, max_size=3),
    st.lists(BLOBS, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(LOCKS)
def test_a_lock_is_read_back_and_says_the_same_drop(made: Lock) -> None:
    again = lock.decode(made.encode(), subject="x")
    assert again == made
    assert again.encode() == made.encode()
    assert again.layout() == made.layout()
    digests = [blob.digest for blob in made.blobs()]
    assert len(digests) == len(set(digests))


@settings(max_examples=60, deadline=None)
@given(LOCKS, st.data())
def test_a_changed_byte_is_noticed(made: Lock, data: st.DataObject) -> None:
    encoded = bytearray(made.encode())
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ResolveError):
        lock.decode(bytes(encoded), subject="x")


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for key, item in items:
        found += [(value, key), *places(item)]
    return found


@settings(max_examples=150, deadline=None)
@given(LOCKS, st.data())
def test_a_lock_with_a_wrong_value_and_a_right_digest_is_a_lock_or_a_resolve_error(
    made: Lock, data: st.DataObject
) -> None:
    body = copy.deepcopy(json.loads(made.encode())["body"])
    container, key = data.draw(st.sampled_from(places(body)))
    if data.draw(st.booleans()):
        container[key] = data.draw(st.none() | st.integers(-1, 5) | TEXT | st.just([]) | st.just({}))
    elif isinstance(container, dict):
        del container[key]
    encoded = canonical.encode({"body": body, "digest": digest.of(canonical.encode(body))})
    try:
        again = lock.decode(encoded, subject="x")
    except ResolveError:
        return
    again.encode()
    again.blobs()
