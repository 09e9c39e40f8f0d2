"""The model hub: what huggingface_hub asks for, under ``/hf`` (``HF_ENDPOINT=<url>/hf``).

A branch is a name and moves with activation; a commit answers as long as a drop that holds it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from aiohttp import web

from airlift import digest as digests
from airlift import limits, oci
from airlift.kinds import models
from airlift.kinds.models import ModelFile
from airlift.site.listing import Service
from airlift.site.server import content

if TYPE_CHECKING:
    from airlift.digest import Digest
    from airlift.site.catalog import Catalog

_PREFIX: Final = "/hf/"
_REMEMBERED: Final = 256
_DEFAULT: Final = "main"


@dataclass(frozen=True, slots=True)
class _Tree:
    """A model at one commit."""

    model_id: str
    revision: str
    files: Mapping[str, ModelFile]
    licence: str | None


def routes(catalog: Catalog) -> list[web.AbstractRouteDef]:
    """Return the hub's routes."""
    hub = _Hub(catalog)
    return [
        web.get("/hf/api/models", hub.models),
        web.get("/hf/api/models/{tail:.+}", hub.api),
        web.post("/hf/api/models/{tail:.+}", hub.paths_info),
        web.get("/hf/{tail:.+}", hub.resolve),
        web.route("*", "/hf/{tail:.*}", hub.refuse),
    ]


class _Hub:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._files: dict[Digest, dict[str, ModelFile]] = {}

    async def models(self, _: web.Request) -> web.StreamResponse:
        """Answer the list of all models."""
        return _json([{"id": key, "modelId": key, "private": False} for key in self._catalog.keys(Service.HUB)])

    async def refuse(self, _: web.Request) -> web.StreamResponse:
        """Answer what would change something, and what no mirror has."""
        return _json({"error": "this hub is a read-only mirror"}, status=405)

    async def api(self, request: web.Request) -> web.StreamResponse:
        """Answer ``/api/models/ID[/revision/REV | /tree/REV[/DIR] | /refs]``."""
        parts = _parts(request)[2:]
        for position in (1, 2):
            model_id, rest = "/".join(parts[:position]), parts[position:]
            match rest:
                case []:
                    if position == len(parts) and self._known(model_id):
                        return self._info(request, model_id, _DEFAULT)
                case ["revision", revision]:
                    return self._info(request, model_id, revision)
                case ["tree", revision, *directory]:
                    return self._tree(request, model_id, revision, "/".join(directory))
                case ["refs"]:
                    return self._refs(model_id)
        return _missing("RepoNotFound", "Repository not found")

    async def paths_info(self, request: web.Request) -> web.StreamResponse:
        """Answer ``/api/models/ID/paths-info/REV``: a question that the client's file system puts as a POST."""
        parts = _parts(request)[2:]
        for position in (1, 2):
            match parts[position:]:
                case ["paths-info", revision]:
                    tree = self._find("/".join(parts[:position]), revision)
                    if isinstance(tree, web.Response):
                        return tree
                    form = await request.post()
                    wanted = {str(path) for path in form.getall("paths", [])}
                    return _json([_entry(file) for file in tree.files.values() if file.path in wanted])
        return await self.refuse(request)

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        """Answer ``/ID/resolve/REV/FILE``."""
        parts = _parts(request)
        for position in (1, 2):
            match parts[position:]:
                case ["resolve", revision, *path] if path:
                    return await self._file(request, "/".join(parts[:position]), revision, "/".join(path))
        return _missing("RepoNotFound", "Not found")

    def _known(self, model_id: str) -> bool:
        return bool(self._catalog.names(Service.HUB, model_id))

    def _find(self, model_id: str, revision: str) -> _Tree | web.Response:
        """Return the model at a branch of an active drop or at a commit of a kept one, else the answer that says no."""
        names = self._catalog.names(Service.HUB, model_id)
        chosen = [value for value in names if revision == value["branch"]]
        if not chosen and revision == _DEFAULT and len(names) == 1:
            # A model pinned at a tag is what a client without a revision means: there is no other.
            chosen = list(names)
        if not chosen:
            chosen = [value for value in names if revision == value["revision"]]
        if chosen:
            value = chosen[0]
            return _Tree(model_id, value["revision"], self._read(value["digest"]), value.get("licence"))
        held = self._catalog.held_all(Service.HUB, model_id)
        kept = [item for item in held if revision and item.facts.get("revision") == revision]
        if kept:
            # Two drops may have taken different parts of one commit: a commit has one content, so they add up.
            merged = {path: file for item in kept for path, file in self._read(item.digest).items()}
            return _Tree(model_id, revision, merged, None)
        if not names and not held:
            return _missing("RepoNotFound", "Repository not found")
        return _missing("RevisionNotFound", f"Invalid rev id: {revision}"[:200])

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

    def _info(self, request: web.Request, model_id: str, revision: str) -> web.StreamResponse:
        tree = self._find(model_id, revision)
        if isinstance(tree, web.Response):
            return tree
        with_blobs = request.query.get("blobs", "").lower() in ("true", "1")
        tags = [f"license:{tree.licence}"] if tree.licence else []
        value = {
            "id": model_id,
            "modelId": model_id,
            "sha": tree.revision,
            "private": False,
            "gated": False,
            "disabled": False,
            "tags": tags,
            "siblings": [_sibling(file, with_blobs=with_blobs) for file in tree.files.values()],
        }
        if tree.licence:
            value["cardData"] = {"license": tree.licence}
        return _json(value, revision=tree.revision)

    def _tree(self, request: web.Request, model_id: str, revision: str, directory: str) -> web.StreamResponse:
        tree = self._find(model_id, revision)
        if isinstance(tree, web.Response):
            return tree
        start = f"{directory.rstrip('/')}/" if directory else ""
        below = [file for file in tree.files.values() if file.path.startswith(start)]
        if start and not below:
            return _missing("EntryNotFound", f"{directory} does not exist on {revision!r}"[:300], tree.revision)
        if request.query.get("recursive", "").lower() in ("true", "1"):
            return _json([_entry(file) for file in below], revision=tree.revision)
        folders = dict.fromkeys(
            start + f.path[len(start) :].split("/")[0] for f in below if "/" in f.path[len(start) :]
        )
        entries: list[Mapping[str, Any]] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in folders
        ]
        entries += [_entry(file) for file in below if "/" not in file.path[len(start) :]]
        return _json(entries, revision=tree.revision)

    def _refs(self, model_id: str) -> web.StreamResponse:
        names = self._catalog.names(Service.HUB, model_id)
        if not names:
            return _missing("RepoNotFound", "Repository not found")
        branches = [
            {"name": value["branch"], "ref": f"refs/heads/{value['branch']}", "targetCommit": value["revision"]}
            for value in names
        ]
        return _json({"branches": branches, "tags": [], "converts": []})

    async def _file(self, request: web.Request, model_id: str, revision: str, path: str) -> web.StreamResponse:
        tree = self._find(model_id, revision)
        if isinstance(tree, web.Response):
            return tree
        file = tree.files.get(path)
        held = None if file is None else self._catalog.held(Service.HUB, model_id, file.digest)
        if file is None or held is None:
            return _missing("EntryNotFound", "Entry not found", tree.revision)
        headers = {"X-Repo-Commit": tree.revision, "ETag": f'"{file.git_oid or digests.hex_of(file.digest)}"'}
        if file.git_oid is None:
            headers["X-Linked-Etag"] = headers["ETag"]
            headers["X-Linked-Size"] = str(file.size)
        return await content.blob_response(request, self._catalog, held, headers=headers)


