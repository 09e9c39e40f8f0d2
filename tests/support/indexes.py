"""Wheels made on the spot, and a package index on loopback that can leave out or get wrong what indexes do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import io
import json
import ssl
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from airlift.kinds.wheels import normalise


def wheel_name(project: str, version: str, tags: str = "py3-none-any") -> str:
    return f"{project}-{version}-{tags}.whl"


def metadata_of(
    project: str, version: str, *, requires: Sequence[str] = (), python: str | None = None, more: Sequence[str] = ()
) -> bytes:
    lines = ["Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}", *more]
    lines += [f"Requires-Python: {python}"] if python else []
    lines += [f"Requires-Dist: {item}" for item in requires]
    lines += [f"Provides-Extra: {item.split('extra == ')[1].strip(chr(34))}" for item in requires if "extra ==" in item]
    return ("\n".join(lines) + "\n").encode()


def zip_of(members: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def make_wheel(
    project: str,
    version: str,
    *,
    tags: str = "py3-none-any",
    requires: Sequence[str] = (),
    python: str | None = None,
    more: Sequence[str] = (),
    payload: bytes = b"",
) -> bytes:
    """A wheel that pip installs."""
    module = project.replace("-", "_").replace(".", "_").lower()
    info = f"{project}-{version}.dist-info"
    pure = "true" if tags.endswith("none-any") else "false"
    wheel = f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: {pure}\n"
    wheel += "".join(f"Tag: {tag}\n" for tag in [tags])
    members = [
        (f"{module}/__init__.py", f"version = {version!r}\n".encode()),
        (f"{info}/METADATA", metadata_of(project, version, requires=requires, python=python, more=more)),
        (f"{info}/WHEEL", wheel.encode()),
    ]
    if payload:
        members.insert(0, (f"{module}/data.bin", payload))
    record = []
    for name, data in members:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}\n")
    record.append(f"{info}/RECORD,,\n")
    return zip_of([*members, (f"{info}/RECORD", "".join(record).encode())])


def make_sdist(project: str, version: str, *, setup: str | None = None) -> bytes:
    """A source distribution with an in-tree build backend, so that building it needs nothing else."""
    backend = setup or (
        "import base64, hashlib, os, zipfile\n"
        f"NAME, VERSION = {project!r}, {version!r}\n"
        "def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):\n"
        "    file = f'{NAME}-{VERSION}-py3-none-any.whl'\n"
        "    info = f'{NAME}-{VERSION}.dist-info'\n"
        "    members = {f'{NAME}.py': f'version = {VERSION!r}\\n',\n"
        "        f'{info}/METADATA': f'Metadata-Version: 2.1\\nName: {NAME}\\nVersion: {VERSION}\\n',\n"
        "        f'{info}/WHEEL': 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'}\n"
        "    members[f'{info}/RECORD'] = ''.join(f'{n},,\\n' for n in [*members, f'{info}/RECORD'])\n"
        "    with zipfile.ZipFile(os.path.join(wheel_directory, file), 'w') as archive:\n"
        "        for name, text in members.items():\n"
        "            archive.writestr(zipfile.ZipInfo(name), text)\n"
        "    return file\n"
    )
    project_file = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    files = {
        "pyproject.toml": project_file,
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{project}-{version}/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


@dataclass
class IndexedFile:
    """A file of the index, and what its page says of it; None leaves a thing out."""

    filename: str
    data: bytes
    metadata: bytes | None = None
    requires_python: str | None = None
    yanked: str | None = None
    sha256: str | None = ""
    size: int | None = -1
    upload_time: str | None = "2026-01-02T03:04:05.678901Z"
    url: str | None = None


@dataclass
class FakeIndex:
    """A running index.

    Attributes:
        url: its simple URL.
        files: by normalised project.
        json: whether it can answer in JSON.
        ranges: whether it gives ranges.
        told_length: what a HEAD says the length is, in place of the true one.
        users: who may read; None when everybody may.
        failing: status that every answer has, or None.
        requests: (method, path, Authorization, Range) of every request.
    """

    url: str = ""
    files: dict[str, list[IndexedFile]] = field(default_factory=dict)
    json: bool = True
    ranges: bool = True
    told_length: str | None = None
    users: Mapping[str, str] | None = None
    failing: int | None = None
    requests: list[tuple[str, str, str | None, str | None]] = field(default_factory=list)

    def add(self, project: str, filename: str, data: bytes, **said: Any) -> IndexedFile:
        file = IndexedFile(filename, data, **said)
        self.files.setdefault(normalise(project), []).append(file)
        return file

    def wheel(self, project: str, version: str, *, said: Mapping[str, Any] | None = None, **made: Any) -> IndexedFile:
        tags = made.get("tags", "py3-none-any")
        data = make_wheel(project, version, **made)
        return self.add(project, wheel_name(project, version, tags), data, **(said or {}))

    def asked(self, method: str, ending: str) -> int:
        return sum(1 for m, path, _, _ in self.requests if m == method and path.endswith(ending))


def _page(index: FakeIndex, project: str, as_json: bool) -> bytes:
    files = index.files[project]
    if as_json:
        return json.dumps(
            {"meta": {"api-version": "1.1"}, "name": project, "files": [_json_file(project, item) for item in files]}
        ).encode()
    lines = []
    for item in files:
        sha256 = hashlib.sha256(item.data).hexdigest() if item.sha256 == "" else item.sha256
        attributes = {"href": f"../../files/{project}/{quote(item.filename)}" + (f"#sha256={sha256}" if sha256 else "")}
        if item.requires_python:
            attributes["data-requires-python"] = item.requires_python
        if item.yanked is not None:
            attributes["data-yanked"] = item.yanked
        if item.metadata is not None:
            attributes["data-dist-info-metadata"] = f"sha256={hashlib.sha256(item.metadata).hexdigest()}"
        said = " ".join(f'{name}="{html.escape(value)}"' for name, value in attributes.items())
        lines.append(f"<a {said}>{item.filename}</a>")
    return ("<!DOCTYPE html><html><body>" + "\n".join(lines) + "</body></html>").encode()


def _json_file(project: str, item: IndexedFile) -> dict[str, Any]:
    sha256 = hashlib.sha256(item.data).hexdigest() if item.sha256 == "" else item.sha256
    value: dict[str, Any] = {
        "filename": item.filename,
        "url": item.url or f"../../files/{project}/{quote(item.filename)}",
        "hashes": {"sha256": sha256} if sha256 else {},
    }
    if item.size is not None:
        value["size"] = len(item.data) if item.size < 0 else item.size
    if item.requires_python:
        value["requires-python"] = item.requires_python
    if item.yanked is not None:
        value["yanked"] = item.yanked or True
    if item.metadata is not None:
        value["core-metadata"] = {"sha256": hashlib.sha256(item.metadata).hexdigest()}
    if item.upload_time:
        value["upload-time"] = item.upload_time
    return value


class _Handler(BaseHTTPRequestHandler):
    index: FakeIndex
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        index, path = self.index, unquote(urlsplit(self.path).path)
        said = self.headers.get("Authorization")
        index.requests.append((self.command, path, said, self.headers.get("Range")))
        if index.failing is not None:
            self.answer(index.failing, b"not today", {})
            return
        if index.users is not None:
            good = {f"Basic {base64.b64encode(f'{u}:{p}'.encode()).decode()}" for u, p in index.users.items()}
            if said not in good:
                self.answer(401, b"who are you", {"WWW-Authenticate": 'Basic realm="index"'})
                return
        parts = path.strip("/").split("/")
        if parts[0] == "simple" and len(parts) == 2 and parts[1] in index.files:
            as_json = index.json and "json" in self.headers.get("Accept", "")
            kind = "application/vnd.pypi.simple.v1+json" if as_json else "text/html"
            self.answer(200, _page(index, parts[1], as_json), {"Content-Type": kind})
        elif parts[0] == "files":
            self.file(parts[1], parts[2])
        else:
            self.answer(404, b"no such page", {})

    def file(self, project: str, name: str) -> None:
        for item in self.index.files.get(project, ()):
            if item.filename == name:
                self.ranged(item.data)
                return
            if item.filename + ".metadata" == name and item.metadata is not None:
                self.answer(200, item.metadata, {})
                return
        self.answer(404, b"no such file", {})

    def ranged(self, data: bytes) -> None:
        asked = self.headers.get("Range")
        if not self.index.ranges:
            self.answer(200, data, {})
        elif asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(data) - 1), len(data) - 1)
            part = data[start : end + 1]
            headers = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{end}/{len(data)}"}
            self.answer(206, part, headers)
        else:
            self.answer(200, data, {"Accept-Ranges": "bytes"})

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        told = self.index.told_length if self.command == "HEAD" else None
        self.send_header("Content-Length", told or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not worth a traceback."""


@contextlib.contextmanager
def running_index(*, tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[FakeIndex]:
    """Run an index on an ephemeral port, with TLS when a context is given."""
    index = FakeIndex(**options)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"index": index}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    index.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}/simple/"
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
