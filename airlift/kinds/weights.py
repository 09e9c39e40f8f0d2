"""What the bytes of a model's file are: whole weights, a stand-in for them, or something that runs when it is loaded.

Everything here looks at a file's first bytes and its size, so it works on a stream and on a Range answer alike.
Block lists of pickle opcodes can be walked around, so a pickle is refused as such: what it would do is not asked.
"""

from __future__ import annotations

import ast
import bz2
import json
import lzma
import pickletools
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from airlift import limits
from airlift.errors import IntegrityError

HEAD: Final = 4096
"""First bytes that are looked at in every file."""

_MAX_HEADER: Final = 8 * limits.MIB
_MAX_COUNT: Final = 1_000_000
_MAX_DIMENSIONS: Final = 64

_LFS: Final = b"version https://git-lfs.github.com/spec/"
_LFS_SIZE: Final = 1024

_WEIGHTS: Final = frozenset(
    {".safetensors", ".gguf", ".onnx", ".bin", ".pt", ".pth", ".h5", ".tflite", ".npz", ".ckpt"}
)
_PICKLES: Final = frozenset(
    {".pkl", ".pickle", ".pt", ".pt2", ".ptl", ".pth", ".ckpt", ".joblib", ".dill", ".jit", ".mar", ".nemo"}
)
_KERAS: Final = frozenset({".h5", ".hdf5", ".keras"})
_CODE: Final = frozenset({".py", ".pyc", ".pyd", ".so", ".dll", ".dylib"})
_COMPRESSED: Final = frozenset({".gz", ".bz2", ".xz", ".lzma", ".z", ".zst", ".lz4"})
_XZ_MEMORY: Final = 64 * limits.MIB
_TORCH_BIN: Final = re.compile(r"(pytorch_model|adapter_model|training_args|optimizer|scheduler)([.-].*)?\.bin")

_SAFETENSORS_BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "U16": 16,
    "U32": 32, "U64": 64, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64,
}  # fmt: skip


