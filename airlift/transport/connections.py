"""Connections that another thread can break off, whatever they wait for."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    from urllib3._base_connection import BaseHTTPConnection, BaseHTTPSConnection


class Connections:
    """All connections of one client. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._is_broken_off = False

    def pools(self) -> dict[str, type[HTTPConnectionPool]]:
        """Return the pools, by scheme, whose connections are of these."""
        made = self

        class Plain(HTTPConnection):
            def connect(self) -> None:
                made._begin(self)
                super().connect()
                made._refuse_late(self)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                made._begin(self)
                super().connect()
                made._refuse_late(self)

            def send(self, data: Any) -> None:
                try:
                    super().send(data)
                except ssl.SSLEOFError:
                    # As it is without TLS: urllib3 then reads the answer that came before the end, if one did.
                    raise BrokenPipeError from None

        class PlainPool(HTTPConnectionPool):
            ConnectionCls: type[BaseHTTPConnection] = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls: type[BaseHTTPSConnection] = Secure

        return {"http": PlainPool, "https": SecurePool}

    def break_off(self) -> None:
        """Let every request fail at once, and every later one; what is being connected fails when it is."""
        with self._lock:
            self._is_broken_off = True
            known = list(self._known)
        for connection in known:
            sock: Any = connection.sock
            if sock is not None:
                with contextlib.suppress(OSError):
                    # Not what TLS makes of it: that would take the session from the thread that waits in it.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _begin(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._known.add(connection)

    def _refuse_late(self, connection: HTTPConnection) -> None:
        if self._is_broken_off:
            connection.close()
            raise ConnectionAbortedError("given up")
