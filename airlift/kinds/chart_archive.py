"""The files of a chart archive (.tgz), read in one bounded pass; nothing is written to disk.

* Every member lies under one directory, is a file or a directory, and has a name that is the same on every disk.
* One `Budget` bounds members and unpacked bytes over an archive and all archives inside it.
"""

from __future__ import annotations

import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from airlift import limits
from airlift.errors import IntegrityError

_BLOCK: Final = 512
_SLICE: Final = 64 * limits.KIB
_GZIP: Final = 31  # zlib's word for: a gzip header, the largest window
_EXTENSION: Final = limits.MIB
_TYPES_FILE: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE})
_LONG_NAME: Final = tarfile.GNUTYPE_LONGNAME
_SKIPPED: Final = frozenset({tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK})


@dataclass(slots=True)
class Budget:
    """What may still be unpacked."""

    members: int = limits.ARCHIVE_MEMBERS
    unpacked: int = limits.ARCHIVE_UNPACKED
    depth: int = 16

    def take(self, amount: int, subject: str) -> None:
        """Count unpacked bytes.

        Raises:
            IntegrityError: there are too many.
        """
        self.unpacked -= amount
        if self.unpacked < 0:
            raise IntegrityError(subject, expected=f"at most {limits.ARCHIVE_UNPACKED} bytes unpacked", actual="more")

    def take_member(self, subject: str) -> None:
        """Count a member.

        Raises:
            IntegrityError: there are too many.
        """
        self.members -= 1
        if self.members < 0:
            raise IntegrityError(subject, expected=f"at most {limits.ARCHIVE_MEMBERS} members", actual="more")


def read(data: bytes, *, subject: str, budget: Budget) -> tuple[str, dict[str, bytes]]:
    """Return the top directory and the files below it: path to content.

    Args:
        data: the .tgz.
        subject: what it is, for messages.
        budget: what may still be unpacked.

    Raises:
        IntegrityError: not a gzip'd tar, too much inside, a link or device, a name that leaves the directory or that
            another name equals on a disk without case, or more than one top directory.
    """
    top: str | None = None
    files: dict[str, bytes] = {}
    for name, content in _members(_Unzip(data, subject, budget), subject, budget):
        parts = _safe(name, subject, is_file=content is not None)
        if not parts:
            continue
        if top is None:
            top = parts[0]
        elif parts[0] != top:
            raise IntegrityError(subject, expected=f"one directory, {top}/", actual=repr(name)[:100])
        if content is not None:
            path = "/".join(parts[1:])
            if path in files:
                raise IntegrityError(subject, expected="every name once", actual=f"{path!r} twice")
            files[path] = content
    _check_names(files, subject)
    if top is None:
        raise IntegrityError(subject, expected="a chart", actual="an empty archive")
    return top, files


def _check_names(files: Iterable[str], subject: str) -> None:
    """Refuse paths that are equal on a disk that folds case, and a path that is a file and a directory."""
    seen: dict[str, str] = {}
    for path in files:
        folders = [path[: index + 1] for index, char in enumerate(path) if char == "/"]
        for spelling in (path, *folders):
            folded = unicodedata.normalize("NFC", spelling.rstrip("/")).casefold()
            other = seen.setdefault(folded, spelling)
            if other != spelling:
                raise IntegrityError(
                    subject, expected="distinct names on every disk", actual=f"{other!r} and {spelling!r}"
                )


def _safe(name: str, subject: str, *, is_file: bool) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    is_bad = (
        len(name) > limits.NAME
        or name.startswith("/")
        or "\\" in name
        or ".." in parts
        or (parts and len(parts[0]) > 1 and parts[0][1] == ":")
        or any(unicodedata.category(char) in ("Cc", "Cs") for char in name)
    )
    if is_bad or (is_file and len(parts) < 2):  # noqa: PLR2004 - the top directory and a name
        raise IntegrityError(subject, expected="names below the chart's directory", actual=repr(name)[:100])
    return parts


