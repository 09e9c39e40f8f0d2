"""Which K3s a program is, read from its bytes: nothing is run, so a node of another processor can be looked at, too.

The linker puts K3s's version into the program as text between two zero bytes (``-X .../version.Version=v1.36.3+k3s1``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Self

from airlift import fs, limits
from airlift.site.deploy.files import locate

_MARK: Final = b"+k3s"
_BEFORE: Final = 48
_AFTER: Final = 40
_TEXT: Final = r"v(\d{1,3})\.(\d{1,3})\.(\d{1,3})(-[0-9A-Za-z.]{1,24})?\+k3s[0-9A-Za-z.-]{1,24}"
_VERSION = re.compile(_TEXT)
_IN_PROGRAM = re.compile(rb"\0(%s)\0" % _TEXT.encode())


@dataclass(frozen=True, slots=True)
class Version:
    """A version of K3s, which is that of its Kubernetes.

    Attributes:
        text: as K3s says it, such as ``v1.36.3+k3s1``.
        major, minor, patch: of Kubernetes.
    """

    text: str
    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """Return the version that a text is, or None."""
        found = _VERSION.fullmatch(text) if isinstance(text, str) else None
        return None if found is None else cls(found[0], int(found[1]), int(found[2]), int(found[3]))

    @property
    def line(self) -> str:
        """Its minor version, such as ``v1.36``."""
        return f"v{self.major}.{self.minor}"

    def minors_after(self, other: Version) -> int:
        """Return how many minor versions it is newer than another; below zero when it is older."""
        same = self.major == other.major
        return self.minor - other.minor if same else (self.major - other.major) * 1000

    def __str__(self) -> str:
        return self.text


class Scanner:
    """Takes the bytes of a program and finds K3s's version in them."""

    def __init__(self) -> None:
        """Begin."""
        self._tail = b""
        self._found: set[str] = set()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        text = self._tail + data
        at = text.find(_MARK)
        while at >= 0:
            window = text[max(0, at - _BEFORE) : at + _AFTER]
            self._found |= {found[1].decode() for found in _IN_PROGRAM.finditer(window)}
            at = text.find(_MARK, at + 1)
        self._tail = text[-(_BEFORE + _AFTER) :]

    @property
    def version(self) -> Version | None:
        """The version; None when there is none, or more than one."""
        return Version.parse(next(iter(self._found))) if len(self._found) == 1 else None


def of_file(root: Path, path: PurePosixPath) -> Version | None:
    """Return the version of a program on a node; None when it is not there or does not say.

    Raises:
        DeployError: a symbolic link leads out of the root.
        StoreError: it cannot be read.
    """
    place = locate(root, path)
    if not place.is_file():
        return None
    scanner = Scanner()
    with fs.guarded("reading"), place.open("rb") as stream:
        while chunk := stream.read(limits.CHUNK):
            scanner.write(chunk)
    return scanner.version
