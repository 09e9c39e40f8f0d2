"""The attest archive: small named files about a drop, held in memory whole (docs/bundle-format.md, section 9)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from airlift.bundle import layout
from airlift.errors import BundleError, UsageError

SBOM: Final = "sbom.cdx.json"
"""The file with the drop's SBOM (CycloneDX, JSON)."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the archive of these files.

    Raises:
        UsageError: a name is outside of the format.
    """
    parts: list[bytes] = []
    for name in sorted(files):
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"{name!r} is no name for a file of attest")
        data = files[name]
        parts += [layout.header(name, len(data)), data, bytes(layout.padding(len(data)))]
    return b"".join([*parts, layout.END])


def unpack(archive: bytes) -> dict[str, bytes]:
    """Return the files of an archive.

    Raises:
        BundleError: `pack` would not have made it.
    """
    files: dict[str, bytes] = {}
    at = 0
    last = ""
    end = len(archive) - len(layout.END)
    while at < end:
        name, size, before = layout.parse_header(archive[at : at + 3 * layout.BLOCK], limit=end - at)
        if _NAME.fullmatch(name) is None or name <= last:
            raise BundleError(f"attest: {name!r} is no name, or not in its place")
        start = at + before
        files[name] = archive[start : start + size]
        at = start + size + layout.padding(size)
        if any(archive[start + size : at]):
            raise BundleError(f"attest: {name} is not followed by zero bytes")
        last = name
    if at != end or archive[end:] != layout.END:
        raise BundleError("attest: the archive does not end where it should")
    return files
