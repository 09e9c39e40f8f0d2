"""Proxies that make no way to a server: what is said, and whether another attempt is worth it."""

from __future__ import annotations

import socket

import pytest

from airlift.errors import FetchError
from airlift.transport.http import HttpClient
from airlift.transport.settings import HttpSettings
from tests.unit.transport.test_tls import serving

URL = "https://registry.example.com/v2/"


def refused(answer: bytes, url: str = URL) -> tuple[FetchError, int]:
    """What is raised where a proxy says this, and how often it was asked."""
    asked = []

    def say(connection: socket.socket) -> None:
        asked.append(connection.recv(4096))
        connection.sendall(answer)

    with serving(say) as port:
        proxy = f"http://127.0.0.1:{port}"
        settings = HttpSettings(proxies={"http": proxy, "https": proxy}, retries=2)
        with pytest.raises(FetchError) as caught:
            HttpClient(settings, sleep=lambda _: None).get_bytes(url, limit=10, plain_http=True, subject="x")
        return caught.value, len(asked)


@pytest.mark.parametrize(
    ("status", "asked", "hint"),
    [
        ("407 Proxy Authentication Required", 1, "the proxy wants a login; put it into the proxy's URL"),
        (
            "403 Forbidden",
            1,
            "the proxy does not let this machine reach the server; have it allowed, or name the server in no_proxy",
        ),
        ("503 Service Unavailable", 3, "see that the proxy runs, and whether no_proxy should name the server"),
    ],
)
def test_a_proxy_that_refuses_is_said_to_and_asked_again_only_where_that_may_help(
    status: str, asked: int, hint: str
) -> None:
    error, count = refused(f"HTTP/1.1 {status}\r\n\r\n".encode())

    assert str(error) == f"x: GET {URL}: the proxy makes no way to the server: {status}"
    assert (error.hint, count) == (hint, asked)


@pytest.mark.parametrize("url", [URL, "http://registry.example.com/v2/"])
def test_what_is_no_http_is_shown_in_one_line_without_control_characters(url: str) -> None:
    error, _ = refused(b"SSH-2.0-\x1b[31m" + b"x" * 1000 + b"\r\n", url)

    assert "the answer is not HTTP: SSH-2.0- [31mxxx" in str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 700
