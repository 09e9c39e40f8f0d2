"""The chart repository: ``/charts/index.yaml`` and the archives, as Helm wants them.

* All links are relative, so that the repository works behind any path prefix.
* An archive's address has its digest: a name may move to other bytes, an address never does.
* The index is JSON, which every YAML parser reads and none takes for something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from airlift import canonical, digest
from airlift.errors import IntegrityError
from airlift.kinds import semver
from airlift.site.catalog import Catalog
from airlift.site.listing import Service
from airlift.site.server.content import blob_response

# Helm wants times; what the drop holds has none, and the site's clock would make two sites differ.
_CREATED: Final = "1970-01-01T00:00:00Z"
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


def index_of(names: list[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return a chart repository's index.

    Args:
        names: chart name, and what `airlift.site.mirrors.charts` says about each version.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    newest_first = sorted(names, key=lambda item: (semver.parse_version(item[1]["version"]), item[1]["digest"]))
    for name, value in reversed(newest_first):
        hex_digits = digest.hex_of(digest.parse(value["digest"]))
        entries.setdefault(name, []).append(
            {
                **value["chart"],
                "created": _CREATED,
                "digest": hex_digits,
                "urls": [f"{hex_digits}/{name}-{value['version']}.tgz"],
            }
        )
    return {"apiVersion": "v1", "entries": entries, "generated": _CREATED}
