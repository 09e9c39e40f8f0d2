"""`airlift serve`: all mirrors of a site on one port."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from airlift.errors import AirliftError
from airlift.site.catalog import Catalog
from airlift.site.config import Site
from airlift.site.server import charts, content, files, images, models, wheels
from airlift.site.server.settled import settled
from airlift.site.server.tls import Certificate
from airlift.site.server.under_way import UnderWay
from airlift.site.site_yaml import split_listen

_LOG: Final = logging.getLogger("airlift.serve")
_PROTOCOL: Final = _LOG.getChild("protocol")
GRACE_S: Final = 30
"""How long transfers may go on after a stop was asked for, where nothing else is said."""

_CLOSING_S: Final = 1
"""How long connections may take to close when nothing is under way any more."""

_IDLE_S: Final = 75
"""How long a connection may say nothing, or take to send the head of a request. Proxies in front hold theirs for 60."""

_BACKLOG: Final = 1024

_LISTEN_HINTS: Final = {
    errno.EADDRINUSE: "another program has this port; stop it, or choose another with --listen",
    errno.EADDRNOTAVAIL: "this machine does not have that address; 0.0.0.0 stands for all that it has",
    errno.EACCES: "a port below 1024 needs a permission of its own; choose another with --listen",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_UNDER_WAY: Final = web.AppKey("under_way", UnderWay)


def make_app(site: Site) -> web.Application:
    """Return the application of a site.

    Raises:
        StoreError: the journal cannot be read.
    """
    catalog = Catalog(site.journal_path, site.store)
    app = web.Application(middlewares=[_guard, settled(catalog)])
    app[_UNDER_WAY] = UnderWay()
    registry = site.config.registry
    if registry is None:
        app.add_routes(images.routes(catalog))
        app.add_routes(charts.routes(catalog))
    else:
        app.add_routes(images.refusals(registry.url))
        app.add_routes(charts.refusals(registry.url))
    for service in (wheels, models, files):
        app.add_routes(service.routes(catalog))
    app.add_routes([web.get("/healthz", _health(catalog)), web.get("/", _welcome(is_embedded=registry is None))])

    async def closing(_: web.Application) -> AsyncIterator[None]:
        yield
        catalog.close()

    app.cleanup_ctx.append(closing)
    return app


async def serve(
    site: Site,
    listen: str | socket.socket,
    started: Callable[[str], None],
    *,
    certificate: Certificate | None = None,
    grace_s: float = GRACE_S,
) -> int:
    """Serve until SIGTERM or SIGINT; then let transfers that are under way end; in the main thread, for signals.

    From then on no connection is taken. A second signal ends the waiting.

    Args:
        site: what to serve.
        listen: ``HOST:PORT``, where port 0 lets the system choose; or a socket that listens already.
        started: is told the address once connections are taken.
        certificate: for TLS; read again on SIGHUP, which does nothing without one.
        grace_s: how long transfers may go on then, in seconds.

    Returns:
        How many transfers went on for longer and were cut.

    Raises:
        AirliftError: the address is taken or not ours.
        StoreError: the journal or the store is not there, or cannot be read.
    """
    site.store.check()
    app = make_app(site)
    under_way = app[_UNDER_WAY]
    cut = 0

    runner = _runner(app)

    async def ending(_: web.Application) -> None:
        # Called when nothing listens any more, and before connections are cut.
        nonlocal cut
        if runner.server is not None:
            under_way.close_idle(runner.server)
        cut = await under_way.end(grace_s)

    app.on_shutdown.append(ending)
    await runner.setup()
    try:
        try:
            context = certificate.context if certificate else None
            await _listener(runner, listen, context).start()
        except OSError as error:
            # asyncio puts its own words around the reason; a name that is not found has a negative number.
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or str(error)
            raise AirliftError(f"cannot listen on {listen}: {reason.lower()}", hint=_LISTEN_HINTS.get(number)) from None
        address = runner.addresses[0]
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: under_way.hurry() if stop.is_set() else stop.set())
        loop.add_signal_handler(signal.SIGHUP, _reload, certificate)
        scheme = "https" if certificate else "http"
        started(f"{scheme}://{shown}:{address[1]}")
        await stop.wait()
    finally:
        await runner.cleanup()
    return cut


def _runner(app: web.Application) -> web.AppRunner:
    return web.AppRunner(
        app,
        access_log=None,
        logger=_PROTOCOL,
        # Nobody has to send us anything that is packed.
        auto_decompress=False,
        keepalive_timeout=_IDLE_S,
        shutdown_timeout=_CLOSING_S,
        handle_signals=False,
    )


def _in_a_line(record: logging.LogRecord) -> bool:
    """Say in a line, and only where requests are logged, that what came was no request: whoever sent it may go on."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
        return True
    record.msg = f"{record.getMessage()}: {' '.join(str(error).split())[:200]}"
    record.args, record.exc_info = (), None
    return _LOG.isEnabledFor(logging.INFO)


_PROTOCOL.addFilter(_in_a_line)


def _listener(runner: web.AppRunner, listen: str | socket.socket, context: ssl.SSLContext | None) -> web.BaseSite:
    if isinstance(listen, socket.socket):
        return web.SockSite(runner, listen, backlog=_BACKLOG, ssl_context=context)
    host, port = split_listen(listen)
    return web.TCPSite(runner, host, port, backlog=_BACKLOG, ssl_context=context)


def _reload(certificate: Certificate | None) -> None:
    if certificate is None:
        _LOG.warning("there is no certificate to read again")
        return
    try:
        certificate.reload()
    except AirliftError as error:
        _LOG.error("%s; the one that was read before stays", error.message)
    else:
        _LOG.warning("the certificate was read again")


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log every request, and let failures out as an answer that tells nothing of the machine."""
    begin = time.monotonic()
    status = 500
    request.app[_UNDER_WAY].begin(request)
    try:
        response = await handler(request)
        status = response.status
    except web.HTTPException as error:
        status = error.status
        raise
    except AirliftError as error:
        _LOG.error("%s %s: %s", request.method, request.path_qs, error.message)
        return content.json_response({"error": "the site cannot read its own content; see its log"}, status=500)
    except (ConnectionError, asyncio.CancelledError):
        status = 499
        raise
    else:
        return response
    finally:
        took_ms = (time.monotonic() - begin) * 1000
        _LOG.info("%s %s %s %d %.0f ms", request.remote, request.method, request.path_qs, status, took_ms)


def _health(catalog: Catalog) -> Handler:
    async def health(_: web.Request) -> web.StreamResponse:
        """Say whether journal and store can be read."""
        unreadable = catalog.unreadable()
        for part, problem in unreadable.items():
            _LOG.error("%s cannot be read: %s", part, problem)
        if unreadable:
            return content.json_response({"status": "unavailable", "unreadable": sorted(unreadable)}, status=503)
        return content.json_response({"status": "ok", "generation": catalog.generation()})

    return health


def _welcome(*, is_embedded: bool) -> Handler:
    places = ["simple/", "hf/api/models", "files/", "healthz"] + (["v2/", "charts/index.yaml"] if is_embedded else [])

    async def welcome(_: web.Request) -> web.StreamResponse:
        """Say what is where."""
        return content.json_response({"airlift": places})

    return welcome
