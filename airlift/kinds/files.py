"""A file is one blob with a name; in a drop it is an ORAS-style artifact with the file as its only layer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from airlift import canonical, limits, oci
from airlift import digest as digests
from airlift.artifact import FILE_TYPE
from airlift.digest import Digest
from airlift.errors import IntegrityError
from airlift.oci import Descriptor, Manifest

MEDIA_TYPE: Final = "application/octet-stream"

_HEX: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file's name at the site and its content."""

    name: str
    digest: Digest
    size: int

    @property
    def descriptor(self) -> Descriptor:
        """The layer."""
        return Descriptor(MEDIA_TYPE, self.digest, self.size, {oci.TITLE: self.name})

    @property
    def artifact_name(self) -> str:
        """The artifact's name in the drop, ``files/<name>:<12 hex>``."""
        flat = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "file"
        return f"files/{flat}:{digests.hex_of(self.digest)[:12]}"


def pack(file: NamedFile) -> bytes:
    """Return the file's manifest.

    Raises:
        IntegrityError: the name is unsafe.
    """
    check_name(file.name)
    return canonical.encode(
        {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "artifactType": FILE_TYPE,
            "config": oci.describe(oci.EMPTY_CONFIG, oci.EMPTY).to_json(),
            "layers": [file.descriptor.to_json()],
        }
    )


def file_of(manifest: Manifest, *, subject: str) -> NamedFile:
    """Return the file that a manifest holds.

    Raises:
        IntegrityError: it is no file of ours, or its name is unsafe.
    """
    if manifest.artifact_type != FILE_TYPE or len(manifest.layers) != 1:
        raise IntegrityError(
            subject,
            expected=f"{FILE_TYPE} with one layer",
            actual=f"{manifest.artifact_type} with {len(manifest.layers)}",
        )
    layer = manifest.layers[0]
    name = layer.annotations.get(oci.TITLE, "")
    check_name(name)
    return NamedFile(name, layer.digest, layer.size)


def check_name(name: str) -> None:
    """Check that a file's name is a plain relative path, safe in a URL and on a disk.

    Raises:
        IntegrityError: it is not.
    """
    parts = name.split("/")
    if not 0 < len(name) <= limits.NAME or re.fullmatch(r"[A-Za-z0-9._+/-]+", name) is None:
        raise _bad(name, "letters, digits, '.', '_', '+', '-' and '/'")
    if any(part in ("", ".", "..") for part in parts):
        raise _bad(name, "a relative path in its shortest form")
    # /files/<64 hex digits>/<name> is the address of kept content.
    if _HEX.fullmatch(parts[0]):
        raise _bad(name, "a name that does not start with a digest")


def nested(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the places of a name and of the name that it is below: no tree of files can have both.

    Case is no difference, as on the media and desktops that drops travel over.
    """
    places = {name.lower(): place for place, name in reversed(list(enumerate(names)))}
    for place, name in enumerate(names):
        for parent in PurePosixPath(name.lower()).parents:
            if str(parent) in places:
                yield place, places[str(parent)]


def _bad(name: str, expected: str) -> IntegrityError:
    return IntegrityError("file name", expected=expected, actual=repr(name)[:100])
