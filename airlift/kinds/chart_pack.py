"""Packs a chart directory: the same files give the same bytes on every machine.

A tar of regular files, ``Chart.yaml`` first and the others by path, without times, owners or the disk's modes; then
gzip in *stored* blocks, written here: no zlib promises the same output as another, not even at level 0.
"""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from airlift import fs, limits
from airlift.errors import ResolveError
from airlift.kinds import chart_ignore

_STORED: Final = 0xFFFF
_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_FILE: Final = 5 * limits.MIB
"""Helm 4 does not load a chart with a larger file in it."""


def read_directory(directory: Path, *, subject: str) -> dict[str, bytes]:
    """Return a chart directory's files by path, without what ``.helmignore`` leaves out.

    A link is followed to a file that lies inside the directory, and nowhere else.

    Raises:
        ResolveError: no chart is there, or something that a chart cannot hold.
        StoreError: the disk refuses.
    """
    if not (directory / "Chart.yaml").is_file():
        raise ResolveError(f"{subject}: no chart is there (no Chart.yaml)", hint="name the directory of Chart.yaml")
    ignore = directory / ".helmignore"
    text = fs.read_bounded(ignore, limits.DOCUMENT).decode("utf-8", "replace") if ignore.is_file() else ""
    rules = chart_ignore.parse(text, subject=f"{subject}/.helmignore")
    files: dict[str, bytes] = {}
    total = 0
    with fs.guarded("reading"):
        root = directory.resolve()
        for path, place in _walk(root, root, rules, subject):
            files[path] = _read(place, subject=f"{subject}/{path}")
            total += len(files[path])
            if total > limits.CHART or len(files) > limits.ARCHIVE_MEMBERS:
                raise ResolveError(
                    f"{subject}: more than {limits.CHART} bytes or {limits.ARCHIVE_MEMBERS} files",
                    hint="list what is no part of the chart in .helmignore",
                )
    return files


def _walk(folder: Path, root: Path, rules: chart_ignore.Rules, subject: str) -> Iterator[tuple[str, Path]]:
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        place = folder / entry.name
        path = place.relative_to(root).as_posix()
        is_folder = entry.is_dir(follow_symlinks=True)
        if rules.ignores(path, is_folder=is_folder):
            continue
        if entry.is_symlink():
            target = place.resolve()
            if is_folder or not target.is_file() or not target.is_relative_to(root):
                raise ResolveError(
                    f"{subject}/{path}: a link to what is no file of the chart ({place.readlink()})",
                    hint="copy it into the chart, or make it a dependency with repository file://",
                )
            yield path, target
        elif is_folder:
            yield from _walk(place, root, rules, subject)
        elif entry.is_file(follow_symlinks=False):
            yield path, place
        else:
            raise ResolveError(f"{subject}/{path}: neither a file nor a directory", hint="list it in .helmignore")


def _read(place: Path, *, subject: str) -> bytes:
    # Opened without waiting: a file that became a pipe since it was listed must not stop us.
    handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ResolveError(f"{subject}: not a file")
        data = stream.read(_FILE + 1)
    if len(data) > _FILE:
        raise ResolveError(
            f"{subject}: larger than {_FILE} bytes, which Helm does not load", hint="list it in .helmignore"
        )
    return data


def pack(name: str, files: Mapping[str, bytes]) -> bytes:
    """Return the .tgz of a chart.

    Args:
        name: the chart's name, which becomes the top directory.
        files: content by path below it.

    Raises:
        ResolveError: a name cannot be in an archive.
    """
    order = sorted(files, key=lambda path: (path != "Chart.yaml", path))
    return stored_gzip(b"".join(_tar(name, [(path, files[path]) for path in order])))


def _tar(name: str, files: list[tuple[str, bytes]]) -> Iterator[bytes]:
    for path, data in files:
        header = tarfile.TarInfo(f"{name}/{path}")
        header.size = len(data)
        header.mode = 0o644
        try:
            path.encode()
        except UnicodeEncodeError:
            raise ResolveError(f"{path!r}: a name that is not UTF-8 cannot be in a chart") from None
        yield header.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        yield data
        yield bytes(-len(data) % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def stored_gzip(data: bytes) -> bytes:
    """Return `data` as one gzip member of stored deflate blocks (RFC 1951, 3.2.4; RFC 1952)."""
    blocks = [data[start : start + _STORED] for start in range(0, len(data), _STORED)] or [b""]
    out = bytearray(_GZIP_HEADER)
    for number, block in enumerate(blocks, 1):
        out += struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ _STORED)
        out += block
    out += struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return bytes(out)
