"""The chart repository: ``/charts/index.yaml`` and the archives, as Helm wants them.

* All links are relative, so that the repository works behind any path prefix.
* An archive's address has its digest: a name may move to other bytes, an address never does.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from airlift import canonical, digest
from airlift.errors import IntegrityError
from airlift.site.catalog import Catalog
from airlift.site.chart_index import index_of
from airlift.site.listing import Service
from airlift.site.server.content import blob_response

_PROVENANCE: Final = ".prov"


def routes(catalog: Catalog) -> list[web.AbstractRouteDef]:
    """Return the routes of the chart repository."""

    async def index(_request: web.Request) -> web.StreamResponse:
        # Thousands of charts take a while, and other clients do not wait for it.
        data = await asyncio.to_thread(lambda: canonical.encode(index_of(catalog.all_names(Service.CHARTS))))
        return web.Response(body=data, content_type="application/yaml", headers={"Cache-Control": "no-cache"})

    async def archive(request: web.Request) -> web.StreamResponse:
        name = request.match_info["file"]
        try:
            wanted = digest.from_hex(request.match_info["hex"])
        except IntegrityError:
            raise web.HTTPNotFound from None
        held = catalog.held(Service.CHARTS, name.removesuffix(_PROVENANCE), wanted)
        if held is not None and name.endswith(_PROVENANCE):
            signed = held.facts.get("provenance")
            held = catalog.held(Service.CHARTS, name, digest.parse(signed)) if signed else None
        if held is None:
            raise web.HTTPNotFound
        return await blob_response(request, catalog, held)

    return [
        web.get("/charts/index.yaml", index),
        web.get("/charts/{hex:[0-9a-f]{64}}/{file}", archive),
    ]


def refusals(address: str) -> list[web.AbstractRouteDef]:
    """Return the routes of a site whose images and charts are in another registry."""

    async def elsewhere(_: web.Request) -> web.StreamResponse:
        raise web.HTTPNotFound(text=f"the charts of this site are in {address}; see airlift status --client helm\n")

    return [web.get("/charts/{tail:.*}", elsewhere)]
