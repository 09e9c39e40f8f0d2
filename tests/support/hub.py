"""A model hub on loopback that speaks the recorded protocol: commits, LFS on another host, paging, gates, error codes.

The content host is another server (``localhost`` instead of ``127.0.0.1``) that takes signed URLs only and remembers
whether a token reached it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

_KEY = b"signs content urls"


@dataclass
class HubModel:
    """One repository at one commit.

    Attributes:
        files: path to content.
        lfs: paths that are kept in LFS.
        branches: name to commit.
        licence: what its card says.
        gated: tokens that may read it; None when everybody may.
        served: path to other bytes that the content host sends instead (a fault).
    """

    files: dict[str, bytes]
    lfs: set[str] = field(default_factory=set)
    branches: dict[str, str] = field(default_factory=dict)
    licence: str | None = None
    gated: set[str] | None = None
    served: dict[str, bytes] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        text = json.dumps({path: hashlib.sha256(data).hexdigest() for path, data in sorted(self.files.items())})
        return hashlib.sha1(text.encode()).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        data = self.files[path]
        value: dict[str, Any] = {"type": "file", "oid": git_oid(data), "size": len(data), "path": path}
        if path in self.lfs:
            pointer = lfs_pointer(data)
            value["oid"] = git_oid(pointer)
            value["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": len(pointer)}
        return value


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def lfs_pointer(data: bytes) -> bytes:
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(data).hexdigest()}\nsize {len(data)}\n"
    ).encode()


@dataclass
class Hub:
    """The running servers.

    Attributes:
        url: of the hub.
        models: what it has, by id.
        page: entries of one page of a tree.
        requests: (server, method, path with query, Authorization header, Range header) of every request.
        cuts: how many content answers still break off in the middle.
        next_page_host: what the links to next pages name instead of the hub.
        answers: path to a body that is sent instead of the right one.
    """

    url: str = ""
    content_url: str = ""
    models: dict[str, HubModel] = field(default_factory=dict)
    page: int = 1000
    requests: list[tuple[str, str, str, str | None, str | None]] = field(default_factory=list)
    cuts: int = 0
    next_page_host: str | None = None
    answers: dict[str, bytes] = field(default_factory=dict)


class _Base(BaseHTTPRequestHandler, ABC):
    protocol_version = "HTTP/1.1"
    hub: Hub
    name = ""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        headers = self.headers
        self.hub.requests.append(
            (self.name, self.command, self.path, headers.get("Authorization"), headers.get("Range"))
        )
        self.answer()

    @abstractmethod
    def answer(self) -> None:
        """Answer the request."""

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def send_content(self, data: bytes, headers: dict[str, str]) -> None:
        start, end, status = 0, len(data), 200
        if (wanted := self.headers.get("Range")) is not None:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last) + 1 if last else len(data), len(data)), 206
            if start >= len(data):
                self.send(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        body = data[start:end]
        if self.hub.cuts > 0 and len(body) > 1000 and self.command == "GET":
            self.hub.cuts -= 1
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        self.send(status, body, {"Accept-Ranges": "bytes", **headers})


class _HubHandler(_Base):
    name = "hub"

    def answer(self) -> None:
        split = urlsplit(self.path)
        if split.path in self.hub.answers:
            self.send(200, self.hub.answers[split.path])
            return
        parts = [unquote(part) for part in split.path.strip("/").split("/")]
        is_api = parts[:2] == ["api", "models"]
        rest = parts[2:] if is_api else parts
        model_id = "/".join(rest[:2])
        model = self.hub.models.get(model_id)
        if model is None:
            self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return
        if model.gated is not None and not self._may(model):
            return
        match rest[2:]:
            case ["revision", revision] if is_api:
                self._revision(model_id, model, revision)
            case ["tree", revision] if is_api:
                self._tree(model, revision, parse_qs(split.query))
            case ["resolve", revision, *path] if not is_api:
                self._resolve(model_id, model, revision, "/".join(path))
            case _:
                self.send_json({"error": "not found"}, 404)

    def _may(self, model: HubModel) -> bool:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token in (model.gated or ()):
            return True
        message = "Access to this model is restricted."
        self.send_json(
            {"error": message}, 403 if token else 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": message}
        )
        return False

    def _commit(self, model: HubModel, revision: str) -> str | None:
        commit = model.branches.get(revision, model.commit if revision in ("main", model.commit) else None)
        if commit is None:
            self.send_json({"error": f"Invalid rev id: {revision}"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _revision(self, model_id: str, model: HubModel, revision: str) -> None:
        if (commit := self._commit(model, revision)) is None:
            return
        value: dict[str, Any] = {
            "id": model_id,
            "sha": commit,
            "private": False,
            "gated": model.gated is not None,
            "siblings": [{"rfilename": path} for path in sorted(model.files)],
        }
        if model.licence:
            value["cardData"] = {"license": model.licence}
        self.send_json(value)

    def _tree(self, model: HubModel, revision: str, query: dict[str, list[str]]) -> None:
        if self._commit(model, revision) is None:
            return
        start = int(query.get("cursor", ["0"])[0])
        entries: list[dict[str, Any]] = [model.entry(path) for path in sorted(model.files)]
        folders = sorted({path.rpartition("/")[0] for path in model.files if "/" in path})
        entries += [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in folders]
        headers = {}
        if start + self.hub.page < len(entries):
            base = self.hub.next_page_host or self.hub.url
            path = urlsplit(self.path).path
            target = f"{base}{path}?recursive=true&expand=false&cursor={start + self.hub.page}"
            headers["Link"] = f'<{target}>; rel="next"'
        self.send_json(entries[start : start + self.hub.page], headers=headers)

    def _resolve(self, model_id: str, model: HubModel, revision: str, path: str) -> None:
        if (commit := self._commit(model, revision)) is None:
            return
        data = model.files.get(path)
        if data is None:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            self.send_json({"error": "Entry not found"}, 404, headers)
            return
        if path not in model.lfs:
            data = model.served.get(path, data)
            self.send_content(data, {"X-Repo-Commit": commit, "ETag": f'"{git_oid(data)}"'})
            return
        oid = hashlib.sha256(data).hexdigest()
        place = f"/{quote(model_id)}/{quote(path)}"
        signature = hmac.new(_KEY, place.encode(), "sha256").hexdigest()
        headers = {
            "Location": f"{self.hub.content_url}{place}?signature={signature}",
            "X-Repo-Commit": commit,
            "X-Linked-Etag": f'"{oid}"',
            "X-Linked-Size": str(len(data)),
        }
        self.send(302, b"", headers)


class _ContentHandler(_Base):
    name = "content"

    def answer(self) -> None:
        split = urlsplit(self.path)
        good = hmac.new(_KEY, split.path.encode(), "sha256").hexdigest()
        if parse_qs(split.query).get("signature") != [good]:
            self.send(403, b"bad signature")
            return
        org, name, path = unquote(split.path.lstrip("/")).split("/", 2)
        model = self.hub.models[f"{org}/{name}"]
        self.send_content(model.served.get(path, model.files[path]), {"ETag": '"content"'})


@contextlib.contextmanager
def running_hub(models: dict[str, HubModel] | None = None) -> Iterator[Hub]:
    """Run a hub and its content host until the block ends."""
    hub = Hub(models=dict(models or {}))
    servers = []
    for handler in (_HubHandler, _ContentHandler):
        bound = type(handler.__name__, (handler,), {"hub": hub})
        server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        servers.append((server, thread))
    hub.url = f"http://127.0.0.1:{servers[0][0].server_address[1]}"
    hub.content_url = f"http://localhost:{servers[1][0].server_address[1]}"
    try:
        yield hub
    finally:
        for server, thread in servers:
            server.shutdown()
            server.server_close()
            thread.join()
