"""Where everything lies: tar headers, slots and offsets, computed and never guessed (docs/bundle-format.md, 3 and 9).

`header` is the one function that makes tar headers. Readers compare with what it returns; there is no tar parser.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from airlift.errors import BundleError, UsageError
from airlift.trust.signing import FRAME_SIZE, MAX_FRAMES, TAG_SIZE, Release

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
"""What follows the last member of every archive."""

PAX_THRESHOLD: Final = 8 * 1024**3
"""From here on a size does not fit into eleven octal digits."""

ENVELOPE: Final = "airlift.json"
KEYS: Final = "keys.json"
ROOTS: Final = "roots.json"
VOLUME: Final = "volume.json"
TREE: Final = "tree"
PAYLOAD: Final = "payload"
ATTEST: Final = "attest"

SLOTS: Final = {ENVELOPE: 256 * 1024, KEYS: 256 * 1024, ROOTS: 1024 * 1024, VOLUME: 4 * 1024}
_NAME: Final = re.compile(r"[A-Za-z0-9._/-]{1,95}")

OCI_LAYOUT: Final = "oci-layout"
INDEX: Final = "index.json"
BLOBS: Final = "blobs/sha256/"
_BLOB_NAME: Final = re.compile(r"blobs/sha256/[0-9a-f]{64}")


def padding(size: int) -> int:
    """Return the zero bytes that follow a member of `size` bytes."""
    return -size % BLOCK


def header(name: str, size: int) -> bytes:
    """Return everything that stands before a member's content.

    Raises:
        ValueError: the name or the size is outside of the format.
    """
    if _NAME.fullmatch(name) is None or size < 0:
        raise ValueError(f"no tar header for {name!r} with {size} bytes")
    if size < PAX_THRESHOLD:
        return _ustar(name, size, b"0")
    record = _pax_record("size", str(size))
    return _ustar(f"pax/{name}", len(record), b"x") + record + bytes(padding(len(record))) + _ustar(name, 0, b"0")


def header_size(size: int) -> int:
    """Return the length of `header` for a member of `size` bytes."""
    return BLOCK if size < PAX_THRESHOLD else 3 * BLOCK


def _pax_record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return f"{length}{body}".encode("ascii")


def _ustar(name: str, size: int, kind: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[0 : len(name)] = name.encode("ascii")
    block[100:108] = b"0000644\0"
    block[108:116] = b"0000000\0"
    block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[329:337] = b"0000000\0"
    block[337:345] = b"0000000\0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def parse_header(block: bytes, *, limit: int) -> tuple[str, int, int]:
    """Read the beginning of a member that `header` must have made.

    Args:
        block: at least the first 512 bytes, and 1536 where there are as many.
        limit: the largest content that can follow.

    Returns:
        Name, size of the content, length of the header.

    Raises:
        BundleError: `header` would not have written these bytes.
    """
    name = _text(block[:100])
    size_text = block[124:135]
    if block[156:157] == b"x":
        name = name.removeprefix("pax/")
        found = re.fullmatch(rb"\d{2} size=(\d{10,15})\n\0+", block[BLOCK : 2 * BLOCK])
        size = int(found[1]) if found else -1
    else:
        size = int(size_text, 8) if re.fullmatch(rb"[0-7]{11}", size_text) else -1
    try:
        expected = header(name, size)
    except ValueError:
        raise BundleError("archive: a member's header is not one that airlift writes") from None
    if block[: len(expected)] != expected:
        raise BundleError(f"archive: the header of {name!r} is not the one that airlift writes")
    if size > limit:
        raise BundleError(f"archive: {name!r} claims {size} bytes, only {limit} are left")
    return name, size, len(expected)


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("ascii", errors="replace")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive."""

    name: str
    size: int


