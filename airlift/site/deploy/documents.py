"""YAML that we write into a node: readable, the same bytes each time, and recognisable as ours and untouched.

The first lines of such a file are comments that hold the digest of the rest. So a file of an administrator, or one of
ours that somebody edited, is never overwritten, and no state beside the files is needed.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from airlift import digest, fs, limits
from airlift.errors import DeployError

_TITLE: Final = "# Written by airlift deploy k3s, which will not overwrite this file once it has been edited."
_HEAD = re.compile(re.escape(_TITLE.encode()) + rb"\n# (sha256:[0-9a-f]{64})\n", re.ASCII)


class Origin(StrEnum):
    """Whose a file is."""

    ABSENT = "absent"
    OURS = "ours"
    EDITED = "edited"
    FOREIGN = "foreign"


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a literal block, and the same object twice without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def dump(value: Any, *, comment: str = "") -> bytes:
    """Return a document with our head.

    Args:
        value: what it says.
        comment: lines for a person, above it.
    """
    lines = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    text = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=1 << 20
    )
    body = (lines + text).encode()
    return f"{_TITLE}\n# {digest.of(body)}\n".encode() + body


def origin(path: Path) -> tuple[Origin, bytes]:
    """Return whose file this is, and its content (empty when it is absent).

    Raises:
        DeployError: it is no regular file.
        StoreError: it cannot be read or is absurdly large.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise DeployError(f"{path} is not a regular file", hint="move it away and run the same command again")
    if not path.exists():
        return Origin.ABSENT, b""
    data = fs.read_bounded(path, limits.DOCUMENT)
    head = _HEAD.match(data)
    if head is None:
        return (Origin.EDITED if data.startswith(_TITLE.encode()) else Origin.FOREIGN), data
    return (Origin.OURS if head[1].decode() == digest.of(data[head.end() :]) else Origin.EDITED), data


def refuse_strangers(path: Path, found: Origin, *, hint: str) -> None:
    """Accept a place that is free or holds an untouched file of ours.

    Raises:
        DeployError: it holds something else.
    """
    if found is Origin.FOREIGN:
        raise DeployError(f"{path} exists and was not written by airlift; it is not overwritten", hint=hint)
    if found is Origin.EDITED:
        raise DeployError(f"{path} was edited after airlift wrote it; it is not overwritten", hint=hint)
