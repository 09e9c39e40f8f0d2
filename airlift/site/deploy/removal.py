"""What earlier drops brought and these do not, removed in the way K3s needs: only when it is asked for.

* A release first leaves the cluster, then its manifest goes: K3s keeps what a removed manifest made. Meanwhile a file
  ``.skip`` beside the manifest keeps K3s from making the HelmChart again, which it does at every start.
* A chart goes after the last manifest that names it, a tarball last: its images stay on the node, no longer pinned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from airlift import fs, limits
from airlift.site.deploy import documents
from airlift.site.deploy.documents import Origin
from airlift.site.deploy.files import PlannedFile, locate
from airlift.site.deploy.helmchart import CHARTS, MANIFESTS, PREFIX
from airlift.site.deploy.tarball import FOLDER

_CHART = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*-[0-9a-f]{16}\.tgz")
_K3S_IMAGES = re.compile(r"k3s-[0-9a-f]{64}\.tar(\.zst|\.gz)?")
_NAMED = re.compile(rb"static/charts/([A-Za-z0-9.+_-]{1,255})")
_SUFFIX: Final = ".yaml"
_SKIP: Final = ".skip"


@dataclass(frozen=True, slots=True)
class Removal:
    """What goes, in this order.

    Attributes:
        manifests: of releases that leave the cluster.
        charts: archives that no manifest names any more.
        images: tarballs.
        skips: what a killed run left beside manifests that are gone.
    """

    manifests: tuple[PurePosixPath, ...] = ()
    skips: tuple[PurePosixPath, ...] = ()
    charts: tuple[PurePosixPath, ...] = ()
    images: tuple[PurePosixPath, ...] = ()

    @property
    def rest(self) -> tuple[PurePosixPath, ...]:
        """The files that go after the manifests."""
        return (*self.skips, *self.charts, *self.images)

    @property
    def files(self) -> tuple[PurePosixPath, ...]:
        """All files that go."""
        return (*self.manifests, *self.rest)


def release_of(manifest: PurePosixPath) -> str:
    """Return the name of the HelmChart of a manifest of ours."""
    return manifest.name.removeprefix(PREFIX).removesuffix(_SUFFIX)


def skip_of(manifest: PurePosixPath) -> PurePosixPath:
    """Return the file that makes K3s ignore a manifest."""
    return manifest.with_name(f"{manifest.name}{_SKIP}")


def plan(
    root: Path, planned: tuple[PlannedFile, ...], kept: tuple[PurePosixPath, ...], *, has_cluster: bool
) -> Removal:
    """Say what would go; nothing does.

    Args:
        root: what stands for ``/`` of the node.
        planned: what the drops need.
        kept: what earlier drops brought and would stay.
        has_cluster: whether releases can leave the cluster; else they stay, with their charts.

    Raises:
        DeployError: a symbolic link leads out of the root.
        StoreError: the disk cannot be read.
    """
    needed = {item.path for item in planned}
    manifests = tuple(path for path in kept if has_cluster and path.parent == MANIFESTS and _is_ours(root, path))
    named = _named_charts(root, without={*manifests, *needed})  # planned manifests name planned charts
    charts = [CHARTS / name for name in _names(root, CHARTS) if _CHART.fullmatch(name)]
    images = [path for path in kept if path.parent == FOLDER]
    if any(_K3S_IMAGES.fullmatch(path.name) for path in needed):
        images += [FOLDER / name for name in _names(root, FOLDER) if _K3S_IMAGES.fullmatch(name)]
    here = set(_names(root, MANIFESTS))
    skips = [name for name in here if name.startswith(PREFIX) and name.endswith(f"{_SUFFIX}{_SKIP}")]
    return Removal(
        manifests,
        tuple(MANIFESTS / name for name in sorted(skips) if name.removesuffix(_SKIP) not in here),
        tuple(path for path in charts if path not in needed and path.name not in named),
        tuple(path for path in images if path not in needed),
    )


def _is_ours(root: Path, path: PurePosixPath) -> bool:
    return documents.origin(locate(root, path))[0] is Origin.OURS


def _names(root: Path, folder: PurePosixPath) -> list[str]:
    place = locate(root, folder / "x").parent
    with fs.guarded("reading"):
        return sorted(item.name for item in place.iterdir() if item.is_file()) if place.is_dir() else []


def _named_charts(root: Path, *, without: set[PurePosixPath]) -> set[str]:
    """Return the chart files that manifests of anybody name, in sub-folders too, apart from these."""
    folder = locate(root, MANIFESTS / "x").parent
    found: set[str] = set()
    with fs.guarded("reading"):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and MANIFESTS / path.relative_to(folder) not in without:
                found |= set(_names_in(path))
    return found


def _names_in(path: Path) -> Iterator[str]:
    """Yield the chart files that a manifest names; one of others may be of any size."""
    rest = b""
    with path.open("rb") as stream:
        while chunk := stream.read(limits.CHUNK):
            text = rest + chunk
            yield from (name.decode() for name in _NAMED.findall(text))
            rest = text[-limits.NAME :]


def hide(root: Path, manifest: PurePosixPath) -> None:
    """Make K3s ignore a manifest.

    Raises:
        StoreError: the disk refuses.
    """
    fs.write(locate(root, skip_of(manifest)), b"", mode=0o600)


def remove(root: Path, paths: tuple[PurePosixPath, ...]) -> None:
    """Remove files; those that are gone already are no error.

    Raises:
        StoreError: the disk refuses.
    """
    for path in paths:
        place = locate(root, path)
        with fs.guarded("removing"):
            place.unlink(missing_ok=True)
            if place.parent.is_dir():
                fs.sync_directory(place.parent)
