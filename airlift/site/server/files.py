"""Files: ``/files/<name>`` while a drop is active, ``/files/<sha256>/<name>`` while one is kept, and a list."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from aiohttp import web
from jinja2 import Environment

from airlift import digest as digests
from airlift.site.file_index import index_of
from airlift.site.listing import Service
from airlift.site.server import content

if TYPE_CHECKING:
    from airlift.site.catalog import Catalog

_BY_DIGEST: Final = re.compile(r"([0-9a-f]{64})/(.+)")
_PAGE: Final = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>Files</title></head><body><h1>Files</h1>
<table>
{% for file in files %}
<tr><td><a href="{{ file.url }}">{{ file.name }}</a></td><td>{{ file.size }}</td><td>sha256:{{ file.sha256 }}</td></tr>
{% endfor %}
</table></body></html>
"""
)


def routes(catalog: Catalog) -> list[web.AbstractRouteDef]:
    """Return the routes of the file service."""
    service = _Files(catalog)
    return [web.get("/files/", service.listed), web.get("/files/{name:.+}", service.file)]


class _Files:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def listed(self, request: web.Request) -> web.StreamResponse:
        """Answer the list of all names: JSON, or HTML for a browser."""
        # Thousands of files take longer than other readers should wait.
        names = await asyncio.to_thread(self._catalog.all_names, Service.FILES)
        files = index_of(names)
        headers = {"Vary": "Accept"}
        if "text/html" in request.headers.get("Accept", ""):
            return web.Response(text=_PAGE.render(files=files), content_type="text/html", headers=headers)
        return web.json_response({"files": files}, headers=headers)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Answer one file."""
        name = request.match_info["name"]
        pinned = _BY_DIGEST.fullmatch(name)
        if pinned is not None:
            name, digest = pinned[2], digests.from_hex(pinned[1])
        else:
            values = self._catalog.names(Service.FILES, name)
            if not values:
                raise web.HTTPNotFound(text=f"no file {name!r} in an active drop\n")
            digest = digests.parse(values[0]["digest"])
        held = self._catalog.held(Service.FILES, name, digest)
        if held is None:
            raise web.HTTPNotFound(text=f"no file {name!r} with this digest in a kept drop\n")
        headers = {"ETag": f'"{digests.hex_of(digest)}"'}
        return await content.blob_response(request, self._catalog, held, headers=headers, filename=name.split("/")[-1])
