"""What is said, and whether it is worth another attempt, when TLS fails or a connection with TLS ends too early."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from airlift.errors import FetchError
from airlift.transport.http import HttpClient, HttpStatusError
from airlift.transport.settings import HttpSettings
from airlift.transport.upload import Whole

_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_SIZE = 32 * 1024 * 1024
_REFUSAL = b"HTTP/1.1 413 Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much"


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """Let connections be answered, each by a thread of its own; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                answer(connection)

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(30)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@pytest.fixture
def client(authority: trustme.CA, tmp_path: Path) -> HttpClient:
    return HttpClient(HttpSettings(ca_bundle=tmp_path / "ca.pem", retries=0, ca_hint="name its authority"))


def context_of(certificate: trustme.LeafCert) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(made)
    return made


def secure(context: ssl.SSLContext, then: Callable[[ssl.SSLSocket], object]) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inner:
            then(inner)

    return answer


def refused(client: HttpClient, port: int, method: str = "GET") -> FetchError:
    body = None
    if method == "PUT":
        body = Whole("blob", _SIZE, (bytes(1024 * 1024) for _ in range(_SIZE // 1024 // 1024)))
    with pytest.raises(FetchError) as caught:
        client.exchange(method, f"https://127.0.0.1:{port}/", limit=100, body=body, subject="blob")
    return caught.value


def test_a_server_that_goes_away_during_the_handshake_is_worth_another_attempt(client: HttpClient) -> None:
    def leave(connection: socket.socket) -> None:
        # Takes the greeting first, else the connection is reset.
        connection.recv(64 * 1024)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    with serving(leave) as port:
        error = refused(client, port)
    assert str(error) == f"blob: GET https://127.0.0.1:{port}/: the connection was cut while TLS was set up"
    assert (error.temporary, error.hint) == (True, "see that it runs, and that this machine reaches it")


@pytest.mark.parametrize("end", ["closed", "reset"])
def test_a_server_that_goes_away_during_an_upload_is_worth_another_attempt(
    client: HttpClient, authority: trustme.CA, end: str
) -> None:
    def leave(connection: ssl.SSLSocket) -> None:
        connection.recv(1024)
        if end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serving(secure(context_of(authority.issue_cert("127.0.0.1")), leave)) as port:
        error = refused(client, port, "PUT")
    assert error.temporary
    assert error.hint == "see that it runs, and that this machine reaches it"


def test_a_refusal_that_comes_before_the_end_of_an_upload_is_read(client: HttpClient, authority: trustme.CA) -> None:
    def refuse(connection: ssl.SSLSocket) -> None:
        connection.recv(1024)
        connection.sendall(_REFUSAL)
        # As nginx does: the answer is not lost, because what still comes is taken for a while.
        raw = socket.socket(fileno=connection.detach())
        with raw:
            raw.shutdown(socket.SHUT_WR)
            taken = 0
            while taken < _SIZE // 4 and (data := raw.recv(1024 * 1024)):
                taken += len(data)

    with serving(secure(context_of(authority.issue_cert("127.0.0.1")), refuse)) as port:
        error = refused(client, port, "PUT")
    assert isinstance(error, HttpStatusError)
    assert (error.status, error.said) == (413, "too much")


@pytest.mark.parametrize(
    ("certificate", "said", "hint"),
    [
        (
            lambda authority: authority.issue_cert("127.0.0.1", not_before=_LONG_AGO, not_after=_LONG_AGO),
            "the certificate is not trusted: certificate has expired",
            "renew the server's certificate; if it is valid, set this machine's clock",
        ),
        (
            lambda authority: authority.issue_cert("registry.example.com"),
            "the certificate is not trusted: IP address mismatch, certificate is not valid for '127.0.0.1'.",
            "reach the server by a name that its certificate has, or let it be issued for this one, too",
        ),
        (
            lambda _: trustme.CA().issue_cert("127.0.0.1"),
            "the certificate is not trusted: unable to get local issuer certificate",
            "name its authority",
        ),
    ],
    ids=["expired", "of another name", "of an unknown authority"],
)
def test_each_way_not_to_trust_a_certificate_has_its_remedy(
    client: HttpClient,
    authority: trustme.CA,
    certificate: Callable[[trustme.CA], trustme.LeafCert],
    said: str,
    hint: str,
) -> None:
    with serving(secure(context_of(certificate(authority)), lambda connection: connection.recv(1))) as port:
        error = refused(client, port)
    assert str(error) == f"blob: GET https://127.0.0.1:{port}/: {said}"
    assert (error.temporary, error.hint) == (False, hint)


def test_a_server_without_tls_is_not_blamed_on_a_certificate(client: HttpClient) -> None:
    with serving(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        error = refused(client, port)
    assert error.hint == "the server does not speak TLS there: see scheme and port of its address"


def test_a_server_that_wants_a_certificate_of_this_machine_is_said_to(
    client: HttpClient, authority: trustme.CA
) -> None:
    context = context_of(authority.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    with serving(secure(context, lambda connection: connection.recv(1))) as port:
        error = refused(client, port)
    assert error.hint is not None
    assert error.hint.startswith("give it a certificate of this machine")
