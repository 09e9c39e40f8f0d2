"""Files of model formats, made to measure."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zipfile
from typing import Any

from tests.components import ROOT, missing


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


SILERO = "silero-vad==6.2.3"


def real_weights() -> dict[str, bytes]:
    """Return files of a published model that a package carries: safetensors, ONNX, a pickle, its licence."""
    folder = ROOT / ".cache" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    if not (found := sorted(folder.glob("silero_vad-*.whl"))):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), SILERO]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            missing(f"{SILERO} cannot be downloaded")
        found = sorted(folder.glob("silero_vad-*.whl"))
    wanted = {
        "silero_vad/data/silero_vad_16k.safetensors": "model.safetensors",
        "silero_vad/data/silero_vad_half.onnx": "onnx/model_half.onnx",
        "silero_vad/data/silero_vad.jit": "silero_vad.jit",
        "silero_vad-6.2.3.dist-info/licenses/LICENSE": "LICENSE",
    }
    with zipfile.ZipFile(found[0]) as wheel:
        return {path: wheel.read(member) for member, path in wanted.items()}
