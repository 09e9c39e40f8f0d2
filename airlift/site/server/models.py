"""The model hub: what huggingface_hub asks for, under ``/hf`` (``HF_ENDPOINT=<url>/hf``)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote

from aiohttp import web

from airlift import digest as digests
from airlift.site import model_hub
from airlift.site.listing import Service
from airlift.site.model_hub import Snapshot
from airlift.site.server import content

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airlift.site.catalog import Catalog

_PREFIX: Final = "/hf/"
_READING: Final = ("GET", "HEAD")
_FORM_S: Final = 30
"""How long a client may take to send the question that is put as a form."""


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
        self._hub = model_hub.Hub(catalog)

    async def models(self, _: web.Request) -> web.StreamResponse:
        """Answer the list of all models."""
        return _json(model_hub.model_list(self._catalog.keys(Service.HUB)))

    async def refuse(self, request: web.Request) -> web.StreamResponse:
        """Answer what would change something, and what no mirror has."""
        if request.method in _READING:
            return _missing("RepoNotFound", "Not found")
        return _json({"error": "this hub is a read-only mirror"}, status=405, headers={"Allow": ", ".join(_READING)})

    async def api(self, request: web.Request) -> web.StreamResponse:
        """Answer ``/api/models/ID[/revision/REV | /tree/REV[/DIR] | /refs]``."""
        parts = _parts(request)[2:]
        for position in (1, 2):
            model_id, rest = "/".join(parts[:position]), parts[position:]
            match rest:
                case []:
                    if position == len(parts) and self._catalog.names(Service.HUB, model_id):
                        return self._info(request, model_id, model_hub.DEFAULT)
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
                    snapshot = self._find("/".join(parts[:position]), revision)
                    if isinstance(snapshot, web.Response):
                        return snapshot
                    wanted = await _asked_paths(request)
                    files = snapshot.files.values()
                    return _json([model_hub.entry(file) for file in files if file.path in wanted])
        return await self.refuse(request)

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        """Answer ``/ID/resolve/REV/FILE``."""
        parts = _parts(request)
        for position in (1, 2):
            match parts[position:]:
                case ["resolve", revision, *path] if path:
                    return await self._file(request, "/".join(parts[:position]), revision, "/".join(path))
        return _missing("RepoNotFound", "Not found")

    def _find(self, model_id: str, revision: str) -> Snapshot | web.Response:
        """Return the model at a revision, else the answer that says no."""
        if (snapshot := self._hub.find(model_id, revision)) is not None:
            return snapshot
        if not self._hub.knows(model_id):
            return _missing("RepoNotFound", "Repository not found")
        return _missing("RevisionNotFound", f"Invalid rev id: {revision}"[:200])

    def _info(self, request: web.Request, model_id: str, revision: str) -> web.StreamResponse:
        snapshot = self._find(model_id, revision)
        if isinstance(snapshot, web.Response):
            return snapshot
        with_blobs = request.query.get("blobs", "").lower() in ("true", "1")
        return _json(model_hub.info(snapshot, with_blobs=with_blobs), revision=snapshot.revision)

    def _tree(self, request: web.Request, model_id: str, revision: str, directory: str) -> web.StreamResponse:
        snapshot = self._find(model_id, revision)
        if isinstance(snapshot, web.Response):
            return snapshot
        is_recursive = request.query.get("recursive", "").lower() in ("true", "1")
        listed = model_hub.entries(snapshot, directory.rstrip("/"), is_recursive=is_recursive)
        if listed is None:
            reason = f"{directory} does not exist on {revision!r}"[:300]
            return _missing("EntryNotFound", reason, snapshot.revision)
        return _json(listed, revision=snapshot.revision)

    def _refs(self, model_id: str) -> web.StreamResponse:
        names = self._catalog.names(Service.HUB, model_id)
        return _json(model_hub.refs(names)) if names else _missing("RepoNotFound", "Repository not found")

    async def _file(self, request: web.Request, model_id: str, revision: str, path: str) -> web.StreamResponse:
        snapshot = self._find(model_id, revision)
        if isinstance(snapshot, web.Response):
            return snapshot
        file = snapshot.files.get(path)
        held = None if file is None else self._catalog.held(Service.HUB, model_id, file.digest)
        if file is None or held is None:
            return _missing("EntryNotFound", "Entry not found", snapshot.revision)
        headers = {"X-Repo-Commit": snapshot.revision, "ETag": f'"{file.git_oid or digests.hex_of(file.digest)}"'}
        if file.git_oid is None:
            headers["X-Linked-Etag"] = headers["ETag"]
            headers["X-Linked-Size"] = str(file.size)
        return await content.blob_response(request, self._catalog, held, headers=headers)


def _parts(request: web.Request) -> list[str]:
    """Return the path below ``/hf/``; a ``%2F`` stays inside its part, as in ``refs%2Fpr%2F1``."""
    raw = request.rel_url.raw_path
    return [unquote(part) for part in raw.removeprefix(_PREFIX).split("/")]


async def _asked_paths(request: web.Request) -> set[str]:
    """Return the paths of a form; a client that does not send it keeps nothing here for long."""
    try:
        async with asyncio.timeout(_FORM_S):
            body = await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except web.RequestPayloadError:
        raise web.HTTPBadRequest from None
    return set(parse_qs(body.decode(errors="replace")).get("paths", []))


def _json(
    value: object, *, status: int = 200, revision: str | None = None, headers: Mapping[str, str] | None = None
) -> web.Response:
    commit = {"X-Repo-Commit": revision} if revision else {}
    return web.json_response(value, status=status, headers={**commit, **(headers or {})})


def _missing(code: str, message: str, revision: str | None = None) -> web.Response:
    headers = {"X-Error-Code": code}
    if revision:
        headers["X-Repo-Commit"] = revision
    return web.json_response({"error": message}, status=404, headers=headers)
