"""A site's store and journal without an importer: drops are made of listings, and are active or only kept."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aiohttp import web

from airlift import digest
from airlift.lock import LockedEntry
from airlift.site.catalog import Catalog
from airlift.site.journal import Drop, Journal
from airlift.site.listing import Listing
from airlift.store import Store

Routes = Callable[[Catalog], Sequence[web.AbstractRouteDef]]


class Shelf:
    """A store, a journal, and the catalog that reads both."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store").create()
        self._journal = folder / "state.db"
        Journal.create(self._journal)
        self.catalog = Catalog(self._journal, self.store)
        self._sequence = 0

    def publish(self, listing: Listing, *, channel: str = "stable", active: bool = True) -> Drop:
        """Keep a drop that shows this, and make it the channel's active one unless told not to."""
        self._sequence += 1
        own = digest.of(str(self._sequence).encode())
        drop = Drop(own, channel, self._sequence, "staging", own, f"drop-{self._sequence}", own, 1, "2026", False)
        with Journal(self._journal) as journal:
            journal.stage(drop)
            with journal.transaction():
                journal.accept(drop)
                journal.publish(drop, listing.names, listing.held)
                if active:
                    journal.activate(drop)
        return drop


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
def served(catalog: Catalog, *routes: Routes) -> Iterator[str]:
    """Serve routes over a catalog on loopback until the block ends; gives the URL."""
    app = web.Application()
    for make in routes:
        app.add_routes(make(catalog))
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
