"""Files under the root that stands for a node's ``/``: planned with digest and size, then written whole.

* Nothing is written while a plan is made; what a plan holds was read and verified once.
* A file appears under its name complete, by rename from a hidden ``.part`` beside it, which K3s ignores.
* Modes do not depend on the umask; no path leaves the root by a symbolic link.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from airlift import fs, limits
from airlift.digest import Digest
from airlift.errors import DeployError, IntegrityError, StoreError
from airlift.progress import Progress

PRIVATE_DIRECTORIES: Final = frozenset({"var/lib/rancher/k3s/server"})
"""What K3s itself makes with mode 0700; everything else that is missing gets 0755."""


class Sink(Protocol):
    """Takes bytes in order."""

    @property
    def written(self) -> int:
        """How many bytes were taken so far."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""


class Measure:
    """A sink that keeps only size and digest; with `forward` it also passes the bytes on."""

    def __init__(self, forward: Callable[[bytes], object] | None = None) -> None:
        self._forward = forward
        self._hash = hashlib.sha256()
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self.written += len(data)
        if self._forward is not None:
            self._forward(bytes(data))

    @property
    def digest(self) -> Digest:
        """Digest of what came so far."""
        return Digest("sha256:" + self._hash.hexdigest())


class Action(StrEnum):
    """What happens to a planned file."""

    CREATE = "create"
    REPLACE = "replace"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file that the root will have.

    Attributes:
        path: relative to the root.
        mode: permission bits.
        size, digest: of its content.
        action: what has to be done for it.
        write: writes the content into a sink, the same bytes each time.
        text: the content as it may be shown, without secrets, or None when it is not text.
        is_secret: whether there is a secret in it that could be guessed from its digest, which is then not shown.
    """

    path: PurePosixPath
    mode: int
    size: int
    digest: Digest
    action: Action
    write: Callable[[Sink], None]
    text: str | None = None
    is_secret: bool = False

    @property
    def shown_digest(self) -> Digest | None:
        """The digest, unless it would tell a secret to whoever tries words until one has it."""
        return None if self.is_secret else self.digest


def plan_bytes(
    root: Path, path: PurePosixPath, data: bytes, *, mode: int, text: str | None = None, is_secret: bool = False
) -> PlannedFile:
    """Return the plan for a file of these bytes.

    Raises:
        DeployError: its place is taken by something that is no file, or lies outside the root.
        StoreError: the disk cannot be read.
    """
    planned = plan_stream(root, path, lambda sink: sink.write(data), mode=mode, text=text)
    return replace(planned, is_secret=is_secret)


def plan_stream(
    root: Path,
    path: PurePosixPath,
    write: Callable[[Sink], None],
    *,
    mode: int,
    text: str | None = None,
    also: Callable[[bytes], object] | None = None,
) -> PlannedFile:
    """Return the plan for a file that `write` makes; it is made once, to measure it, and nothing is kept.

    Args:
        root: what stands for ``/`` of the node.
        path: relative to it.
        write: see `PlannedFile`.
        mode: permission bits.
        text: see `PlannedFile`.
        also: sees the content while it is measured.

    Raises:
        DeployError: its place is taken by something that is no file, or lies outside the root.
        IntegrityError: what `write` reads is damaged.
        StoreError: the disk cannot be read.
    """
    measure = Measure(also)
    write(measure)
    action = _action(root, path, measure.digest, measure.written, mode)
    return PlannedFile(path, mode, measure.written, measure.digest, action, write, text)


def _action(root: Path, path: PurePosixPath, digest: Digest, size: int, mode: int) -> Action:
    place = locate(root, path)
    with fs.guarded("reading"):
        try:
            found = place.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return Action.CREATE
    if not stat.S_ISREG(found.st_mode):
        raise DeployError(f"{place} is not a regular file", hint="move it away and run the same command again")
    same = found.st_size == size and stat.S_IMODE(found.st_mode) == mode and hash_file(place) == digest
    return Action.UNCHANGED if same else Action.REPLACE


def hash_file(path: Path) -> Digest:
    """Return the digest of a file's content.

    Raises:
        StoreError: it cannot be read.
    """
    digest = hashlib.sha256()
    with fs.guarded("reading"), path.open("rb") as stream:
        while chunk := stream.read(limits.CHUNK):
            digest.update(chunk)
    return Digest("sha256:" + digest.hexdigest())


def locate(root: Path, path: PurePosixPath) -> Path:
    """Return where a planned path is on this machine.

    Raises:
        DeployError: a symbolic link on the way leads out of the root.
        StoreError: the disk cannot be read.
    """
    with fs.guarded("reading"):
        top = root.resolve()
        parent = (root / path.parent).resolve()
    if not parent.is_relative_to(top):
        raise DeployError(
            f"{root / path.parent} leads out of {root}, to {parent}",
            hint="the directory given with --root stands for / of the node; make links inside it relative",
        )
    return root / path


@contextlib.contextmanager
def alone(root: Path, progress: Progress) -> Iterator[None]:
    """Keep other deployments into the same root waiting, those of other sites too.

    The root is made where it is missing, and goes again when nothing was written to it.

    Raises:
        StoreError: the disk refuses.
    """
    is_new = not root.exists()
    while True:
        make_directories(root, PurePosixPath())
        before = root.stat().st_ino
        with fs.alone(root, lambda: progress.note(f"waiting for another command that deploys to {root}")):
            if not root.exists() or root.stat().st_ino != before:
                continue  # whom we waited for made it, and took it away again
            try:
                yield
            finally:
                if is_new:
                    with contextlib.suppress(OSError):
                        root.rmdir()
            return


def sizes(items: Iterable[PlannedFile]) -> list[tuple[PurePosixPath, int]]:
    """Return path and size of planned files, for `check_space`."""
    return [(item.path, item.size) for item in items]


def check_space(root: Path, items: Iterable[tuple[PurePosixPath, int]]) -> None:
    """Accept disks that have room for what is to be written: paths, and bytes for each.

    Raises:
        StoreError: one has not.
    """
    needed: dict[int, int] = {}
    places: dict[int, Path] = {}
    with fs.guarded("reading"):
        for path, size in items:
            place = locate(root, path).parent
            while not place.exists():
                place = place.parent
            device = place.stat().st_dev
            needed[device] = needed.get(device, 0) + size
            places.setdefault(device, place)
        for device, size in needed.items():
            disk = os.statvfs(places[device])
            free = disk.f_bavail * disk.f_frsize
            if size > free:
                raise StoreError(
                    f"writing below {places[device]}: {size} bytes are needed and {free} are free",
                    hint="free some space on that disk and run the same command again; nothing was written",
                )


def write_file(root: Path, item: PlannedFile, progress: Progress) -> None:
    """Make one planned file, unless it is there already.

    Raises:
        IntegrityError: its content changed since it was planned.
        StoreError: the disk refuses.
    """
    if item.action is Action.UNCHANGED:
        return
    place = locate(root, item.path)
    make_directories(root, item.path.parent)
    with fs.atomic(place, mode=item.mode) as stream:

        def forward(data: bytes) -> None:
            stream.write(data)
            progress.advance(len(data))

        measure = Measure(forward)
        item.write(measure)
        if measure.digest != item.digest:
            raise IntegrityError(str(item.path), expected=item.digest, actual=measure.digest)


def make_directories(root: Path, path: PurePosixPath) -> None:
    """Make the root and the directories on the way to `path` that are missing, with fixed modes.

    Raises:
        StoreError: the disk refuses.
    """
    steps = [PurePosixPath(), *reversed([step for step in path.parents if step.parts]), path]
    with fs.guarded("creating"):
        for step in steps:
            place = root / step
            if not place.is_dir():
                try:
                    place.mkdir()
                except FileExistsError:
                    if place.is_dir():
                        # Another command has made it meanwhile: the root is made before anything in it can be locked.
                        continue
                    raise
                place.chmod(0o700 if str(step) in PRIVATE_DIRECTORIES else 0o755)


def remove_parts(root: Path, directories: Iterable[PurePosixPath]) -> None:
    """Remove the hidden part-files that a killed run left in these directories.

    Raises:
        StoreError: the disk refuses.
    """
    for directory in directories:
        with fs.guarded("removing"):
            fs.remove_abandoned(sorted((root / directory).glob(".*.[0-9]*.part")))


def remove_parts_of(root: Path, items: Iterable[PlannedFile]) -> None:
    """Remove the part-files that a killed run left of these files, in directories that are not ours alone.

    Raises:
        StoreError: the disk refuses.
    """
    for item in items:
        with fs.guarded("removing"):
            fs.remove_abandoned(fs.parts_of(locate(root, item.path).parent, f".{item.path.name}"))
