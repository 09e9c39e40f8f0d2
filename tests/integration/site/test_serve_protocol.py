"""HTTP as clients that are old, odd or broken speak it to `airlift serve`: answered, and said in a line."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from aiohttp import web

from airlift.site.server import app
from tests.support.folders import SharedFolder
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, make_site, ship, take

TEXT = b"0123456789" * 10
FORM = "/hf/api/models/acme/m/paths-info/main"
LONG = b"GET /files/tool HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n" % (b"a" * 20_000)
NO_REQUEST = {
    "a path that is no text": b"GET /files/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a query that is no text": b"GET /v2/library/app/manifests/1?ns=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without an end": LONG,
    "no host": b"GET /files/tool HTTP/1.1\r\n\r\n",
    "a length that is no number": b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: one\r\n\r\n" % FORM.encode(),
    "a chunk that is none": b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZ\r\n" % FORM.encode(),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "noise": b"\0\1\2\3\r\n\r\n",
}


@pytest.fixture(scope="module")
def heard() -> list[str]:
    return []


@pytest.fixture(scope="module")
def url(shared_folder: SharedFolder, heard: list[str]) -> Iterator[str]:
    """A served site; it has to end without a traceback in its log."""
    home = shared_folder("served")
    site = make_site(home / "site")
    cargo = Cargo()
    cargo.image("docker.io/library/app:1", b"layer")
    cargo.file("tool", TEXT)
    cargo.file("empty", b"")
    cargo.model("acme/m", {"config.json": b"{}"})
    take(site, ship(cargo, home / "1.airlift"))
    with serving(site.root, heard=heard) as address:
        yield address


def say(url: str, data: bytes) -> bytes:
    """Send bytes as they are, and return all that comes until the other side closes."""
    parts = urlsplit(url)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


@pytest.mark.parametrize("what", NO_REQUEST)
def test_what_is_no_request_is_refused_in_a_line_of_the_log(what: str, url: str, heard: list[str]) -> None:
    assert say(url, NO_REQUEST[what]).split(b" ", 2)[1] == b"400"
    assert requests.get(f"{url}/healthz", timeout=30).status_code == 200
    assert "Error handling request from 127.0.0.1: 400, message: " in "".join(heard)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "multipart/form-data"}, b"x"),
        ({"Content-Type": "application/x-www-form-urlencoded; charset=none"}, b"paths=%FF\xff"),
        ({"Content-Encoding": "deflate"}, b"abcde"),
        ({}, b"paths=absent"),
    ],
)
def test_a_question_that_is_no_form_names_no_file(url: str, headers: dict[str, str], body: bytes) -> None:
    answer = requests.post(f"{url}{FORM}", headers=headers, data=body, timeout=30)
    assert (answer.status_code, answer.json()) == (200, [])
    asked = requests.post(f"{url}{FORM}", data={"paths": ["config.json"]}, timeout=30).json()
    assert [file["path"] for file in asked] == ["config.json"]
    assert requests.post(f"{url}{FORM}", data=b"a" * 2_000_000, timeout=30).status_code == 413


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({"Range": "bytes=0-0"}, 206, b"0"),
        ({"Range": "BYTES=95-200"}, 206, b"56789"),
        ({"Range": "bytes=-3"}, 206, b"789"),
        ({"Range": "bytes=-200"}, 206, TEXT),
        ({"Range": "bytes=-0"}, 416, b"no such range\n"),
        ({"Range": "bytes=100-"}, 416, b"no such range\n"),
        # What is several, another unit, the wrong way round or no number is passed over (RFC 9110, 14.2).
        ({"Range": "bytes=0-0,5-9"}, 200, TEXT),
        ({"Range": "items=0-0"}, 200, TEXT),
        ({"Range": "bytes=9-5"}, 200, TEXT),
        ({"Range": b"bytes=\xd9\xa3-".decode("latin-1")}, 200, TEXT),
        ({"Range": "bytes=0-99999999999999999999999"}, 200, TEXT),
        ({"Range": "bytes=0-0", "If-Range": '"other"'}, 200, TEXT),
        ({"Range": "bytes=0-0", "If-Range": "Thu, 26 Nov 2026 09:00:00 GMT"}, 200, TEXT),
        ({"If-None-Match": 'W/"other"'}, 200, TEXT),
        ({"If-None-Match": "*"}, 304, b""),
    ],
)
def test_ranges_and_conditions(url: str, headers: dict[str, str], status: int, body: bytes) -> None:
    answer = requests.get(f"{url}/files/tool", headers=headers, timeout=30)
    assert (answer.status_code, answer.content) == (status, body)
    if status == 206:
        assert answer.headers["Content-Length"] == str(len(body))
    known = {"If-None-Match": requests.head(f"{url}/files/tool", timeout=30).headers["ETag"]}
    assert requests.get(f"{url}/files/tool", headers=known, timeout=30).status_code == 304


def test_an_empty_file_has_no_range(url: str) -> None:
    answer = requests.get(f"{url}/files/empty", headers={"Range": "bytes=0-0"}, timeout=30)
    assert (answer.status_code, answer.headers["Content-Range"]) == (416, "bytes */0")
    assert requests.get(f"{url}/files/empty", timeout=30).content == b""


def test_a_client_of_http_1_0_gets_the_file_and_the_end(url: str) -> None:
    head, _, body = say(url, b"GET /files/tool HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 ")
    assert body == TEXT


PLACES = ["/", "/healthz", "/v2/", "/v2/library/app/manifests/1", "/v2/library/app/tags/list", "/simple/", "/files/"]


@pytest.mark.parametrize("path", [*PLACES, "/charts/index.yaml", "/files/tool", "/hf/api/models/acme/m"])
def test_every_place_has_a_head_and_refuses_to_be_changed(url: str, path: str) -> None:
    whole = requests.get(f"{url}{path}", timeout=30)
    head = requests.head(f"{url}{path}", timeout=30)
    assert (head.status_code, head.content) == (whole.status_code, b"") == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.content))
    for method in ("PUT", "DELETE", "PATCH"):
        answer = requests.request(method, f"{url}{path}", data=b"x", timeout=30)
        assert (answer.status_code, {"GET", "HEAD"} <= set(answer.headers["Allow"].replace(" ", "").split(","))) == (
            405,
            True,
        )


def test_a_client_that_sends_nothing_or_half_a_head_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_IDLE_S", 0.3)
    site = make_site(tmp_path / "site")

    async def waited(sent: bytes) -> bytes:
        runner = app._runner(app.make_app(site))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
            writer.write(sent)
            said = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            return said
        finally:
            await runner.cleanup()

    assert asyncio.run(waited(b"")) == b""
    assert asyncio.run(waited(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")) == b""
    assert b" 200 OK" in asyncio.run(waited(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"))
