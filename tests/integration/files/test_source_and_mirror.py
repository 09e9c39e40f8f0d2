"""Files by URL and by path: pinned, fetched, listed, served."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airlift import lock
from airlift.artifact import Kind
from airlift.connected.sources.files import FileSource
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.lock import LockedEntry
from airlift.manifest import File
from airlift.site.listing import Listing
from airlift.site.mirrors.files import listing
from airlift.site.server import files as file_server
from tests.support.catalog import Shelf, carry, served
from tests.support.sources import Taken, settings

K3S = bytes(range(256)) * 2000
SHA = hashlib.sha256(K3S).hexdigest()


@dataclass
class Upstream:
    """A file server: what it has, what it was asked, how often it still breaks off."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    cuts: int = 0
    says_size: bool = True


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    state = Upstream(files={"/k3s": K3S})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            state.asked.append((self.command, self.headers.get("Range") or ""))
            data = state.files.get(urlsplit(self.path).path)
            if data is None:
                self.send_error(404)
                return
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            if state.says_size or self.command == "GET":
                self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            if self.command == "GET":
                body = data[start:]
                if state.cuts > 0:
                    state.cuts -= 1
                    body, self.close_connection = body[: len(body) // 2], True
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.catalog.close()


def the_file(upstream: Upstream, **changes: Any) -> File:
    return File(**{"url": f"{upstream.url}/k3s", "name": "k3s", **changes})


def encoded(entry: LockedEntry) -> bytes:
    return lock.Lock("n", "stable", {}, ("linux/amd64",), (entry,)).encode()


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("sha256", [SHA, None])
def test_a_url_is_pinned_by_digest_and_size(
    tmp_path: Path, upstream: Upstream, cached: bool, sha256: str | None
) -> None:
    source = FileSource(settings(tmp_path, cached=cached))
    entry = source.resolve(the_file(upstream, sha256=sha256), None)
    item = entry.artifacts[0]
    assert (entry.kind, entry.name, entry.source) == (Kind.FILE, "k3s", urlsplit(upstream.url).netloc)
    assert item.artifact.name == f"files/k3s:{SHA[:12]}"
    assert item.artifact.facts == {"name": "k3s", "source": f"{upstream.url}/k3s"}
    blob = item.large[0]
    assert (blob.digest, blob.size) == (f"sha256:{SHA}", len(K3S))
    assert blob.origin == {"url": f"{upstream.url}/k3s"}
    assert entry.components[0].digest == f"sha256:{SHA}"
    assert str(tmp_path).encode() not in encoded(entry)
    assert (tmp_path / "cache/blobs/sha256" / SHA).exists() is cached
    assert list((tmp_path / "work").iterdir()) == []
    # Without a cache the maker's digest and the server's size are enough: nothing is downloaded twice.
    assert [method for method, _ in upstream.asked] == (["HEAD"] if sha256 and not cached else ["GET"])
    sink = Taken()
    source.fetch(entry, blob, sink)
    assert bytes(sink.data) == K3S
    assert encoded(FileSource(settings(tmp_path, cached=cached)).resolve(the_file(upstream, sha256=sha256), None)) == (
        encoded(entry)
    )


def test_a_known_digest_in_the_cache_needs_no_server(tmp_path: Path, upstream: Upstream) -> None:
    FileSource(settings(tmp_path)).resolve(the_file(upstream), None)
    upstream.asked.clear()
    FileSource(settings(tmp_path)).resolve(the_file(upstream, sha256=SHA), None)
    assert upstream.asked == []


def test_a_server_that_does_not_tell_the_size_is_read_whole(tmp_path: Path, upstream: Upstream) -> None:
    upstream.says_size = False
    entry = FileSource(settings(tmp_path, cached=False)).resolve(the_file(upstream, sha256=SHA), None)
    assert entry.artifacts[0].large[0].size == len(K3S)
    assert [method for method, _ in upstream.asked] == ["HEAD", "GET"]


def test_another_digest_than_the_manifests_is_refused_with_both(tmp_path: Path, upstream: Upstream) -> None:
    wrong = "0" * 64
    with pytest.raises(IntegrityError) as caught:
        FileSource(settings(tmp_path)).resolve(the_file(upstream, sha256=wrong), None)
    assert caught.value.message == f"file k3s: expected sha256:{wrong}, got sha256:{SHA}"
    assert list((tmp_path / "cache/blobs/sha256").iterdir()) == []
    assert list((tmp_path / "work").iterdir()) == []


def test_a_cut_download_goes_on_where_it_broke(tmp_path: Path, upstream: Upstream) -> None:
    upstream.cuts = 2
    entry = FileSource(settings(tmp_path)).resolve(the_file(upstream), None)
    assert entry.artifacts[0].large[0].digest == f"sha256:{SHA}"
    assert [wanted for _, wanted in upstream.asked] == ["", f"bytes={len(K3S) // 2}-", f"bytes={len(K3S) * 3 // 4}-"]


def test_a_missing_file_is_named(tmp_path: Path, upstream: Upstream) -> None:
    with pytest.raises(FetchError, match=r"file k3s: GET http://127\.0\.0\.1:\d+/none answered 404"):
        FileSource(settings(tmp_path)).resolve(the_file(upstream, url=f"{upstream.url}/none"), None)
    assert list((tmp_path / "work").iterdir()) == []


def test_plain_http_to_another_machine_is_refused_unless_allowed(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="http"):
        FileSource(settings(tmp_path)).resolve(File(url="http://files.invalid/k3s", name="k3s"), None)


def test_a_query_stays_on_the_connected_side(tmp_path: Path, upstream: Upstream) -> None:
    entry = FileSource(settings(tmp_path)).resolve(the_file(upstream, url=f"{upstream.url}/k3s?sig=secret"), None)
    assert entry.artifacts[0].artifact.facts["source"] == f"{upstream.url}/k3s"
    assert "secret" not in entry.components[0].purl


def test_a_name_that_looks_like_a_digest_is_refused(tmp_path: Path, upstream: Upstream) -> None:
    with pytest.raises(IntegrityError, match="file name: expected a name that does not start with a digest"):
        FileSource(settings(tmp_path)).resolve(the_file(upstream, name=f"{SHA}/k3s"), None)
    assert upstream.asked == []


def test_a_local_file_is_pinned_and_fetched_by_its_relative_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/k3s").write_bytes(K3S)
    source = FileSource(settings(tmp_path))
    entry = source.resolve(File(path="bin/k3s", name="k3s", sha256=SHA), None)
    assert (entry.source, entry.artifacts[0].artifact.facts) == ("local", {"name": "k3s", "source": "local"})
    blob = entry.artifacts[0].large[0]
    assert blob.origin == {"path": "bin/k3s"}
    sink = Taken()
    sink.write(K3S[:1000])
    source.fetch(entry, blob, sink)
    assert bytes(sink.data) == K3S
    assert str(tmp_path).encode() not in encoded(entry)
    with pytest.raises(IntegrityError, match=r"file k3s: expected sha256:0{64}, got sha256:"):
        source.resolve(File(path="bin/k3s", name="k3s", sha256="0" * 64), None)
    with pytest.raises(ResolveError, match="file k3s: bin is not a file"):
        source.resolve(File(path="bin", name="k3s"), None)


def bring(folder: Path, shelf: Shelf, name: str, data: bytes) -> Listing:
    """Resolve a local file and put it into the shelf's store."""
    (folder / "local").write_bytes(data)
    source = FileSource(settings(folder))
    entry = source.resolve(File(path="local", name=name), None)
    carry(entry, shelf.store, source.fetch)
    return listing(entry.artifacts[0].artifact, shelf.store)


def ask(url: str, path: str, *, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    split = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(split.hostname or "", split.port)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_a_client_that_has_the_file_is_told_so_and_a_browser_the_files_name(tmp_path: Path, shelf: Shelf) -> None:
    shelf.publish(bring(tmp_path, shelf, "bin/k3s", K3S))
    with served(shelf.catalog, file_server.routes) as url:
        headers = ask(url, "/files/bin/k3s")[1]
        assert headers["ETag"] == f'"{SHA}"'
        assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''k3s"
        assert ask(url, "/files/bin/k3s", **{"If-None-Match": f'"{SHA}"'})[0] == 304
        assert ask(url, "/files/bin/k3s", Range=f"bytes={len(K3S)}-")[0] == 416


def test_a_browser_gets_the_list_as_a_page_of_links(tmp_path: Path, shelf: Shelf) -> None:
    shelf.publish(bring(tmp_path, shelf, "a/c", b"c"))
    with served(shelf.catalog, file_server.routes) as url:
        _, headers, page = ask(url, "/files/", Accept="text/html")
        assert headers["Content-Type"].startswith("text/html")
        assert b'<a href="a/c">a/c</a>' in page