class _Unzip:
    """Reads a gzip stream (one or more members) as far as the budget allows."""

    def __init__(self, data: bytes, subject: str, budget: Budget) -> None:
        self._data = memoryview(data)
        self._position = 0
        self._rest = b""
        self._subject = subject
        self._budget = budget
        self._inflate = zlib.decompressobj(_GZIP)
        self._ready = bytearray()

    def read(self, size: int) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        while len(self._ready) < size and self._more():
            pass
        found = bytes(self._ready[:size])
        del self._ready[:size]
        return found

    def _more(self) -> bool:
        rest = self._rest or bytes(self._data[self._position : self._position + _SLICE])
        if not self._rest:
            self._position += len(rest)
        if self._inflate.eof:
            if not rest:
                return False
            self._inflate = zlib.decompressobj(_GZIP)
        try:
            out = self._inflate.decompress(rest, limits.CHUNK)
        except zlib.error as error:
            raise IntegrityError(self._subject, expected="a gzip'd tar", actual=str(error)) from None
        self._rest = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        if not rest and not out:
            raise IntegrityError(self._subject, expected="a whole gzip stream", actual="one that ends early")
        self._budget.take(len(out), self._subject)
        self._ready += out
        return True


def _members(stream: _Unzip, subject: str, budget: Budget) -> Iterator[tuple[str, bytes | None]]:
    """Yield name and content (None for a directory) of each member."""
    name: str | None = None
    while block := stream.read(_BLOCK):
        if block == bytes(_BLOCK):
            break
        budget.take_member(subject)
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise IntegrityError(subject, expected="a tar archive", actual=str(error)) from None
        is_extension = header.type in (tarfile.XHDTYPE, _LONG_NAME) or header.type in _SKIPPED
        content = _content(stream, header.size, subject, limit=_EXTENSION if is_extension else None)
        if header.type == tarfile.XHDTYPE:
            name = _pax_path(content, subject) or name
        elif header.type == _LONG_NAME:
            name = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif header.type in _SKIPPED:
            continue
        elif header.type == tarfile.DIRTYPE or header.type in _TYPES_FILE:
            # Old tars mark a directory by a slash at its name's end alone.
            is_directory = header.type == tarfile.DIRTYPE or block[:100].rstrip(b"\0").endswith(b"/")
            yield name or header.name, None if is_directory else content
            name = None
        else:
            raise IntegrityError(
                subject, expected="files and directories only", actual=f"a link or device, {header.name!r}"
            )
    else:
        raise IntegrityError(subject, expected="a whole tar archive", actual="one that ends early")
    while stream.read(limits.CHUNK):
        pass  # what follows the end is counted and its checksum is compared


def _content(stream: _Unzip, size: int, subject: str, *, limit: int | None) -> bytes:
    most = limits.ARCHIVE_UNPACKED if limit is None else limit
    if not 0 <= size <= most:
        raise IntegrityError(subject, expected=f"members of at most {most} bytes", actual=f"one of {size} bytes")
    content = stream.read(size)
    padding = -size % _BLOCK
    if len(content) != size or len(stream.read(padding)) != padding:
        raise IntegrityError(subject, expected="a whole tar archive", actual="one that ends early")
    return content


def _pax_path(data: bytes, subject: str) -> str | None:
    path = None
    while data:
        length, space, _ = data.partition(b" ")
        size = int(length) if space and length.isdigit() and len(length) < len(str(_EXTENSION)) + 1 else 0
        record = data[len(length) + 1 : size]
        key, equals, value = record.partition(b"=")
        if not size or not equals or not value.endswith(b"\n"):
            raise IntegrityError(subject, expected="pax records", actual=repr(data[:40]))
        if key == b"path":
            path = value[:-1].decode("utf-8", "surrogateescape")
        elif key in (b"size", b"linkpath") or key.startswith(b"GNU.sparse"):
            raise IntegrityError(subject, expected="plain files", actual=f"pax record {key.decode('ascii', 'replace')}")
        data = data[size:]
    return path
