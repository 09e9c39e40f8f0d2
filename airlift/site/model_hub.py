"""What a model hub knows of a site's models, and the documents that it answers, in server and static tree alike.

A branch is a name and moves with activation; a commit answers as long as a drop that holds it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airlift import digest as digests
from airlift import limits, oci
from airlift.digest import Digest
from airlift.kinds import models
from airlift.kinds.models import ModelFile
from airlift.site.catalog import Catalog
from airlift.site.listing import Service

DEFAULT: Final = "main"
"""The revision that a client means when it names none."""

_REMEMBERED: Final = 256


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A model at one commit.

    Attributes:
        model_id: ``name`` or ``organisation/name``.
        revision: the commit.
        files: by path.
        licence: what the drop says, while one that shows it is active.
    """

    model_id: str
    revision: str
    files: Mapping[str, ModelFile]
    licence: str | None


class Hub:
    """The models of a site's catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._files: dict[Digest, dict[str, ModelFile]] = {}

    def find(self, model_id: str, revision: str) -> Snapshot | None:
        """Return the model at a branch of an active drop or at a commit of a kept one.

        Raises:
            StoreError: the store does not have its manifest.
            IntegrityError: the manifest is damaged, or no model's.
        """
        names = self._catalog.names(Service.HUB, model_id)
        chosen = [value for value in names if revision == value["branch"]]
        if not chosen and revision == DEFAULT and len(names) == 1:
            # A model pinned at a tag is what a client without a revision means: there is no other.
            chosen = list(names)
        if not chosen:
            chosen = [value for value in names if revision == value["revision"]]
        if chosen:
            value = chosen[0]
            return Snapshot(model_id, value["revision"], self._read(value["digest"]), value.get("licence"))
        held = self._catalog.held_all(Service.HUB, model_id)
        kept = [item for item in held if revision and item.facts.get("revision") == revision]
        if not kept:
            return None
        # Two drops may have taken different parts of one commit: a commit has one content, so they add up.
        merged = {path: file for item in kept for path, file in self._read(item.digest).items()}
        return Snapshot(model_id, revision, merged, None)

    def knows(self, model_id: str) -> bool:
        """Say whether a kept drop has the model, at whatever revision."""
        return self._catalog.has_scope(Service.HUB, model_id)

    def revisions(self, model_id: str) -> list[str]:
        """Return every revision that `find` has a snapshot of, sorted."""
        names = self._catalog.names(Service.HUB, model_id)
        held = self._catalog.held_all(Service.HUB, model_id)
        found = {value["branch"] for value in names} | {item.facts.get("revision") for item in held}
        if len(names) == 1:
            found.add(DEFAULT)
        return sorted(revision for revision in found if revision)

    def _read(self, digest: Digest) -> dict[str, ModelFile]:
        if (known := self._files.get(digest)) is not None:
            return known
        data = self._catalog.read(digest, limit=limits.SMALL_BLOB)
        manifest = oci.parse_manifest(data, subject=digest)
        found = {item.path: item for item in models.files_of(manifest, subject=digest)}
        if len(self._files) >= _REMEMBERED:
            self._files.pop(next(iter(self._files)))
        self._files[digest] = found
        return found


def model_list(model_ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return ``/api/models``."""
    return [{"id": model_id, "modelId": model_id, "private": False} for model_id in model_ids]


def info(snapshot: Snapshot, *, with_blobs: bool) -> dict[str, Any]:
    """Return ``/api/models/ID/revision/REV``; `with_blobs` adds size and digest of each file."""
    value: dict[str, Any] = {
        "id": snapshot.model_id,
        "modelId": snapshot.model_id,
        "sha": snapshot.revision,
        "private": False,
        "gated": False,
        "disabled": False,
        "tags": [f"license:{snapshot.licence}"] if snapshot.licence else [],
        "siblings": [_sibling(file, with_blobs=with_blobs) for file in snapshot.files.values()],
    }
    if snapshot.licence:
        value["cardData"] = {"license": snapshot.licence}
    return value


def entries(snapshot: Snapshot, directory: str, *, is_recursive: bool) -> list[dict[str, Any]] | None:
    """Return ``/api/models/ID/tree/REV/DIRECTORY``; None when there is no such directory.

    Args:
        snapshot: whose files.
        directory: without a slash at its end; empty for all.
        is_recursive: also list what is in the directories below it, and no directories.
    """
    start = f"{directory}/" if directory else ""
    below = [file for file in snapshot.files.values() if file.path.startswith(start)]
    if start and not below:
        return None
    if is_recursive:
        return [entry(file) for file in below]
    folders = dict.fromkeys(start + f.path[len(start) :].split("/")[0] for f in below if "/" in f.path[len(start) :])
    listed: list[dict[str, Any]] = [
        {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in folders
    ]
    return listed + [entry(file) for file in below if "/" not in file.path[len(start) :]]


def entry(file: ModelFile) -> dict[str, Any]:
    """Return what a listing says of a file."""
    value: dict[str, Any] = {"type": "file", "oid": _oid(file), "size": file.size, "path": file.path}
    if file.git_oid is None:
        value["lfs"] = {"oid": digests.hex_of(file.digest), "size": file.size, "pointerSize": len(_pointer(file))}
    return value


def refs(names: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return ``/api/models/ID/refs``.

    Args:
        names: what the active drops say of the model.
    """
    branches = [
        {"name": value["branch"], "ref": f"refs/heads/{value['branch']}", "targetCommit": value["revision"]}
        for value in names
    ]
    return {"branches": branches, "tags": [], "converts": []}


def _sibling(file: ModelFile, *, with_blobs: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"rfilename": file.path}
    if with_blobs:
        value.update(size=file.size, blobId=_oid(file))
        if file.git_oid is None:
            value["lfs"] = {
                "sha256": digests.hex_of(file.digest),
                "size": file.size,
                "pointerSize": len(_pointer(file)),
            }
    return value


def _pointer(file: ModelFile) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid {file.digest}\nsize {file.size}\n".encode()


def _oid(file: ModelFile) -> str:
    """Return the Git object id: of the file, or of the pointer that stands for it."""
    if file.git_oid is not None:
        return file.git_oid
    pointer = _pointer(file)
    blob = models.git_blob(len(pointer))
    blob.update(pointer)
    return blob.hexdigest()
