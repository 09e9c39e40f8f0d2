"""Answers across a change: what an activation, a rollback or a prune overtook is asked again.

A handler asks the catalog more than once, and opens a file after that. Each question has a consistent answer, and so
has content under a digest; but a name of before may lead to a digest that is pruned a moment later. Then the handler
finds nothing although the name has been there all the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from airlift.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.typedefs import Middleware

    from airlift.site.catalog import Catalog

_ATTEMPTS: Final = 10
"""Changes in a row that one request is asked again for."""


def settled(catalog: Catalog) -> Middleware:
    """Return the middleware that repeats a request which found nothing while the journal changed."""

    @web.middleware
    async def repeat(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        for _ in range(_ATTEMPTS):
            try:
                version = catalog.version()
            except StoreError:
                # Nothing can be compared: the handler meets it too, and `/healthz` tells.
                return await handler(request)
            try:
                response = await handler(request)
            except (web.HTTPNotFound, StoreError):
                if catalog.version() == version:
                    raise
                continue
            if response.status != web.HTTPNotFound.status_code or response.prepared or catalog.version() == version:
                return response
        return await handler(request)

    return repeat
