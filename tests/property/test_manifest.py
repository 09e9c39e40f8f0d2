from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from airlift import manifest, yamldoc
from airlift.errors import ManifestError

pytestmark = pytest.mark.property

KEYS = st.sampled_from(
    [
        "apiVersion",
        "kind",
        "metadata",
        "platforms",
        "images",
        "python",
        "charts",
        "models",
        "files",
        "deploy",
        "k3s",
        "name",
        "ref",
        "as",
        "path",
        "repo",
        "version",
        "targets",
        "packages",
        "values",
        "url",
        "preload",
        "chart",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(max_size=8)
    | st.sampled_from(["3.10", "no", "~", "a/b", "oci://x/y"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_are_a_document_or_a_manifest_error(data: bytes) -> None:
    try:
        yamldoc.parse(data, "m.yaml")
    except ManifestError as error:
        assert str(error).startswith("m.yaml")  # noqa: PT017


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab:- \n[]{}&*!'\"#|>?,%@`~<0123.", max_size=60))
def test_yaml_like_text_is_a_document_or_a_manifest_error(text: str) -> None:
    try:
        document = yamldoc.parse(text.encode(), "m.yaml")
    except ManifestError as error:
        assert error.file == "m.yaml"  # noqa: PT017
    else:
        # What is accepted, every other reader of YAML reads the same.
        assert document.value == yaml.safe_load(text)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_what_a_yaml_writer_wrote_is_read_back(value: Any) -> None:
    text = yaml.safe_dump(value, allow_unicode=True, default_style='"' if isinstance(value, str) else None)
    try:
        document = yamldoc.parse(text.encode("utf-8"), "m.yaml")
    except ManifestError as error:
        # PyYAML quotes for YAML 1.1 only; 08 is a number in 1.2.
        assert "unquoted" in str(error)  # noqa: PT017
    else:
        assert document.value == value


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_mapping_is_a_manifest_or_an_error_whose_every_line_has_a_place(value: dict[str, Any]) -> None:
    whole = {"apiVersion": "airlift/v1", "kind": "Drop", "metadata": {"name": "x"}, **value}
    text = (
        yaml.safe_dump(whole, default_style='"')
        if all(isinstance(v, str) for v in whole.values())
        else yaml.safe_dump(whole)
    )
    try:
        made = manifest.decode(yamldoc.parse(text.encode(), "m.yaml"))
    except ManifestError as error:
        assert all(line.startswith("m.yaml:") for line in str(error).splitlines())  # noqa: PT017
    else:
        assert made.kind == "Drop"
