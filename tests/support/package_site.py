"""The package index of a site, filled with locked sets of wheels, without a bundle between."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from airlift import digest as digests
from airlift import limits
from airlift.connected.sources.wheels import WheelSource
from airlift.lock import LockedEntry
from airlift.site.catalog import Catalog
from airlift.site.journal import Drop, Journal
from airlift.site.mirrors.wheels import listing
from airlift.site.server.wheels import routes
from airlift.store import Store


class StoreSink:
    """A builder's sink: into a store, counted."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    @property
    def written(self) -> int:
        return int(self._writer.written)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._writer.write(data)


def carry(entry: LockedEntry, source: WheelSource, store: Store, cache: Store | None) -> None:
    """Bring every blob of a locked entry into `store`, as build and import together do."""
    for artifact in entry.artifacts:
        for blob in (*artifact.small, *artifact.large):
            if blob.text is not None:
                store.put_bytes(blob.text.encode())
            elif store.has(blob.digest):
                continue
            elif cache is not None and cache.has(blob.digest):
                with store.put(blob.digest, blob.size) as writer, cache.open(blob.digest) as stream:
                    while chunk := stream.read(limits.CHUNK):
                        writer.write(chunk)
            else:
                with store.put(blob.digest, blob.size) as writer:
                    source.fetch(entry, blob, StoreSink(writer))


@dataclass
class PackageSite:
    """A site with nothing but its package index."""

    root: Path

    def __post_init__(self) -> None:
        self.store = Store(self.root / "store").create()
        self.journal = self.root / "state.db"
        Journal.create(self.journal)

    def publish(self, entries: Sequence[LockedEntry], *, sequence: int, channel: str = "stable") -> str:
        """Publish and activate a drop of sets whose blobs are in the store; return its release."""
        release = digests.of(f"{channel} {sequence}".encode())
        found = [listing(item.artifact, self.store) for entry in entries for item in entry.artifacts]
        drop = Drop(release, channel, sequence, "", release, "test", release, len(found), "2026-01-01T00:00:00Z", False)
        with Journal(self.journal) as journal:
            journal.stage(drop)
            with journal.transaction():
                journal.accept(drop)
                journal.publish(
                    drop, [n for item in found for n in item.names], [h for item in found for h in item.held]
                )
                journal.activate(drop)
        return release

    @contextlib.contextmanager
    def serving(self, prefix: str = "") -> Iterator[str]:
        """Serve on an ephemeral port, maybe behind a path prefix; yield the base URL."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        catalog = Catalog(self.journal, self.store)
        inner = web.Application()
        inner.add_routes(routes(catalog))
        app = inner
        if prefix:
            app = web.Application()
            app.add_subapp(prefix, inner)

        async def start() -> tuple[web.AppRunner, int]:
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            return runner, runner.addresses[0][1]

        runner, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        try:
            yield f"http://127.0.0.1:{port}{prefix}"
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
            catalog.close()