class Inspector:
    """Looks at one file while it streams by.

    `update` takes the bytes in order from the first; `danger` and `finish` may be asked once `complete` is true. What
    is wrong is raised as soon as it is seen.
    """

    def __init__(self, path: str, size: int, *, subject: str) -> None:
        self._path = path
        self._size = size
        self._subject = subject
        self._head = bytearray()
        self._need = min(size, HEAD)
        self.seen = 0
        self.complete = False
        self.danger: str | None = None
        if size == 0:
            self._look()

    @property
    def need(self) -> int:
        """How many of the file's first bytes are wanted, as far as is known by now."""
        return self._need

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes.

        Raises:
            IntegrityError: the file is not what its name says.
        """
        self.seen += len(data)
        if self.complete:
            return
        self._head += data[: _MAX_HEADER + 8 - len(self._head)]
        # A pointer's first word, read as a length, is no length: `check` gives it its own name.
        if is_safetensors(self._path) and len(self._head) >= min(self._size, 8) and self._head[:8] != _LFS[:8]:
            header = header_length(self._head, self._size, subject=self._subject)
            self._need = max(self._need, 8 + header)
        if len(self._head) >= self._need:
            self._look()

    def finish(self) -> None:
        """Say that no more bytes come.

        Raises:
            IntegrityError: too few came to tell what the file is.
        """
        if not self.complete:
            raise IntegrityError(self._subject, expected=f"at least {self._need} bytes", actual=f"{self.seen} bytes")

    def _look(self) -> None:
        head = bytes(self._head)
        self._head.clear()
        check(self._path, self._size, head, subject=self._subject)
        self.danger = danger(self._path, head)
        self.complete = True


def is_safetensors(path: str) -> bool:
    """Say whether the name promises safetensors."""
    return _suffix(path) == ".safetensors"


def check(path: str, size: int, head: bytes, *, subject: str) -> None:
    """Check that a file is whole, as far as its first bytes and its size can tell.

    Args:
        path: its name, which says the format.
        size: its size in bytes.
        head: its first `HEAD` bytes; for safetensors its whole header.
        subject: what to call it in messages.

    Raises:
        IntegrityError: a Git LFS pointer, an empty file of weights, or safetensors or GGUF of a wrong structure.
    """
    suffix = _suffix(path)
    if size <= _LFS_SIZE and head.startswith(_LFS):
        raise IntegrityError(
            subject,
            expected="the file's content",
            actual="a Git LFS pointer to it",
            hint="run git lfs pull in the directory that it came from, or ask the hub's owner for the real file",
        )
    if size == 0 and suffix in _WEIGHTS:
        raise IntegrityError(subject, expected="weights", actual="an empty file")
    if suffix == ".safetensors":
        _check_safetensors(head, size, subject)
    elif suffix == ".gguf":
        _check_gguf(head, size, subject)


def header_length(head: bytes | bytearray, size: int, *, subject: str) -> int:
    """Return how long the JSON header of safetensors is, from the first eight bytes.

    Raises:
        IntegrityError: longer than the file or than is accepted.
    """
    if len(head) < 8:  # noqa: PLR2004 - the length field itself
        raise IntegrityError(subject, expected="a safetensors header", actual=f"a file of {len(head)} bytes")
    length: int = struct.unpack_from("<Q", head)[0]
    if length + 8 > size:
        raise IntegrityError(subject, expected=f"a safetensors header within {size} bytes", actual=f"{length} bytes")
    if length > _MAX_HEADER:
        raise IntegrityError(
            subject, expected=f"a safetensors header of at most {_MAX_HEADER} bytes", actual=f"{length} bytes"
        )
    return length


def _check_safetensors(head: bytes, size: int, subject: str) -> None:
    length = header_length(head, size, subject=subject)
    raw = head[8 : 8 + length]
    # The format demands the brace first: without it the file could be another format's as well.
    if len(raw) != length or not raw.startswith(b"{"):
        raise _wrong(subject, "a safetensors header that starts with '{'", raw[:20])
    spans = []
    try:
        for name, value in _members(raw.decode("utf-8")):
            if name == "__metadata__":
                if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
                    raise _wrong(subject, "metadata from text to text", value)
            else:
                spans.append(_span(name, value, subject))
    except (ValueError, RecursionError) as error:
        raise _wrong(subject, "a safetensors header in JSON, each key once", str(error)) from None
    position = 0
    for start, end, name in sorted(spans):
        if start != position:
            raise IntegrityError(
                f"{subject}, tensor {name}"[:300], expected=f"its data at offset {position}", actual=f"offset {start}"
            )
        position = end
    if 8 + length + position != size:
        raise IntegrityError(subject, expected=f"{8 + length + position} bytes by its header", actual=f"{size} bytes")


def _members(text: str) -> Iterator[tuple[str, Any]]:
    """Yield a JSON object's members one by one: as a whole, a header in memory takes twenty times its size."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    seen: set[str] = set()
    _, position = _mark(text, 0, "{")
    mark, position = _mark(text, position, '"}')
    while mark != "}":
        name, position = decoder.raw_decode(text, position - 1)
        if name in seen:
            raise ValueError("a key is there twice")
        seen.add(name)
        _, position = _mark(text, position, ":")
        value, position = decoder.raw_decode(text, _after_space(text, position))
        yield name, value
        mark, position = _mark(text, position, ",}")
        if mark == ",":
            mark, position = _mark(text, position, '"')
    if _after_space(text, position) != len(text):
        raise ValueError(f"something follows its end at character {position}")


def _mark(text: str, position: int, wanted: str) -> tuple[str, int]:
    position = _after_space(text, position)
    mark = text[position : position + 1]
    if not mark or mark not in wanted:
        raise ValueError(f"{mark!r} at character {position}")
    return mark, position + 1


