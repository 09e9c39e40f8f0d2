"""What bytes of a model's file are told apart."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from typing import Any

import pytest

from airlift.errors import IntegrityError
from airlift.kinds import weights
from airlift.kinds.weights import Inspector
from tests.support.weights import LFS_POINTER, gguf, good_safetensors, safetensors, tensor


def inspect(path: str, data: bytes, *, step: int = 7) -> Inspector:
    inspector = Inspector(path, len(data), subject=path)
    for start in range(0, len(data), step):
        inspector.update(data[start : start + step])
    inspector.finish()
    return inspector


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.getpid, ()


def test_right_safetensors_are_whole_and_harmless_in_pieces_of_any_size() -> None:
    data = good_safetensors(10_000)
    for step in (1, 7, 4096, len(data)):
        assert inspect("model.safetensors", data, step=step).danger is None


def test_a_scalar_and_an_empty_tensor_are_right() -> None:
    header = {"a": tensor("F32", [], 0, 4), "b": tensor("F32", [0, 3], 4, 4), "c": tensor("F4", [3, 2], 4, 7)}
    inspect("m.safetensors", safetensors(header, bytes(7)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "m.safetensors: expected weights, got an empty file"),
        (b"abc", "m.safetensors: expected a safetensors header, got a file of 3 bytes"),
        (LFS_POINTER, "m.safetensors: expected the file's content, got a Git LFS pointer to it"),
        (
            struct.pack("<Q", 500) + b"{}",
            "m.safetensors: expected a safetensors header within 10 bytes, got 500 bytes",
        ),
        (
            safetensors(b' {"a":1}'),
            "m.safetensors: expected a safetensors header that starts with '{', got b' {\"a\":1}'",
        ),
        (
            safetensors(b'{"__metadata__":{},"__metadata__":{}}'),
            "m.safetensors: expected a safetensors header in JSON, each key once, got 'a key is there twice'",
        ),
        (
            safetensors(b'{"w":{"dtype":"U8","dtype":"U8"}}'),
            "m.safetensors: expected a safetensors header in JSON, each key once, got 'a key is there twice'",
        ),
        (
            safetensors(b"{} {}"),
            (
                "m.safetensors: expected a safetensors header in JSON, each key once, got "
                "'something follows its end at character 2'"
            ),
        ),
        (
            safetensors(b"{1:2}"),
            "m.safetensors: expected a safetensors header in JSON, each key once, got \"'1' at character 1\"",
        ),
        (
            safetensors({"__metadata__": {"a": 1}}),
            "m.safetensors: expected metadata from text to text, got {'a': 1}",
        ),
        (
            safetensors({"w": tensor("U8", [4], 0, 4)}, bytes(3)),
            "m.safetensors: expected 72 bytes by its header, got 71 bytes",
        ),
        (
            safetensors({"w": tensor("U8", [4], 0, 4)}, bytes(5)),
            "m.safetensors: expected 72 bytes by its header, got 73 bytes",
        ),
        (
            safetensors({"v": tensor("U8", [4], 0, 4), "w": tensor("U8", [4], 6, 10)}, bytes(10)),
            "m.safetensors, tensor w: expected its data at offset 4, got offset 6",
        ),
        (
            safetensors({"v": tensor("U8", [4], 0, 4), "w": tensor("U8", [4], 2, 6)}, bytes(6)),
            "m.safetensors, tensor w: expected its data at offset 4, got offset 2",
        ),
        (
            safetensors({"w": tensor("F32", [2], 0, 4)}, bytes(4)),
            "m.safetensors, tensor w: expected 8 bytes by its shape, got 4 bytes",
        ),
        (
            safetensors({"w": tensor("F33", [1], 0, 4)}, bytes(4)),
            "m.safetensors, tensor w: expected a dtype of safetensors, got 'F33'",
        ),
        (
            safetensors({"w": tensor("U8", [-4], 0, 4)}, bytes(4)),
            "m.safetensors, tensor w: expected a shape of numbers, got [-4]",
        ),
        (
            safetensors({"w": tensor("U8", [2**62, 2**62], 0, 4)}, bytes(4)),
            f"m.safetensors, tensor w: expected a shape that fits into a file, got {[2**62, 2**62]}",
        ),
        (
            safetensors({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, bytes(4)),
            "m.safetensors, tensor w: expected two data_offsets, got [0]",
        ),
        (safetensors({"w": 1}), "m.safetensors, tensor w: expected dtype, shape and data_offsets, got 1"),
    ],
)
def test_wrong_safetensors_are_refused_with_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        inspect("m.safetensors", data)
    assert caught.value.message == message


def test_white_space_around_a_header_is_fine() -> None:
    header = b'{ "w" : {"dtype":"U8","shape":[1],"data_offsets":[0,1]} ,\n"__metadata__": {} }      '
    inspect("m.safetensors", safetensors(header, b"x"))
    inspect("m.safetensors", safetensors(b"{}  "))


def test_a_safetensors_header_of_the_size_of_the_disk_is_not_read() -> None:
    inspector = Inspector("m.safetensors", 2**40, subject="m")
    with pytest.raises(IntegrityError, match="header of at most 8388608 bytes"):
        inspector.update(struct.pack("<Q", 2**35))


def test_a_header_nested_without_end_is_refused() -> None:
    with pytest.raises(IntegrityError, match="header in JSON"):
        inspect("m.safetensors", safetensors(b'{"a":' + b"[" * 200_000))


def test_a_stream_that_ends_early_is_refused() -> None:
    inspector = Inspector("m.safetensors", 100, subject="m")
    inspector.update(b"123")
    with pytest.raises(IntegrityError, match="m: expected at least 100 bytes, got 3 bytes"):
        inspector.finish()


def test_right_gguf_is_whole() -> None:
    assert inspect("m.gguf", gguf()).danger is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"GGML" + bytes(60), "m.gguf: expected GGUF's magic and header, got b'GGML\\x00\\x00\\x00\\x00'"),
        (gguf(version=0x03000000), "m.gguf: expected GGUF version 2 or 3, little-endian, got version 50331648"),
        (gguf(tensors=2**40), "m.gguf: expected at most 1000000 tensors, got 1099511627776"),
        (gguf(pairs=2**40), "m.gguf: expected at most 1000000 metadata entries, got 1099511627776"),
        (gguf(tensors=100), "m.gguf: expected at least 2437 bytes by its counts, got 88 bytes"),
    ],
)
def test_wrong_gguf_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        inspect("m.gguf", data)
    assert caught.value.message == message


def _zip(name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, pickle.dumps(Runs()))
    return stream.getvalue()


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    return stream.getvalue()


def _numpy(descr: str) -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": (1,)}).encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_something_is_found_under_any_name(protocol: int) -> None:
    assert weights.danger("weights.dat", pickle.dumps(Runs(), protocol=protocol)) is not None


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("model.PKL", b"harmless"),
        ("pytorch_model.bin", b""),
        ("pytorch_model-00001-of-00002.bin", b""),
        ("a/b/model.pt", b"x"),
        ("model.ckpt", b"x"),
        ("model.joblib", b"x"),
        ("tf_model.h5", b"x"),
        ("modeling_x.py", b"print()"),
        ("libx.so", b"\x7fELF"),
        ("weights", _zip("archive/data.pkl")),
        ("weights.npz", _zip("a.npy")),
        ("weights.npy", _numpy("|O")),
        ("weights.npy", b"not numpy"),
        ("model.pkl.gz", b""),
        ("weights.dat", gzip.compress(pickle.dumps(Runs()))),
        ("weights.dat", zlib.compress(pickle.dumps(Runs()))),
        ("weights.dat", bz2.compress(pickle.dumps(Runs()))),
        ("weights.dat", lzma.compress(pickle.dumps(Runs()))),
        ("weights.dat", lzma.compress(pickle.dumps(Runs()), lzma.FORMAT_ALONE)),
        ("weights.tar", _tar()),
        ("weights.bin", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
    ],
)
def test_what_may_run_code_is_found_by_name_and_by_content(path: str, data: bytes) -> None:
    assert weights.danger(path, data) is not None


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("config.json", json.dumps({"a": [1, 2]}).encode()),
        ("vocab.txt", b"cat\ndog\nelephant\n"),
        ("merges.txt", b"i n\nt h\n"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch"),
        ("spiece.model", b"\n\x0e\n\x05<unk>"),
        ("openvino_model.bin", bytes(64)),
        ("weights.npy", _numpy("<f4")),
        ("vocab.json.gz", gzip.compress(b'{"a": 1}')),
        ("index.xz", b"\xfd7zXZ\x00broken"),
        ("pytorch_model.bin.index.json", b"{}"),
        ("README.md", b"cos\nsystem\n(S'ls'\ntR."[:3]),
        ("empty", b""),
        ("plain.txt", pickle.dumps(collections.Counter(), protocol=0)[:1]),
    ],
)
def test_plain_files_are_harmless(path: str, data: bytes) -> None:
    assert weights.danger(path, data) is None