class Archive:
    """The offsets of an archive whose members are known by name and size."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self._by_name: dict[str, int] = {}
        self._starts: list[int] = []
        position = 0
        for index, member in enumerate(self.members):
            if member.name in self._by_name:
                raise UsageError(f"{member.name} is planned twice")
            self._by_name[member.name] = index
            self._starts.append(position)
            position += header_size(member.size) + member.size + padding(member.size)
        self._end = position
        self.size = position + len(END)

    def offset_of(self, name: str) -> int:
        """Return where a member's content begins.

        Raises:
            KeyError: there is none of this name.
        """
        index = self._by_name[name]
        return self._starts[index] + header_size(self.members[index].size)

    def size_of(self, name: str) -> int:
        """Return the size of a member's content.

        Raises:
            KeyError: there is none of this name.
        """
        return self.members[self._by_name[name]].size

    def fixed(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield what is not content between two offsets: headers, padding and end, as offset and bytes."""
        index = max(bisect_right(self._starts, start) - 1, 0)
        while index < len(self.members) and self._starts[index] < end:
            member = self.members[index]
            at = self._starts[index]
            yield from _clip(at, header(member.name, member.size), start, end)
            after = at + header_size(member.size) + member.size
            yield from _clip(after, bytes(padding(member.size)), start, end)
            index += 1
        yield from _clip(self._end, END, start, end)


def _clip(at: int, data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    low, high = max(at, start), min(at + len(data), end)
    if low < high:
        yield low, data[low - at : high - at]


class PayloadPlan(Archive):
    """The payload of a bundle, known before its first byte.

    Attributes:
        members: in the order of the archive: ``oci-layout``, ``index.json``, then the blobs.
        size: bytes of the whole archive, its end included.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        """Compute all offsets.

        Raises:
            UsageError: the order, a name or a size is outside of the format, or a name comes twice.
        """
        if [one.name for one in members[:2]] != [OCI_LAYOUT, INDEX]:
            raise UsageError(f"a payload begins with {OCI_LAYOUT} and {INDEX}")
        for member in members[2:]:
            if _BLOB_NAME.fullmatch(member.name) is None:
                raise UsageError(f"{member.name!r} is no name of a blob")
        if any(member.size < 0 for member in members):
            raise UsageError("a member of the payload has a negative size")
        super().__init__(members)
        if self.size > MAX_FRAMES * (FRAME_SIZE - TAG_SIZE):
            raise UsageError(f"the payload is {self.size} bytes, more than a bundle can hold")


def is_blob(name: str) -> bool:
    """Tell whether a payload member is a blob."""
    return _BLOB_NAME.fullmatch(name) is not None


class Container:
    """The offsets of a bundle's own members."""

    def __init__(self, *, digest_size: int, frames: int, payload_size: int, attest_size: int) -> None:
        self._archive = Archive(
            [
                *(Member(name, size) for name, size in SLOTS.items()),
                Member(TREE, frames * digest_size),
                Member(PAYLOAD, payload_size),
                Member(ATTEST, attest_size),
            ]
        )
        self.size = self._archive.size

    @classmethod
    def of(cls, release: Release, *, digest_size: int) -> Container:
        """Return the layout that a release describes."""
        return cls(
            digest_size=digest_size,
            frames=release.frames,
            payload_size=release.payload_size,
            attest_size=release.attest_size,
        )

    def offset_of(self, name: str) -> int:
        """Return where a member's content begins."""
        return self._archive.offset_of(name)

    def size_of(self, name: str) -> int:
        """Return the size of a member's content."""
        return self._archive.size_of(name)

    def fixed(self) -> Iterator[tuple[int, bytes]]:
        """Yield every header, padding and the end, as offset and bytes."""
        return self._archive.fixed(0, self.size)


def slot(name: str, content: bytes) -> bytes:
    """Return the content of a slot, filled up with spaces.

    Raises:
        UsageError: it does not fit.
    """
    if len(content) > SLOTS[name]:
        raise UsageError(f"{name} is {len(content)} bytes, its slot holds {SLOTS[name]}")
    return content.ljust(SLOTS[name], b" ")


def volume_document(frames: int) -> dict[str, int]:
    """Return what ``volume.json`` says of a bundle that is one volume."""
    return {"volume": 1, "volumes": 1, "first": 0, "count": frames}
