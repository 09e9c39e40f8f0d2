"""Files of model formats, made to measure."""

from __future__ import annotations

import json
import struct
from typing import Any


def safetensors(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    """Return a file of this header and data, whether or not they fit."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def tensor(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def good_safetensors(size: int = 16, *, fill: bytes = b"\x01") -> bytes:
    """Return a right file with one tensor of `size` bytes."""
    header = {"__metadata__": {"format": "pt"}, "weight": tensor("U8", [size], 0, size)}
    return safetensors(header, fill * size)


def gguf(version: int = 3, tensors: int = 1, pairs: int = 1, body: bytes = b"\0" * 64) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + body


LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)
