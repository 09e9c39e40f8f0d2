"""Requests that another thread breaks off, plain and with TLS, and servers that are given up for their silence."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from airlift.errors import FetchError
from airlift.transport import http
from airlift.transport.http import HttpClient
from airlift.transport.settings import HttpSettings


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
