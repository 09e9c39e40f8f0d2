"""The wheel of the airlift that is running, made again from its own files.

A site gets exactly the code that made its bundles. The same code gives the same bytes: names are sorted, times are
fixed, and nothing is compressed (zlib and its successors differ).
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Final

import airlift
from airlift import fs, limits
from airlift.errors import IntegrityError, UsageError

NAME: Final = "airlift"
_TIME: Final = (1980, 1, 1, 0, 0, 0)
_WHEEL: Final = b"Wheel-Version: 1.0\nGenerator: airlift\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_CARRIED: Final = ("METADATA", "entry_points.txt", "top_level.txt")
_LICENCES: Final = "licenses"


def own_wheel() -> tuple[str, bytes]:
    """Return the wheel's file name and content.

    Raises:
        UsageError: this airlift is not installed, not even as a source tree (``pip install -e``).
        IntegrityError: an installed file is not what was installed.
        StoreError: a file cannot be read.
    """
    distribution = own_distribution()
    version = distribution.version
    info = f"{NAME}-{version}.dist-info"
    files = {**_package(distribution), **_description(distribution, info), f"{info}/WHEEL": _WHEEL}
    return f"{NAME}-{version}-py3-none-any.whl", _pack(files, f"{info}/RECORD")


def own_distribution() -> metadata.Distribution:
    """Return what is installed of the running airlift.

    Raises:
        UsageError: this airlift is not installed, not even as a source tree (``pip install -e``).
    """
    # A source tree in the current directory has an egg-info of some earlier day in front of what is installed.
    for found in metadata.distributions(name=NAME):
        if found.read_text("METADATA") is not None:
            return found
    raise UsageError(
        "this airlift runs without being installed, so nothing says what it needs",
        hint="install it with pip, or its source tree with pip install -e, and run it from there",
    )


def _package(distribution: metadata.Distribution) -> dict[str, bytes]:
    folder = Path(airlift.__file__).parent
    recorded = _recorded(distribution)
    files: dict[str, bytes] = {}
    # In a source tree, airlift/appliance is a link.
    found = (Path(at) / name for at, _, names in os.walk(folder, followlinks=True) for name in names)
    for path in sorted(found):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            name = str(PurePosixPath(NAME) / path.relative_to(folder).as_posix())
            files[name] = _checked(name, fs.read_bounded(path, limits.DOCUMENT), recorded)
    lost = set(recorded) - set(files)
    if lost:
        raise IntegrityError("the installed airlift", expected=min(lost), actual="no such file", hint=_AGAIN)
    return files


_AGAIN: Final = "install airlift again; the kit has to carry what was released"


def _checked(name: str, data: bytes, recorded: Mapping[str, str]) -> bytes:
    if recorded:
        actual = _record_digest(data)
        if recorded.get(name) != actual:
            raise IntegrityError(
                f"the installed file {name}",
                expected=recorded.get(name, "not to be there"),
                actual=actual,
                hint=_AGAIN,
            )
    return data


def _recorded(distribution: metadata.Distribution) -> dict[str, str]:
    """Return the digests of the package's files at installation; a source tree has none."""
    return {
        str(item): f"{item.hash.mode}={item.hash.value}"
        for item in distribution.files or ()
        if item.parts[0] == NAME and item.hash is not None and "__pycache__" not in item.parts
    }


def _description(distribution: metadata.Distribution, info: str) -> dict[str, bytes]:
    files = {}
    for name in _CARRIED:
        text = distribution.read_text(name)
        if text is not None:
            files[f"{info}/{name}"] = text.encode()
    for item in distribution.files or ():
        if len(item.parts) > 2 and item.parts[0] == info and item.parts[1] == _LICENCES:  # noqa: PLR2004 - info/licenses/x
            files[str(item)] = fs.read_bounded(Path(str(distribution.locate_file(item))), limits.DOCUMENT)
    return files


def _record_digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _pack(files: Mapping[str, bytes], record: str) -> bytes:
    lines = [f"{name},{_record_digest(data)},{len(data)}\n" for name, data in sorted(files.items())]
    content = {**dict(sorted(files.items())), record: "".join([*lines, f"{record},,\n"]).encode()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            member = zipfile.ZipInfo(name, _TIME)
            member.create_system = 3
            member.external_attr = 0o100644 << 16
            archive.writestr(member, data)
    return buffer.getvalue()
