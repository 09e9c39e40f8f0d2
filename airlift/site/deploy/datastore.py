"""A copy of K3s's datastore, made before another K3s opens it: a newer one may change it for good.

The newest copies are kept, and of every K3s that a drop of the site has the one that was made before it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from airlift import fs
from airlift.digest import Digest, hex_of
from airlift.site.deploy.files import locate

FOLDER: Final = PurePosixPath("var/lib/rancher/k3s/server/db")
_ETCD: Final = "etcd"
_SQLITE: Final = "state.db"
_SNAPSHOTS: Final = FOLDER / "snapshots"
_PREFIX: Final = "airlift-before-"
KEPT: Final = 3
"""How many of the newest copies are kept in any case, the one that is about to be made among them."""


def has_etcd(root: Path) -> bool:
    """Say whether the node's datastore is K3s's etcd.

    Raises:
        DeployError: a symbolic link leads out of the root.
    """
    return locate(root, FOLDER / _ETCD).is_dir()


def has_sqlite(root: Path) -> bool:
    """Say whether the node's datastore is a SQLite file.

    Raises:
        DeployError: a symbolic link leads out of the root.
    """
    return locate(root, FOLDER / _SQLITE).is_file() and not has_etcd(root)


def name(binary: Digest) -> str:
    """Return the snapshot's name: it is made before this K3s is started."""
    return f"{_PREFIX}{hex_of(binary)[:12]}"


def surplus(root: Path, needed: Iterable[Digest]) -> tuple[PurePosixPath, ...]:
    """Return the copies that are not needed any more once a new one is there, oldest first.

    Args:
        root: what stands for the node's ``/``.
        needed: the K3s of every drop that the site can go back to.

    Raises:
        DeployError: a symbolic link leads out of the root.
        StoreError: the disk cannot be read.
    """
    folder = _SNAPSHOTS if has_etcd(root) else FOLDER
    with fs.guarded("reading"):
        places = list(locate(root, folder / _PREFIX).parent.glob(f"{_PREFIX}*"))
        found = [place.name for place in sorted(places, key=lambda place: (place.stat().st_mtime_ns, place.name))]
    kept = set(found[len(found) - (KEPT - 1) :])
    for start in map(name, needed):
        # A run that was repeated may have made the later ones when that K3s had been started already.
        mine = [item for item in found if item.startswith(start)]
        kept |= {*mine[:1], *mine[-1:]}
    return tuple(folder / item for item in found if item not in kept)


def remove(root: Path, copies: Iterable[PurePosixPath]) -> None:
    """Remove copies of the SQLite datastore.

    Raises:
        DeployError: a symbolic link leads out of the root.
        StoreError: the disk refuses.
    """
    for copy in copies:
        place = locate(root, copy)
        with fs.guarded("removing"):
            # Under another name first: half a copy is never taken for one.
            shutil.rmtree(place.replace(place.with_name(f".{place.name}.part")))


def size(root: Path) -> int:
    """Return how many bytes a copy of the datastore takes, or a snapshot of etcd.

    Raises:
        DeployError: a symbolic link leads out of the root.
        StoreError: the disk cannot be read.
    """
    source = locate(root, FOLDER / _SQLITE).parent
    etcd = source / _ETCD / "member" / "snap" / "db"
    with fs.guarded("reading"):
        return sum(path.stat().st_size for path in [etcd, *_copied(source)] if path.is_file())


def _copied(source: Path) -> list[Path]:
    return [path for path in [*sorted(source.glob(f"{_SQLITE}*")), source.parent / "token"] if path.is_file()]


def copy_sqlite(root: Path, binary: Digest) -> Path:
    """Copy the files of the SQLite datastore, while K3s is stopped, and the token that its content is encrypted with.

    An earlier copy is never touched: when a run is repeated, there is one more.

    Returns:
        Where the copy is.

    Raises:
        StoreError: the disk refuses.
    """
    source = locate(root, FOLDER / _SQLITE).parent
    first = source / name(binary)
    with fs.guarded("copying the datastore"):
        target, number = first, 1
        while target.exists():
            number += 1
            target = first.with_name(f"{first.name}-{number}")
        for abandoned in source.glob(f".{_PREFIX}*.part"):
            shutil.rmtree(abandoned, ignore_errors=True)
        part = source / f".{first.name}.part"
        part.mkdir(mode=0o700)
        try:
            for path in _copied(source):
                shutil.copy2(path, part / path.name)
                with (part / path.name).open("rb+") as stream:
                    os.fsync(stream.fileno())
            fs.sync_directory(part)
            part.replace(target)
        finally:
            # Half of it would take the room that is missing.
            shutil.rmtree(part, ignore_errors=True)
        fs.sync_directory(source)
    return target
