"""The package index: ``/simple/``, ``/simple/<project>/``, files and their METADATA by digest while a drop is kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import web

from airlift import digest as digests
from airlift.kinds.wheels import normalise
from airlift.site import simple_pages
from airlift.site.listing import Service
from airlift.site.server import content

if TYPE_CHECKING:
    from collections.abc import Callable

    from airlift.site.catalog import Catalog
    from airlift.site.listing import Held

_HEX: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_METADATA: Final = ".metadata"
_FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
"""The digest is in the address."""


def routes(catalog: Catalog) -> list[web.AbstractRouteDef]:
    """Return the routes of the package index."""
    index = _Index(catalog)
    return [
        web.get("/simple", index.slash),
        web.get("/simple/", index.projects),
        web.get("/simple/{project}", index.slash),
        web.get("/simple/{project}/", index.project),
        web.get("/simple/{project}/{sha256}/{filename}", index.file),
    ]


class _Index:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def slash(self, request: web.Request) -> web.StreamResponse:
        """Send a client without the last slash to the page."""
        # Relative, so that a path prefix in front of us survives.
        return _moved(f"{_project(request)}/" if "project" in request.match_info else "simple/")

    async def projects(self, request: web.Request) -> web.StreamResponse:
        """Answer all projects of the active drops."""
        names = self._catalog.keys(Service.SIMPLE)
        return _page(request, lambda kind: simple_pages.projects(names, kind))

    async def project(self, request: web.Request) -> web.StreamResponse:
        """Answer one project of the active drops."""
        project = _project(request)
        if project != request.match_info["project"]:
            return _moved(f"../{project}/")
        values = self._catalog.names(Service.SIMPLE, project)
        if not values:
            raise web.HTTPNotFound(text=f"no project {project} in the active drops\n")
        return _page(request, lambda kind: simple_pages.project(project, values, kind))

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Answer a wheel, or its METADATA."""
        project, filename = _project(request), request.match_info["filename"]
        wheel = self._wheel(project, request.match_info["sha256"], filename.removesuffix(_METADATA))
        if not filename.endswith(_METADATA):
            headers = {**_FOR_EVER, "Content-Type": "application/octet-stream"}
            return await content.blob_response(request, self._catalog, wheel, headers=headers)
        metadata = self._catalog.held(Service.SIMPLE, project, wheel.facts["metadata"])
        if metadata is None:
            raise web.HTTPNotFound(text=f"no {filename}\n")
        headers = {**_FOR_EVER, "Content-Type": "text/plain; charset=utf-8"}
        return await content.blob_response(request, self._catalog, metadata, headers=headers)

    def _wheel(self, project: str, sha256: str, filename: str) -> Held:
        held = None
        if _HEX.fullmatch(sha256):
            held = self._catalog.held(Service.SIMPLE, project, digests.from_hex(sha256))
        if held is None or held.facts.get("filename") != filename:
            raise web.HTTPNotFound(text=f"no {filename}\n")
        return held


def _project(request: web.Request) -> str:
    """Return the normalised project of a path; what cannot be one never gets into a header."""
    asked = request.match_info["project"]
    if _NAME.fullmatch(asked) is None:
        raise web.HTTPNotFound(text="no such project\n")
    return normalise(asked)


def _moved(location: str) -> web.Response:
    return web.Response(status=301, headers={"Location": location, "Cache-Control": "no-cache"})


def _page(request: web.Request, render: Callable[[str], bytes]) -> web.Response:
    headers = {"Vary": "Accept", "Cache-Control": "no-cache"}
    kind = simple_pages.choose(request.headers.get("Accept"))
    if kind is None:
        offered = f"{simple_pages.JSON}, {simple_pages.HTML}, {simple_pages.TEXT_HTML}"
        raise web.HTTPNotAcceptable(text=f"this index answers {offered}\n", headers=headers)
    body = render(kind)
    headers["ETag"] = f'"{digests.hex_of(digests.of(body))[:32]}"'
    if content.is_known(request, headers["ETag"]):
        return web.Response(status=304, headers=headers)
    charset = "; charset=utf-8" if kind != simple_pages.JSON else ""
    return web.Response(body=body, headers={**headers, "Content-Type": kind + charset})
