"""Programs and scripts that a drop carries as files: found by name, compared with their digests, put into a place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from airlift import fs, oci
from airlift.artifact import Artifact, DropConfig, Kind
from airlift.errors import DeployError, IntegrityError
from airlift.kinds import files
from airlift.kinds.files import NamedFile
from airlift.site.deploy.files import Measure, Sink
from airlift.store import Store


def find(drops: Sequence[DropConfig], names: Iterable[str], store: Store) -> NamedFile | None:
    """Return the file of the active drops that has the first of these names, or None.

    Args:
        drops: the active drops.
        names: what it may be called, best first; only the last part of a file's name counts.
        store: the site's.

    Raises:
        DeployError: two drops carry different files under one name.
        IntegrityError, StoreError: its manifest cannot be read.
    """
    carried = [item for drop in drops for item in drop.artifacts if item.kind is Kind.FILE]
    for name in names:
        found = {
            file.digest: file
            for item in carried
            if str(item.facts.get("name", "")).rpartition("/")[2] == name
            for file in (_file(item, store),)
        }
        if len(found) > 1:
            raise DeployError(
                "\n".join([f"the active drops carry {len(found)} different files {name}", *(f"  {d}" for d in found)]),
                hint="activate drops that agree, so that it is clear which one the machine gets",
            )
        for file in found.values():
            return file
    return None


def _file(artifact: Artifact, store: Store) -> NamedFile:
    root = artifact.root
    manifest = oci.parse_manifest(store.read(root.digest), subject=artifact.name, media_type=root.media_type)
    return files.file_of(manifest, subject=artifact.name)


def copy(file: NamedFile, store: Store, sink: Sink) -> None:
    """Stream a file into `sink`; its size and digest are compared on the way.

    Raises:
        IntegrityError: it is not what was shipped.
        StoreError: it cannot be read.
    """
    try:
        for chunk in store.chunks(file.digest, file.size):
            sink.write(chunk)
    except IntegrityError as error:
        subject = f"the drop's file {file.name}, {error.subject}"
        raise IntegrityError(subject, expected=error.expected, actual=error.actual, hint=error.hint) from None


def place(file: NamedFile, store: Store, path: Path) -> None:
    """Write a program to a path, whole or not at all, so that its owner may run it.

    Raises:
        IntegrityError: it is not what was shipped.
        StoreError: the disk refuses.
    """
    with fs.atomic(path, mode=0o700) as stream:
        copy(file, store, Measure(stream.write))
