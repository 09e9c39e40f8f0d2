"""Requests that another thread breaks off, plain and with TLS, and servers that are silent or never come to an end."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from airlift.errors import FetchError
from airlift.transport import http
from airlift.transport.http import HttpClient
from airlift.transport.settings import HttpSettings
from airlift.transport.upload import Whole


@dataclass
class Silent:
    """A server that takes connections and requests, and answers nothing."""

    port: int
    asked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    connections: list[socket.socket] = field(default_factory=list)


@contextlib.contextmanager
def silent(context: ssl.SSLContext | None = None) -> Iterator[Silent]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Silent(listener.getsockname()[1])

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                    made.connections.append(connection)
                    connection.recv(10)
                    made.asked.release()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield made
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)
        for connection in made.connections:
            connection.close()


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Silent, str, Path | None]]:
    if request.param == "http":
        with silent() as made:
            yield made, f"http://127.0.0.1:{made.port}/", None
        return
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with silent(context) as made:
        yield made, f"https://127.0.0.1:{made.port}/", tmp_path / "ca.pem"


@pytest.mark.parametrize("end", ["of the client", "of all clients"])
def test_a_request_that_nobody_answers_is_broken_off(server: tuple[Silent, str, Path | None], end: str) -> None:
    made, url, ca = server
    client = HttpClient(HttpSettings(ca_bundle=ca))
    found: list[Exception] = []

    def ask() -> None:
        try:
            client.get_bytes(url, limit=10)
        except FetchError as error:
            found.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    assert made.asked.acquire(timeout=30)
    (client.give_up if end == "of the client" else http.give_up_all)()
    # Less than what a request waits.
    thread.join(25)
    assert len(found) == 1
    with pytest.raises(FetchError, match="given up"):
        client.get_bytes(url, limit=10)
    assert len(made.connections) == 1


def test_a_server_that_was_silent_twice_is_not_asked_any_more_and_another_one_is() -> None:
    client = HttpClient(HttpSettings(timeout_s=0.2), sleep=lambda _: None)
    with silent() as made, silent() as other:
        url = f"http://127.0.0.1:{made.port}/"
        for path in ("a", "b", "c"):
            with pytest.raises(FetchError, match=r"/a: no answer within 0\.2 s"):
                client.get_bytes(url + path, limit=10)
        assert len(made.connections) == 2
        with pytest.raises(FetchError, match="no answer"):
            client.get_bytes(f"http://127.0.0.1:{other.port}/", limit=10)
        assert len(other.connections) == 2


def test_nothing_is_waited_for_on_behalf_of_a_server_that_is_silent_and_another_one_gets_its_pause() -> None:
    waits: list[float] = []
    client = HttpClient(HttpSettings(timeout_s=0.2, retries=1), sleep=waits.append)
    with silent() as made:
        url = f"http://127.0.0.1:{made.port}/"
        with pytest.raises(FetchError, match="no answer"):
            client.get_bytes(url, limit=10)
        waits.clear()
        client.pause(3, url + "else")
        assert waits == []
        client.pause(3, "http://127.0.0.1:1/")
        assert waits == [2.0]


def drip(connection: socket.socket, begin: bytes, more: bytes) -> None:
    """Send something, and then something else again and again, sooner than a wait is over."""
    with connection, contextlib.suppress(OSError):
        connection.recv(1024)
        connection.sendall(begin)
        while True:
            connection.sendall(more)
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("begin", "more", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"a", r"no answer within 0\.5 s"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", r"no answer within 0\.5 s"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", b"0", r"nothing came for 0\.5 s"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
            b"X-More: a\r\n",
            r"nothing came for 0\.5 s",
        ),
    ],
    ids=["headers", "interim answers", "the size of a chunk", "trailers"],
)
def test_an_answer_that_goes_on_for_ever_without_content_is_as_good_as_none(
    begin: bytes, more: bytes, said: str
) -> None:
    client = HttpClient(HttpSettings(timeout_s=0.5, retries=0))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = threading.Thread(target=lambda: drip(listener.accept()[0], begin, more), daemon=True)
        server.start()
        found: list[FetchError] = []

        def ask() -> None:
            try:
                client.get_bytes(f"http://127.0.0.1:{port}/", limit=10)
            except FetchError as error:
                found.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(60)
        assert [re.search(said, str(error)) is not None for error in found] == [True]
        server.join(60)
        assert not server.is_alive()


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_sent_on_a_slow_way_is_not_taken_for_stuck(tmp_path: Path, scheme: str) -> None:
    """All of it takes longer than a wait may; each part of it does not."""
    size, context = 8 * 1024 * 1024, None
    if scheme == "https":
        authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def take(connection: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            connection if context is None else context.wrap_socket(connection, server_side=True) as inner,
        ):
            taken = 0
            while taken < size and (data := inner.recv(16 * 1024)):
                taken += len(data)
                time.sleep(len(data) / size * 6)
            inner.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=lambda: take(listener.accept()[0]), daemon=True)
        thread.start()
        settings = HttpSettings(timeout_s=2, ca_bundle=tmp_path / "ca.pem" if context else None)
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/"
        # One piece, as a frame of a bundle is.
        body = Whole("blob", size, [memoryview(bytes(size))])
        assert HttpClient(settings).exchange("PUT", url, limit=10, body=body, timeout_s=60).status == 201
        thread.join(60)


def test_the_rest_of_a_refusal_is_not_waited_for() -> None:
    """The server sends the next piece when the clock is looked at, and some of half a minute is over each time."""
    looked: list[float] = []
    more = threading.Semaphore(1)

    def clock() -> float:
        looked.append(11.0 * len(looked))
        more.release()
        return looked[-1]

    def refuse(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(1024)
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 60000\r\n\r\n")
            while more.acquire(timeout=30):
                connection.sendall(b"no " * 400)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: refuse(listener.accept()[0]), daemon=True)
        thread.start()
        client = HttpClient(HttpSettings(), clock=clock)
        with pytest.raises(FetchError, match="answered 403 Forbidden: no no"):
            client.get_bytes(f"http://127.0.0.1:{listener.getsockname()[1]}/", limit=10)
    assert len(looked) < 12
    more.release(100)
    thread.join(60)
    assert not thread.is_alive()


def test_a_handshake_that_nobody_answers_is_broken_off() -> None:
    with silent() as made:
        client = HttpClient(HttpSettings())
        found: list[Exception] = []

        def ask() -> None:
            try:
                client.get_bytes(f"https://127.0.0.1:{made.port}/", limit=10)
            except FetchError as error:
                found.append(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        # It has sent its greeting, and waits for the server's.
        assert made.asked.acquire(timeout=30)
        client.give_up()
        # Less than what a handshake waits.
        thread.join(25)
        assert len(found) == 1
        assert len(made.connections) == 1