def _after_space(text: str, position: int) -> int:
    while text[position : position + 1] in (" ", "\t", "\r", "\n"):
        position += 1
    return position


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _span(name: str, tensor: object, subject: str) -> tuple[int, int, str]:
    where = f"{subject}, tensor {name}"[:300]
    if not isinstance(tensor, dict):
        raise _wrong(where, "dtype, shape and data_offsets", tensor)
    dtype, shape, offsets = tensor.get("dtype"), tensor.get("shape"), tensor.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _SAFETENSORS_BITS:
        raise _wrong(where, "a dtype of safetensors", dtype)
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(_is_count(item) for item in shape):
        raise _wrong(where, "a shape of numbers", shape)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(item) for item in offsets):  # noqa: PLR2004 - from, to
        raise _wrong(where, "two data_offsets", offsets)
    bits = _SAFETENSORS_BITS[dtype]
    for extent in shape:
        bits *= extent
        if bits > 8 * limits.BLOB:
            raise _wrong(where, "a shape that fits into a file", shape)
    start, end = offsets
    if bits != 8 * (end - start):
        raise IntegrityError(where, expected=f"{bits / 8:g} bytes by its shape", actual=f"{end - start} bytes")
    return start, end, name


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_gguf(head: bytes, size: int, subject: str) -> None:
    if len(head) < 24 or not head.startswith(b"GGUF"):  # noqa: PLR2004 - magic, version and two counts
        raise _wrong(subject, "GGUF's magic and header", head[:8])
    version, tensors, pairs = struct.unpack_from("<IQQ", head, 4)
    if version not in (2, 3):
        raise IntegrityError(subject, expected="GGUF version 2 or 3, little-endian", actual=f"version {version}")
    for what, count in (("tensors", tensors), ("metadata entries", pairs)):
        if count > _MAX_COUNT:
            raise IntegrityError(subject, expected=f"at most {_MAX_COUNT} {what}", actual=str(count))
    # The least that a description takes: name length, dimensions, type, offset; key length, type, one byte of value.
    least = 24 + tensors * (8 + 4 + 4 + 8) + pairs * (8 + 4 + 1)
    if least > size:
        raise IntegrityError(subject, expected=f"at least {least} bytes by its counts", actual=f"{size} bytes")


def danger(path: str, head: bytes) -> str | None:
    """Say why loading a file may run code, or return None. Name and content count alike.

    Args:
        path: the file's name.
        head: its first `HEAD` bytes, or all of a shorter file.
    """
    suffix, name = _suffix(path), PurePosixPath(path).name.lower()
    if suffix in _COMPRESSED:
        # joblib and torch's users compress: what counts is the name below.
        suffix = _suffix(name.removesuffix(suffix))
    if suffix in _CODE:
        return "is code"
    if suffix in _PICKLES or _TORCH_BIN.fullmatch(name):
        return "is of a kind that holds a pickle"
    if suffix in _KERAS:
        return "is of a kind that may hold Keras Lambda layers"
    if suffix in (".safetensors", ".gguf"):
        return None
    inner = _decompressed(head[:HEAD])
    return _pickled(suffix, head[:HEAD]) or (_pickled("", inner) if inner else None)


def _pickled(suffix: str, head: bytes) -> str | None:
    if head[257:262] == b"ustar":
        return "is a tar archive, an old form of PyTorch's pickles"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "is a zip archive, the form of PyTorch's pickles"
    if suffix == ".npy" or head.startswith(b"\x93NUMPY"):
        return None if _is_plain_numpy(head) else "is a NumPy file that holds a pickle"
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:  # noqa: PLR2004 - PROTO and the known protocols
        return "starts like a pickle"
    if _is_old_pickle(head):
        return "reads as a pickle that calls something"
    return None


def _decompressed(head: bytes) -> bytes:
    """Return the first bytes of what is compressed here, or nothing: joblib finds out by itself, so we must too."""
    try:
        if head.startswith(b"\x1f\x8b") or head[:1] == b"\x78":
            return zlib.decompressobj(wbits=47).decompress(head, HEAD)
        if head.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(head, HEAD)
        if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
            return lzma.LZMADecompressor(memlimit=_XZ_MEMORY).decompress(head, HEAD)
    except (zlib.error, lzma.LZMAError, OSError, EOFError):
        pass
    return b""


def _is_plain_numpy(head: bytes) -> bool:
    if not head.startswith(b"\x93NUMPY") or len(head) < 12:  # noqa: PLR2004 - magic, version, length
        return False
    wide = head[6] > 1
    length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
    start = 12 if wide else 10
    try:
        header = ast.literal_eval(head[start : start + length].decode("latin-1").strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return False
    return isinstance(header, dict) and "O" not in repr(header.get("descr", "O"))


def _is_old_pickle(head: bytes) -> bool:
    """Protocols 0 and 1 have no magic: ask whether the opcodes name a callable and then call it."""
    named = False
    try:
        for opcode, argument, _ in pickletools.genops(head):
            if opcode.name in ("GLOBAL", "INST"):
                if re.fullmatch(r"[\w.]+ [\w.]+", str(argument)) is None:
                    return False
                named = True
            if named and opcode.name in ("REDUCE", "OBJ", "INST", "NEWOBJ", "BUILD"):
                return True
    except (ValueError, OverflowError, UnicodeError, IndexError):
        return False
    return False


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _wrong(subject: str, expected: str, actual: object) -> IntegrityError:
    return IntegrityError(subject, expected=expected, actual=repr(actual)[:100])
