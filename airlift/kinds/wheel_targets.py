"""The Python environment that wheels are for: its tags, its markers, and whether a set is complete for it.

A target says Python ``X.Y`` or ``X.Y.Z``. Without a patch number the newest patch is meant: markers and
Requires-Python see ``X.Y.99``. Who runs an older patch, where that matters, writes it (``"3.11.2"``).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from packaging import tags as packaging_tags
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag

from airlift.errors import ResolveError
from airlift.kinds.wheels import Metadata, WheelName, normalise

NEWEST_PATCH: Final = 99
_MACHINES: Final = {
    "amd64": "x86_64",
    "386": "i686",
    "arm64": "aarch64",
    "arm64/v8": "aarch64",
    "arm/v6": "armv6l",
    "arm/v7": "armv7l",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "loong64": "loongarch64",
}
_INTEL: Final = ("x86_64", "i686")
_GLIBC_ALIASES: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_OLDEST_GLIBC: Final = 17
_LIBC = re.compile(r"(glibc|musl)-([0-9]{1,2})\.([0-9]{1,2})")
_PYTHON = re.compile(r"3\.([0-9]{1,2})(?:\.([0-9]{1,2}))?")
_PROBLEMS_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class WheelTarget:
    """One environment, as the manifest writes it.

    Attributes:
        python: ``3.12`` or ``3.12.7``.
        platform: ``linux/amd64``.
        libc: ``glibc-2.28`` or ``musl-1.2``.
    """

    python: str
    platform: str
    libc: str

    def __str__(self) -> str:
        return f"{self.python}-{self.platform.replace('/', '-')}-{self.libc}"

    @property
    def version(self) -> tuple[int, int, int]:
        """The Python version, patch included.

        Raises:
            ResolveError: it is not of that form.
        """
        match = _PYTHON.fullmatch(self.python)
        if match is None:
            raise ResolveError(f"target {self}: {self.python!r} is not a Python version, such as 3.12")
        return 3, int(match[1]), NEWEST_PATCH if match[2] is None else int(match[2])

    @property
    def full_version(self) -> str:
        """The Python version, patch included, as text."""
        return ".".join(str(part) for part in self.version)

    @property
    def machine(self) -> str:
        """What ``platform.machine()`` says there.

        Raises:
            ResolveError: there are no wheels for that platform.
        """
        system, _, architecture = self.platform.partition("/")
        if system != "linux" or architecture not in _MACHINES:
            raise ResolveError(
                f"target {self}: no wheel tags are known for the platform {self.platform}",
                hint=f"expected linux/ and one of {', '.join(_MACHINES)}",
            )
        return _MACHINES[architecture]

    def platforms(self) -> list[str]:
        """Return platform tags, best first.

        Every older tag is written out with its alias: pip expands only some of them by itself.
        """
        match = _LIBC.fullmatch(self.libc)
        if match is None:
            raise ResolveError(f"target {self}: {self.libc!r} is not a C library, such as glibc-2.28 or musl-1.2")
        major, minor, machine = int(match[2]), int(match[3]), self.machine
        found = []
        if match[1] == "glibc":
            for number in range(minor, (5 if machine in _INTEL else _OLDEST_GLIBC) - 1, -1):
                found.append(f"manylinux_{major}_{number}_{machine}")
                if number in _GLIBC_ALIASES:
                    found.append(f"{_GLIBC_ALIASES[number]}_{machine}")
        else:
            found += [f"musllinux_{major}_{number}_{machine}" for number in range(minor, -1, -1)]
        return [*found, f"linux_{machine}"]

    def tags(self) -> list[Tag]:
        """Return all wheel tags that run there, best first."""
        version, platforms = self.version[:2], self.platforms()
        interpreter = f"cp{version[0]}{version[1]}"
        return [
            *packaging_tags.cpython_tags(version, abis=[interpreter], platforms=platforms),
            *packaging_tags.compatible_tags(version, interpreter=interpreter, platforms=platforms),
        ]

    def markers(self) -> dict[str, str]:
        """Return the marker environment (PEP 508) of CPython there."""
        full = self.full_version
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": ".".join(str(part) for part in self.version[:2]),
            "sys_platform": "linux",
        }


@dataclass(frozen=True, slots=True)
class Chosen:
    """A wheel that was chosen for a target."""

    name: WheelName
    metadata: Metadata


def check_closure(
    target: WheelTarget,
    roots: Sequence[str],
    chosen: Mapping[str, Chosen],
) -> dict[str, tuple[str, ...]]:
    """Walk METADATA from the roots with the target's markers and return who depends on whom, by project.

    Args:
        target: the environment.
        roots: the requirements as written, markers included.
        chosen: the wheels, by normalised project.

    Raises:
        ResolveError: a wheel does not run there, is missing, is of an unwanted version, or nobody asked for it; all
            such findings at once.
    """
    walk = _Walk(target, chosen)
    for text in roots:
        walk.ask(Requirement(text), "", "the requirements")
    walk.run()
    problems = [*walk.problems, *_unfit(target, chosen)]
    problems += [f"{name} was chosen and nothing asks for it" for name in chosen if name not in walk.needs]
    if problems:
        shown = "".join(f"\n  {line}" for line in problems[:_PROBLEMS_SHOWN])
        raise ResolveError(f"the wheels for target {target} are not a complete set:{shown}")
    return {name: tuple(sorted(found)) for name, found in walk.needs.items()}


def _unfit(target: WheelTarget, chosen: Mapping[str, Chosen]) -> Iterator[str]:
    supported = set(target.tags())
    for item in chosen.values():
        if not item.name.tags & supported:
            yield f"{item.name.filename} does not run there"
        wanted = item.metadata.requires_python
        if wanted and not SpecifierSet(wanted).contains(target.full_version, prereleases=True):
            yield f"{item.name.filename} wants Python {wanted}"


class _Walk:
    def __init__(self, target: WheelTarget, chosen: Mapping[str, Chosen]) -> None:
        self._markers = target.markers()
        self._chosen = chosen
        self._queue: deque[tuple[str, str]] = deque()
        self._seen: set[tuple[str, str]] = set()
        self.needs: dict[str, set[str]] = {}
        self.problems: list[str] = []

    def ask(self, wanted: Requirement, extra: str, who: str) -> str | None:
        """Take one requirement; return the project when it applies and is there."""
        if wanted.marker is not None and not wanted.marker.evaluate({**self._markers, "extra": extra}):
            return None
        project = normalise(wanted.name)
        item = self._chosen.get(project)
        if wanted.url is not None:
            self.problems.append(f"{who} asks for {project} by address ({wanted.url})")
        elif item is None:
            self.problems.append(f"{who} asks for {wanted}, which was not chosen")
        elif not wanted.specifier.contains(item.name.version, prereleases=True):
            self.problems.append(f"{who} asks for {wanted}, and {item.name.version} was chosen")
        if item is None:
            return None
        for name in ("", *wanted.extras):
            if (project, name) not in self._seen:
                self._seen.add((project, name))
                self._queue.append((project, name))
        return project

    def run(self) -> None:
        """Walk until nothing new is asked for."""
        while self._queue:
            project, extra = self._queue.popleft()
            needs = self.needs.setdefault(project, set())
            who = f"{project}[{extra}]" if extra else project
            for wanted in self._chosen[project].metadata.requires_dist:
                found = self.ask(wanted, extra, who)
                if found is not None and found != project:
                    needs.add(found)
