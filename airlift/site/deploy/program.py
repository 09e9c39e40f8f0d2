"""K3s itself from the drop: its binary, its install script and its own images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from airlift import digest
from airlift.artifact import DropConfig, Kind
from airlift.errors import DeployError
from airlift.kinds.files import NamedFile
from airlift.oci import Platform
from airlift.site.deploy import carried
from airlift.site.deploy.files import Action, PlannedFile, locate, plan_stream
from airlift.site.deploy.k3s_version import Scanner, Version
from airlift.site.deploy.tarball import FOLDER
from airlift.store import Store

BINARY: Final = PurePosixPath("usr/local/bin/k3s")
SCRIPT: Final = PurePosixPath("usr/local/lib/airlift/k3s-install.sh")
_PROGRAM_MODE: Final = 0o755
_IMAGES_MODE: Final = 0o644
_SUFFIX: Final = {"amd64": "", "arm64": "-arm64", "arm": "-armhf"}
_ARCHIVES: Final = (".tar.zst", ".tar.gz", ".tar")
_PAUSE: Final = "/mirrored-pause:"


@dataclass(frozen=True, slots=True)
class Program:
    """K3s's files on a node.

    Attributes:
        binary, script: as planned.
        images: the archive with K3s's own images, when the drop carries one.
        version: of the binary, where it says so.
    """

    binary: PlannedFile
    script: PlannedFile
    images: tuple[PlannedFile, ...]
    version: Version | None

    @property
    def files(self) -> tuple[PlannedFile, ...]:
        """All of them, in the order in which they are written."""
        return (*self.images, self.script, self.binary)


def plan(root: Path, drops: Sequence[DropConfig], platform: Platform, store: Store) -> Program:
    """Return the plans for K3s's files; every byte is compared with its digest on the way.

    Raises:
        DeployError: the drops do not carry K3s for this processor, or not its images.
        IntegrityError: a file at the site is not what was shipped.
        StoreError: something cannot be read.
    """
    suffix = _suffix(platform)
    binary = _required(drops, _binary_names(platform), store)
    script = _required(drops, ["install.sh", "k3s-install.sh"], store)
    archive_names = [f"k3s-airgap-images-{suffix.lstrip('-') or platform.architecture}{end}" for end in _ARCHIVES]
    archive = carried.find(drops, archive_names, store)
    if archive is None and not _has_own_images(drops):
        raise DeployError(
            "the active drops have none of K3s's own images, and no node starts a pod without them",
            hint=f"the release engineer has to add {archive_names[0]} of the same K3s release under `files:`, or its"
            " images under `k3s.preload`",
        )
    planned, version = _binary(root, binary, store)
    return Program(
        planned,
        _plan(root, SCRIPT, script, store, _PROGRAM_MODE),
        () if archive is None else (_images(root, archive, store),),
        version,
    )


def plan_binary(
    root: Path, drops: Sequence[DropConfig], platform: Platform, store: Store
) -> tuple[PlannedFile, Version | None] | None:
    """Return the plan for K3s's binary alone, and its version; None when the drops carry none.

    Raises:
        DeployError: there is no K3s for this processor, or the drops carry different ones.
        IntegrityError: it is not what was shipped.
        StoreError: something cannot be read.
    """
    file = find_binary(drops, platform, store)
    return None if file is None else _binary(root, file, store)


def find_binary(drops: Sequence[DropConfig], platform: Platform, store: Store) -> NamedFile | None:
    """Return what drops have as K3s's binary; None when they carry none.

    Raises:
        DeployError: there is no K3s for this processor, or the drops carry different ones.
        IntegrityError, StoreError: what lists it is damaged, or cannot be read.
    """
    return carried.find(drops, _binary_names(platform), store)


def _suffix(platform: Platform) -> str:
    suffix = _SUFFIX.get(platform.architecture)
    if suffix is None:
        raise DeployError(f"K3s is not made for {platform}")
    return suffix


def _binary_names(platform: Platform) -> list[str]:
    return [f"k3s{_suffix(platform)}", f"k3s-{platform.architecture}"]


def _required(drops: Sequence[DropConfig], names: Sequence[str], store: Store) -> NamedFile:
    found = carried.find(drops, names, store)
    if found is None:
        raise DeployError(
            f"the active drops carry no file {' or '.join(names)}",
            hint="write files only with --root, or the release engineer has to add K3s's binary and install script"
            " to `files:`",
        )
    return found


def _has_own_images(drops: Sequence[DropConfig]) -> bool:
    return any(_PAUSE in item.name for drop in drops for item in drop.artifacts if item.kind is Kind.IMAGE)


def _binary(root: Path, file: NamedFile, store: Store) -> tuple[PlannedFile, Version | None]:
    """Return the plan for the binary, and its version, for which it is not read once more."""
    scanner = Scanner()
    planned = _plan(root, BINARY, file, store, _PROGRAM_MODE, also=scanner.write)
    return planned, scanner.version


def _plan(
    root: Path,
    path: PurePosixPath,
    file: NamedFile,
    store: Store,
    mode: int,
    *,
    also: Callable[[bytes], object] | None = None,
) -> PlannedFile:
    return plan_stream(root, path, lambda sink: carried.copy(file, store, sink), mode=mode, also=also)


def _images(root: Path, file: NamedFile, store: Store) -> PlannedFile:
    # Named by content, because K3s does not notice a replacement of the same size.
    end = next(end for end in _ARCHIVES if file.name.endswith(end))
    path = FOLDER / f"k3s-{digest.hex_of(file.digest)}{end}"
    planned = _plan(root, path, file, store, _IMAGES_MODE)
    if planned.action is Action.REPLACE:
        raise DeployError(
            f"{locate(root, path)} exists already with other content",
            hint="it is damaged: remove it and run the same command again",
        )
    return planned
