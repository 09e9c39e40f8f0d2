"""Whatever bytes come, they are judged: told apart or refused, never a crash, and the same in pieces of any size."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlift.errors import IntegrityError
from airlift.kinds import models, weights
from airlift.kinds.weights import Inspector
from tests.support.weights import gguf, good_safetensors, safetensors

pytestmark = pytest.mark.property

NAMES = st.sampled_from(["m.safetensors", "m.gguf", "m.bin", "m.npy", "config.json", "x"])
TENSORS = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F16", "F4", "nonsense"]),
        "shape": st.lists(st.integers(-1, 5), max_size=3),
        "data_offsets": st.lists(st.integers(-1, 12), min_size=1, max_size=3),
    }
)
FILES = st.one_of(
    st.binary(max_size=200),
    st.builds(safetensors, st.dictionaries(st.text(max_size=3), TENSORS, max_size=4), st.binary(max_size=40)),
    st.builds(safetensors, st.binary(max_size=60).map(lambda raw: b"{" + raw), st.binary(max_size=9)),
    st.builds(good_safetensors, st.integers(0, 9000)),
    st.builds(gguf, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    st.binary(max_size=60).map(lambda raw: b"\x93NUMPY\x01\x00" + raw),
)


def verdict(path: str, data: bytes, step: int) -> str:
    inspector = Inspector(path, len(data), subject="m") if data else None
    try:
        inspector = inspector or Inspector(path, 0, subject="m")
        for start in range(0, len(data), step):
            inspector.update(data[start : start + step])
        inspector.finish()
    except IntegrityError as error:
        return error.message
    return f"danger: {inspector.danger}"


@given(path=NAMES, data=FILES, step=st.integers(1, 64))
def test_a_verdict_does_not_depend_on_how_the_bytes_arrive(path: str, data: bytes, step: int) -> None:
    assert verdict(path, data, step) == verdict(path, data, max(1, len(data)))


@given(data=st.builds(good_safetensors, st.integers(1, 6000)), cut=st.integers(1, 50), tail=st.binary(min_size=1))
def test_cut_and_lengthened_safetensors_are_refused(data: bytes, cut: int, tail: bytes) -> None:
    assert verdict("m.safetensors", data, 4096) == "danger: None"
    for wrong in (data[: max(0, len(data) - cut)], data + tail):
        assert "danger" not in verdict("m.safetensors", wrong, 4096)


@given(
    header=st.dictionaries(
        st.text(max_size=4).filter(lambda name: name != "__metadata__"),
        st.just({"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}),
    ),
    indent=st.sampled_from([None, 1, "\t"]),
    ascii_only=st.booleans(),
)
def test_any_spelling_of_a_right_header_is_accepted(
    header: dict[str, object], indent: int | str | None, ascii_only: bool
) -> None:
    raw = json.dumps(header, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert verdict("m.safetensors", safetensors(raw), 4096) == "danger: None"


@given(path=st.text(max_size=20), head=st.binary(max_size=300))
def test_any_name_and_head_has_an_answer(path: str, head: bytes) -> None:
    assert isinstance(weights.danger(path, head), str | None)


@given(paths=st.lists(st.text(alphabet="aAbB./\\\u00e9\x00 ", max_size=6), max_size=5))
def test_accepted_paths_stay_inside_and_apart(paths: list[str]) -> None:
    try:
        models.check_paths(paths, subject="m")
    except IntegrityError:
        return
    for path in paths:
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))
    folded = [unicodedata.normalize("NFC", path).casefold() for path in paths]
    assert len(set(folded)) == len(folded)
