"""Canonical JSON: one value, one encoding.

UTF-8, keys sorted by code point, separators ``,`` and ``:``, integers below 2^53, no floats, no trailing newline
(docs/bundle-format.md, "Canonical JSON").
"""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from airlift.errors import BundleError

JsonObject: TypeAlias = dict[str, Any]

_MAX_INTEGER = 2**53 - 1
_MAX_DEPTH = 64


def encode(value: object) -> bytes:
    """Return the canonical encoding.

    Raises:
        ValueError: the value holds a float, a large integer, a lone surrogate, or keys that are not strings.
    """
    _check(value, 0)
    text = json.dumps(
        value,
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
        allow_nan=False,
    )
    return text.encode("utf-8")


def _check(value: object, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int):
        if abs(value) > _MAX_INTEGER:
            raise ValueError(f"integer {value} is not below 2^53")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"key {key!r} is not a string")  # noqa: TRY004 - one error for every bad value
            _check(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    else:
        raise ValueError(f"{type(value).__name__} has no canonical form")  # noqa: TRY004 - one error for every bad value


def decode(data: bytes, *, limit: int, subject: str) -> Any:
    """Return the value of `data`, which must be its canonical encoding.

    Args:
        data: the bytes as they came.
        limit: the most bytes that are looked at.
        subject: what the bytes are, for the message.

    Raises:
        BundleError: too large, not JSON, or encoded in another way than `encode` would.
    """
    if len(data) > limit:
        raise BundleError(f"{subject}: {len(data)} bytes, at most {limit} are accepted")
    try:
        value = json.loads(data.decode("utf-8"))
        again = encode(value)
    except UnicodeDecodeError as error:
        raise BundleError(f"{subject}: not canonical JSON: byte {error.start} is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{subject}: not canonical JSON: {error}") from None
    if again != data:
        raise BundleError(f"{subject}: not canonical JSON: another encoding of the same value was expected")
    return value
