from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlift import reference
from airlift.errors import ManifestError

pytestmark = pytest.mark.property

PART = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,2})[a-z0-9]{1,4})?", fullmatch=True)
HOST = st.sampled_from(
    ["docker.io", "ghcr.io", "localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000", "A.example.com"]
)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
DIGEST = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40) | st.text(alphabet="abA.:/@_-0[]", max_size=30))
def test_any_text_is_a_reference_or_a_manifest_error_and_parsing_again_changes_nothing(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except ManifestError:
        return
    assert reference.parse(str(parsed)) == parsed
    assert parsed.tag or parsed.digest
    assert ".." not in parsed.path.split("/")
    assert ":" not in parsed.path or parsed.registry.startswith("[")


@settings(max_examples=100, deadline=None)
@given(HOST, st.lists(PART, min_size=2, max_size=4), st.none() | TAG, st.none() | DIGEST)
def test_a_whole_name_is_its_own_normal_form(host: str, parts: list[str], tag: str | None, pinned: str | None) -> None:
    text = f"{host}/{'/'.join(parts)}" + (f":{tag}" if tag else "") + (f"@{pinned}" if pinned else "")
    parsed = reference.parse(text)
    assert (parsed.registry, parsed.repository, parsed.digest) == (host, "/".join(parts), pinned)
    assert str(parsed) == (text if tag or pinned else f"{text}:latest")
