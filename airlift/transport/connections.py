"""Connections that another thread can break off, and on which no byte that comes makes a wait longer than it may be."""

from __future__ import annotations

import contextlib
import io
import socket
import ssl
import threading
import weakref
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from airlift import limits

if TYPE_CHECKING:
    from urllib3._base_connection import BaseHTTPConnection, BaseHTTPSConnection

_PIECE: Final = 64 * limits.KIB
"""What TLS is given at once: its time-out is for all of that, however slow the way is."""


def _pieces(data: bytes | memoryview) -> Iterator[memoryview]:
    view = memoryview(data)
    for start in range(0, len(view), _PIECE):
        yield view[start : start + _PIECE]


class _Incoming(io.RawIOBase):
    """The bytes of one answer. A step that takes many of them, such as all headers, takes them in the time of one wait.

    Each byte that comes begins the socket's own time-out anew; how long a step has gone on is looked at before each.
    """

    def __init__(self, raw: io.RawIOBase, timeout_s: float | None, clock: Callable[[], float]) -> None:
        super().__init__()
        self._raw = raw
        self._timeout_s = timeout_s
        self._clock = clock
        self.begin_step()

    def begin_step(self) -> None:
        self._begun = self._clock()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._timeout_s is not None and self._clock() - self._begun > self._timeout_s:
            raise TimeoutError("timed out")
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(HTTPResponse):
    """An answer whose headers are one step, and each read of its body with all that frames it."""

    clock: Callable[[], float]

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._incoming = _Incoming(self.fp.detach(), sock.gettimeout(), self.clock)
        self.fp = io.BufferedReader(self._incoming)

    def read1(self, n: int = -1) -> bytes:
        self._incoming.begin_step()
        return super().read1(n)


class Connections:
    """All connections of one client. Safe to use from many threads.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._handshakes: dict[HTTPConnection, socket.socket] = {}
        self._is_broken_off = False

    def pools(self) -> dict[str, type[HTTPConnectionPool]]:
        """Return the pools, by scheme, whose connections are of these."""
        made = self

        class Answer(_Answer):
            clock = staticmethod(self._clock)

        class Plain(HTTPConnection):
            response_class: type[HTTPResponse] = Answer

            def connect(self) -> None:
                made._begin(self)
                super().connect()
                made._refuse_late(self)

            def send(self, data: Any) -> None:
                if self.sock is None:
                    # The first one connects, too.
                    super().send(data)
                    return
                # Not `sendall`: its time-out is for all of it, however slow the way is. This one's is for what fits.
                view = memoryview(data)
                while view:
                    view = view[self.sock.send(view) :]

        class Secure(HTTPSConnection):
            response_class: type[HTTPResponse] = Answer

            def _new_conn(self) -> socket.socket:
                plain = super()._new_conn()
                made._begin_handshake(self, plain)
                made._refuse_late(plain)
                return plain

            def connect(self) -> None:
                made._begin(self)
                try:
                    super().connect()
                finally:
                    made._end_handshake(self)
                made._refuse_late(self)

            def send(self, data: Any) -> None:
                try:
                    for piece in _pieces(data):
                        super().send(piece)
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
            known: list[Any] = [*(connection.sock for connection in self._known), *self._handshakes.values()]
        for sock in known:
            if sock is not None:
                with contextlib.suppress(OSError):
                    # Not what TLS makes of it: that would take the session from the thread that waits in it. With TLS
                    # inside that of a proxy, the proxy's is the socket.
                    socket.socket.shutdown(getattr(sock, "socket", sock), socket.SHUT_RDWR)

    def _begin(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._known.add(connection)

    def _begin_handshake(self, connection: HTTPConnection, plain: socket.socket) -> None:
        # A second handle: TLS takes the first one from the connection and gives none back before it is done.
        with self._lock:
            self._handshakes[connection] = plain.dup()

    def _end_handshake(self, connection: HTTPConnection) -> None:
        with self._lock:
            handle = self._handshakes.pop(connection, None)
        if handle is not None:
            handle.close()

    def _refuse_late(self, made: HTTPConnection | socket.socket) -> None:
        if self._is_broken_off:
            made.close()
            raise ConnectionAbortedError("given up")
