"""The read side of a site, held in memory: drops are made of listings, and are active or only kept."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from airlift.digest import Digest
from airlift.site.listing import Held, Listing, Service
from airlift.store import Store

if TYPE_CHECKING:
    from airlift.site.catalog import Catalog

    from airlift.lock import LockedEntry


class MemoryCatalog:
    """Answers like `airlift.site.catalog.Catalog`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.active: list[Listing] = []
        self.kept: list[Listing] = []

    def names(self, service: Service, key: str) -> list[Mapping[str, Any]]:
        return [value for name, value in self.all_names(service) if name == key]

    def keys(self, service: Service) -> list[str]:
        return sorted({name for name, _ in self.all_names(service)})

    def all_names(self, service: Service) -> list[tuple[str, Mapping[str, Any]]]:
        return [(n.key, n.value) for listing in self.active for n in listing.names if n.service is service]

    def held(self, service: Service, scope: str, digest: Digest) -> Held | None:
        return next((item for item in self.held_all(service, scope) if item.digest == digest), None)

    def held_all(self, service: Service, scope: str) -> list[Held]:
        listings = [*self.active, *self.kept]
        return [h for listing in listings for h in listing.held if (h.service, h.scope) == (service, scope)]

    def referrers(self, scope: str, subject: Digest) -> list[Held]:
        return [item for item in self.held_all(Service.OCI, scope) if item.subject == subject]

    def path(self, digest: Digest) -> Path:
        return self.store.path(digest)

    def read(self, digest: Digest, *, limit: int) -> bytes:
        return self.store.read(digest, limit=limit)


def carry(entry: LockedEntry, store: Store, fetch: Callable[..., None]) -> None:
    """Put all blobs of an entry into a store, as a build and an import would."""
    for item in entry.artifacts:
        for blob in (*item.small, *item.large):
            if blob.text is not None:
                store.put_bytes(blob.text.encode())
            elif not store.has(blob.digest):
                with store.put(blob.digest, blob.size) as sink:
                    fetch(entry, blob, sink)


@contextlib.contextmanager
def served(catalog: MemoryCatalog, *routes: Callable[[Catalog], Sequence[web.AbstractRouteDef]]) -> Iterator[str]:
    """Serve routes over a catalog on loopback until the block ends; gives the URL."""
    app = web.Application()
    for make in routes:
        app.add_routes(make(cast("Catalog", catalog)))
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app, access_log=None)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
