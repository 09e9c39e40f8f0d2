from __future__ import annotations

import json

import pytest

from airlift import canonical
from airlift.errors import BundleError


def test_keys_are_sorted_by_code_point_and_nothing_is_escaped_that_need_not_be() -> None:
    value = {"b": [1, True, None], "a": 'é😀\n"', "Z": {}, "": -1}
    assert canonical.encode(value).decode() == '{"":-1,"Z":{},"a":"é😀\\n\\"","b":[1,true,null]}'


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "float has no canonical form"),
        ({"a": float("nan")}, "float has no canonical form"),
        (2**53, "integer 9007199254740992 is not below 2^53"),
        (-(2**53), "integer -9007199254740992 is not below 2^53"),
        ({1: "a"}, "key 1 is not a string"),
        (b"a", "bytes has no canonical form"),
        ({"a": {1, 2}}, "set has no canonical form"),
    ],
)
def test_what_has_no_one_encoding_is_refused(value: object, message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("^", r"\^")):
        canonical.encode(value)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        canonical.encode("\ud800")


def test_nesting_is_bounded() -> None:
    value: object = 1
    for _ in range(64):
        value = [value]
    canonical.encode(value)
    with pytest.raises(ValueError, match="nested too deeply"):
        canonical.encode([value])


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1}',
        b'{"a":1}\n',
        b'{"b":1,"a":1}',
        b'{"a":1,"a":1}',
        b'{"a":"\\u00e9"}',
        b'{"a":"\\/"}',
        b"1.0",
        b"1e3",
        b"-0",
        b"NaN",
        b"[1,]",
        b"",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"9007199254740992",
        b'"\\ud800"',
        b"[" * 100_000,
        b"1" * 5000,
    ],
)
def test_any_other_encoding_of_a_value_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError, match=r"^volume\.json: not canonical JSON: "):
        canonical.decode(data, limit=1 << 20, subject="volume.json")


def test_what_encode_wrote_is_read_back() -> None:
    data = canonical.encode({"a": [1, {"b": None}], "c": "x"})
    assert canonical.decode(data, limit=100, subject="x") == json.loads(data)


def test_more_bytes_than_the_limit_are_not_looked_at() -> None:
    with pytest.raises(BundleError, match=r"^x: 101 bytes, at most 100 are accepted$"):
        canonical.decode(b"x" * 101, limit=100, subject="x")
