"""A copy of K3s's datastore, made before another K3s opens it: a newer one may change it for good."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Final

from airlift import fs
from airlift.digest import Digest, hex_of
from airlift.site.deploy.files import locate

FOLDER: Final = PurePosixPath("var/lib/rancher/k3s/server/db")
_ETCD: Final = "etcd"
_SQLITE: Final = "state.db"


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
    return f"airlift-before-{hex_of(binary)[:12]}"


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
        part = source / f".{first.name}.part"
        shutil.rmtree(part, ignore_errors=True)
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
