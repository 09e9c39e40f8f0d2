"""The requests that are being answered, so that a stop can wait for them and say what it cut."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

_CUT_S: Final = 5
"""How long a request that is cut may take to notice it."""


class UnderWay:
    """Requests from their beginning to their end. All of it in one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], web.BaseRequest] = {}
        self._hurry = asyncio.Event()

    def begin(self, request: web.BaseRequest) -> None:
        """Count a request, until the present task, which answers it, ends: the last byte of a page too."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a request is answered by a task")
        self._tasks[task] = request
        task.add_done_callback(self._tasks.pop)

    def close_idle(self, server: web.Server) -> None:
        """Close what nothing is under way on: aiohttp reads no more of it, and a client would wait in vain."""
        busy = [request.protocol for request in self._tasks.values()]
        for connection in server.connections:
            if connection not in busy:
                connection.force_close()

    def hurry(self) -> None:
        """End the waiting of `end` at once."""
        self._hurry.set()

    async def end(self, grace_s: float) -> int:
        """Wait until nothing is under way, at most `grace_s`; then cut what is left, and return how much that was."""
        hurried = asyncio.ensure_future(self._hurry.wait())
        done = asyncio.ensure_future(self._all_ended())
        await asyncio.wait((hurried, done), timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        left = set(self._tasks)
        for task in (hurried, done, *left):
            task.cancel()
        await asyncio.wait((hurried, done, *left), timeout=_CUT_S)
        return len(left)

    async def _all_ended(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