def _parts(request: web.Request) -> list[str]:
    """Return the path below ``/hf/``; a ``%2F`` stays inside its part, as in ``refs%2Fpr%2F1``."""
    raw = request.rel_url.raw_path
    return [unquote(part) for part in raw.removeprefix(_PREFIX).split("/")]


def _sibling(file: ModelFile, *, with_blobs: bool) -> dict[str, Any]:
    value: dict[str, Any] = {"rfilename": file.path}
    if with_blobs:
        value.update(size=file.size, blobId=_oid(file))
        if file.git_oid is None:
            value["lfs"] = {"sha256": digests.hex_of(file.digest), "size": file.size, "pointerSize": _pointer(file)}
    return value


def _entry(file: ModelFile) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "file", "oid": _oid(file), "size": file.size, "path": file.path}
    if file.git_oid is None:
        value["lfs"] = {"oid": digests.hex_of(file.digest), "size": file.size, "pointerSize": _pointer(file)}
    return value


def _pointer_text(file: ModelFile) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid {file.digest}\nsize {file.size}\n".encode()


def _pointer(file: ModelFile) -> int:
    return len(_pointer_text(file))


def _oid(file: ModelFile) -> str:
    """Return the Git object id: of the file, or of the pointer that stands for it."""
    if file.git_oid is not None:
        return file.git_oid
    pointer = _pointer_text(file)
    blob = models.git_blob(len(pointer))
    blob.update(pointer)
    return blob.hexdigest()


def _json(value: object, *, status: int = 200, revision: str | None = None) -> web.Response:
    headers = {"X-Repo-Commit": revision} if revision else {}
    return web.json_response(value, status=status, headers=headers)


def _missing(code: str, message: str, revision: str | None = None) -> web.Response:
    headers = {"X-Error-Code": code}
    if revision:
        headers["X-Repo-Commit"] = revision
    return web.json_response({"error": message}, status=404, headers=headers)
