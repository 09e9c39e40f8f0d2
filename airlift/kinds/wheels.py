"""Wheels: their file names, the one METADATA inside, and what it says.

- A file name is taken only in the form of the binary distribution format (PEP 427) and is kept as it came.
- A wheel is looked into through its directory alone: names that leave the archive, or differ only in case, are refused.
- Exactly one ``*.dist-info/METADATA``, bounded while it is unpacked, that names what the file name names.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from packaging.metadata import parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from airlift import canonical, limits, oci
from airlift.artifact import PYTHON_TYPE
from airlift.digest import Digest
from airlift.errors import IntegrityError
from airlift.oci import Descriptor

WHEEL_TYPE: Final = "application/vnd.airlift.python.wheel.v1+zip"
METADATA_TYPE: Final = "application/vnd.airlift.python.metadata.v1"

PROJECT: Final = "io.airlift.python.project"
VERSION: Final = "io.airlift.python.version"
REQUIRES_PYTHON: Final = "io.airlift.python.requires-python"
YANKED: Final = "io.airlift.python.yanked"
UPLOAD_TIME: Final = "io.airlift.python.upload-time"
SDIST_BUILT: Final = "io.airlift.python.sdist-built"

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl")
_DRIVE = re.compile(r"[A-Za-z]:")
_LICENCE_LENGTH = 100
_ENCRYPTED = 0x1
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def normalise(project: str) -> str:
    """Return a project's one name: lower case, runs of ``-``, ``_`` and ``.`` as one ``-`` (PEP 503)."""
    return str(canonicalize_name(project))


@dataclass(frozen=True, slots=True)
class WheelName:
    """What a wheel's file name says."""

    filename: str
    project: str
    version: Version
    tags: frozenset[Tag]


def parse_filename(filename: str) -> WheelName:
    """Read a wheel's file name.

    Raises:
        IntegrityError: it is not the name of a wheel, or names a path.
    """
    if len(filename) > limits.NAME or _FILE_NAME.fullmatch(filename) is None:
        raise IntegrityError(f"file name {filename[:100]!r}", expected="the name of a wheel", actual="another name")
    try:
        project, version, _, tags = parse_wheel_filename(filename)
    except (InvalidWheelFilename, InvalidVersion) as error:
        raise IntegrityError(f"file name {filename!r}", expected="the name of a wheel", actual=str(error)) from None
    return WheelName(filename, str(project), version, tags)


@dataclass(frozen=True, slots=True)
class Metadata:
    """What METADATA says, as far as we use it.

    Attributes:
        project: normalised name.
        version: as written.
        requires_python: as written, or None.
        requires_dist: requirements, markers included.
        licence: SPDX expression, or a short text, or None.
    """

    project: str
    version: str
    requires_python: str | None
    requires_dist: tuple[Requirement, ...]
    licence: str | None


def parse_metadata(data: bytes, *, wheel: WheelName) -> Metadata:
    """Read METADATA.

    Args:
        data: its bytes.
        wheel: the file that it describes.

    Raises:
        IntegrityError: it is too large, names another distribution, or holds something that cannot be understood.
    """
    subject = f"METADATA of {wheel.filename}"
    if len(data) > limits.SMALL_BLOB:
        raise IntegrityError(subject, expected=f"at most {limits.SMALL_BLOB} bytes", actual=f"{len(data)} bytes")
    raw, _ = parse_email(data)
    name, version = raw.get("name", ""), raw.get("version", "")
    try:
        same = canonicalize_name(name) == wheel.project and Version(version) == wheel.version
    except InvalidVersion:
        same = False
    if not same:
        raise IntegrityError(
            subject, expected=f"{wheel.project} {wheel.version}", actual=f"{name[:100]} {version[:100]}"
        )
    requires_python = raw.get("requires_python")
    try:
        SpecifierSet(requires_python or "")
        requires = tuple(Requirement(line) for line in raw.get("requires_dist", []))
    except (InvalidSpecifier, InvalidRequirement) as error:
        first = str(error).partition("\n")[0]
        raise IntegrityError(subject, expected="valid requirements", actual=first) from None
    text = raw.get("license", "").strip()
    said = raw.get("license_expression") or text
    licence = said.encode("utf-8", "replace").decode() if len(said) <= _LICENCE_LENGTH and "\n" not in said else None
    return Metadata(wheel.project, version, requires_python or None, requires, licence or None)


def read_metadata(stream: BinaryIO, *, wheel: WheelName) -> bytes:
    """Return METADATA out of a wheel, which need not be on this disk: only its directory and one member are read.

    Raises:
        IntegrityError: the wheel is no zip archive, has names that leave it or collide, or has not exactly one METADATA
            of its own that is within `limits.SMALL_BLOB`.
    """
    subject = wheel.filename
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            check_members([item.orig_filename for item in members], subject=subject)
            found = [item for item in members if _is_metadata(item.filename)]
            own = [item for item in found if _dist_info_of(item.filename) == wheel.project]
            if len(found) != 1 or not own:
                names = ", ".join(item.filename for item in found[:3]) or "none"
                raise IntegrityError(subject, expected="exactly one METADATA, its own", actual=names)
            return _unpack(archive, own[0], subject)
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, struct.error, EOFError, ValueError) as error:
        raise IntegrityError(subject, expected="a wheel (zip archive)", actual=str(error)[:200]) from None


def _is_metadata(name: str) -> bool:
    folder, slash, file = name.partition("/")
    return bool(slash) and file == "METADATA" and folder.endswith(".dist-info")


def _dist_info_of(name: str) -> str:
    return normalise(name.partition("/")[0].removesuffix(".dist-info").partition("-")[0])


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, subject: str) -> bytes:
    expected = f"METADATA of at most {limits.SMALL_BLOB} bytes"
    if member.flag_bits & _ENCRYPTED or member.compress_type not in _COMPRESSIONS or member.header_offset < 0:
        raise IntegrityError(subject, expected="a stored or deflated METADATA", actual="one that cannot be read")
    if member.file_size > limits.SMALL_BLOB:
        raise IntegrityError(subject, expected=expected, actual=f"{member.file_size} bytes")
    with archive.open(member) as stream:
        data = stream.read(limits.SMALL_BLOB + 1)
    # The declared size is the archive's word; what was unpacked is counted as well.
    if len(data) > limits.SMALL_BLOB:
        raise IntegrityError(subject, expected=expected, actual="more")
    return data


def check_members(names: Sequence[str], *, subject: str) -> None:
    """Refuse an archive whose names would leave it, or become one name where case does not count.

    Raises:
        IntegrityError: naming the first such name, or that there are too many.
    """
    if len(names) > limits.ARCHIVE_MEMBERS:
        raise IntegrityError(
            subject, expected=f"at most {limits.ARCHIVE_MEMBERS} members", actual=f"{len(names)} members"
        )
    taken: set[str] = set()
    spelled: dict[str, str] = {}
    for name in names:
        parts = name.removesuffix("/").split("/")
        bad = not name or len(name) > limits.NAME or "\\" in name or "\x00" in name or _DRIVE.match(name)
        if bad or any(part in ("", ".", "..") for part in parts):
            raise IntegrityError(subject, expected="names inside the wheel", actual=f"{name[:100]!r}")
        # A folder counts as well: "A/x" and "a/y" land in one place where case does not count.
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            other = spelled.setdefault(path.casefold(), path)
            if other != path:
                both = f"{other!r} and {path!r}"
                raise IntegrityError(subject, expected="names that differ in more than case", actual=both)
        if name in taken:
            raise IntegrityError(subject, expected="every name once", actual=f"{name!r} twice")
        taken.add(name)


@dataclass(frozen=True, slots=True)
class DistributionFile:
    """One wheel as a drop carries it.

    Attributes:
        name: what the file name says.
        digest, size: of the wheel.
        metadata_digest, metadata_size: of its METADATA.
        requires_python: from METADATA.
        yanked: the reason (empty when none was given), or None when it is not yanked.
        upload_time: as the index says it, or None.
        sdist_built: ``<sdist file name>@<digest>`` when the wheel was built by airlift, else None.
    """

    name: WheelName
    digest: Digest
    size: int
    metadata_digest: Digest
    metadata_size: int
    requires_python: str | None = None
    yanked: str | None = None
    upload_time: str | None = None
    sdist_built: str | None = None

    def manifest(self) -> bytes:
        """Return the image manifest that carries it."""
        said = {
            oci.TITLE: self.name.filename,
            PROJECT: self.name.project,
            VERSION: str(self.name.version),
            REQUIRES_PYTHON: self.requires_python,
            YANKED: self.yanked,
            UPLOAD_TIME: self.upload_time,
            SDIST_BUILT: self.sdist_built,
        }
        layers = [
            Descriptor(WHEEL_TYPE, self.digest, self.size),
            Descriptor(METADATA_TYPE, self.metadata_digest, self.metadata_size),
        ]
        return canonical.encode(
            {
                "schemaVersion": 2,
                "mediaType": oci.MANIFEST,
                "artifactType": PYTHON_TYPE,
                "config": oci.describe(oci.EMPTY_CONFIG, oci.EMPTY).to_json(),
                "layers": [layer.to_json() for layer in layers],
                "annotations": {key: value for key, value in said.items() if value is not None},
            }
        )


def set_index(manifests: Sequence[bytes]) -> bytes:
    """Return the image index of a set of wheels, from their manifests in order."""
    entries = []
    for data in manifests:
        own = oci.describe(data, oci.MANIFEST)
        entries.append(Descriptor(own.media_type, own.digest, own.size, artifact_type=PYTHON_TYPE).to_json())
    return canonical.encode(
        {"schemaVersion": 2, "mediaType": oci.INDEX, "artifactType": PYTHON_TYPE, "manifests": entries}
    )


def parse_manifest(data: bytes, *, subject: str) -> DistributionFile:
    """Read a wheel's manifest again.

    Raises:
        IntegrityError: it is not a manifest of `DistributionFile`.
    """
    manifest = oci.parse_manifest(data, subject=subject, media_type=oci.MANIFEST)
    said = manifest.annotations
    types = [layer.media_type for layer in manifest.layers]
    if manifest.artifact_type != PYTHON_TYPE or types != [WHEEL_TYPE, METADATA_TYPE]:
        raise IntegrityError(subject, expected=f"{PYTHON_TYPE} with a wheel and its METADATA", actual=str(types)[:200])
    name = parse_filename(said.get(oci.TITLE, ""))
    if (said.get(PROJECT), said.get(VERSION)) != (name.project, str(name.version)):
        raise IntegrityError(
            subject, expected=f"{name.project} {name.version}", actual=f"{said.get(PROJECT)} {said.get(VERSION)}"
        )
    wheel, metadata = manifest.layers
    return DistributionFile(
        name,
        wheel.digest,
        wheel.size,
        metadata.digest,
        metadata.size,
        said.get(REQUIRES_PYTHON),
        said.get(YANKED),
        said.get(UPLOAD_TIME),
        said.get(SDIST_BUILT),
    )
