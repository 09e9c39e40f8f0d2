"""Real registries on loopback, and a front that misbehaves on request.

`running_registry` starts docker-registry, plain or with TLS and a login. `running_front` passes requests on to one and
does what a test's faults say: lie, cut, stall, redirect, refuse, ask for tokens that die.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import bcrypt
import trustme

from airlift import digest as digests
from airlift.transport.blobs import PROBE
from tests.components import require, require_go
from tests.support.servers import free_port, listening


@dataclass(frozen=True)
class Registry:
    """A running docker-registry.

    Attributes:
        host: ``ADDRESS:PORT``.
        root: its directory: ``data``, ``log``.
        ca: certificate of its authority, None when it is plain.
        username, password: its login, empty without one.
    """

    host: str
    root: Path
    ca: Path | None = None
    username: str = ""
    password: str = ""

    @property
    def url(self) -> str:
        return f"{'https' if self.ca else 'http'}://{self.host}"

    @property
    def log(self) -> list[str]:
        """Its access log: ``GET /v2/... 200`` for every request so far."""
        lines = []
        for line in (self.root / "log").read_text(errors="replace").splitlines():
            parts = line.split('"')
            if len(parts) > 2 and " HTTP/" in parts[1]:
                lines.append(f"{parts[1].rpartition(' ')[0]} {parts[2].split()[0]}")
        return lines

    def docker_config(self) -> dict[str, object]:
        """docker's config.json with this registry's login."""
        auth = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return {"auths": {self.host: {"auth": auth}}} if self.username else {}

    def skopeo(self, side: str) -> list[str]:
        """skopeo's options for this registry as ``src`` or ``dest``."""
        options = [f"--{side}-tls-verify=false"] if self.ca is None else [f"--{side}-cert-dir={self.ca.parent}"]
        return [*options, *([f"--{side}-creds={self.username}:{self.password}"] if self.username else [])]


@contextlib.contextmanager
def running_registry(
    root: Path,
    *,
    secure: bool = False,
    read_only: bool = False,
    port: int = 0,
    foreign_urls: bool = False,
    deletes: bool = True,
    program: Path | None = None,
    address: str = "127.0.0.1",
) -> Iterator[Registry]:
    """Run docker-registry until the block ends, listening at an address; `root` may hold the data of an earlier one.

    Another `program` is a later version of it.
    """
    program = program or require("docker-registry")
    root.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    writable = f"uploadpurging: {{enabled: false}}, readonly: {{enabled: {str(read_only).lower()}}}"
    config = [
        "version: 0.1",
        "log: {level: warn, accesslog: {disabled: false}}",
        f"storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: {str(deletes).lower()}}}, maintenance: {{{writable}}}}}",
    ]
    if foreign_urls:  # Harbor's takes layers that are elsewhere.
        config.append('validation: {manifests: {urls: {allow: [".*"]}}}')
    tls = ""
    ca = None
    if secure:
        authority = trustme.CA()
        issued = authority.issue_cert(address, "localhost")
        (root / "certs").mkdir(exist_ok=True)
        ca = root / "certs" / "ca.crt"
        authority.cert_pem.write_to_path(str(ca))
        issued.private_key_pem.write_to_path(str(root / "key.pem"))
        (root / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        (root / "htpasswd").write_text("alice:" + bcrypt.hashpw(b"s3cret", bcrypt.gensalt(4)).decode() + "\n")
        config.append(f"auth: {{htpasswd: {{realm: airlift, path: {root}/htpasswd}}}}")
        tls = f", tls: {{certificate: {root}/cert.pem, key: {root}/key.pem}}"
    config.append(f'http: {{addr: "{address}:{port}"{tls}}}')
    (root / "config.yml").write_text("\n".join(config) + "\n")
    with listening([program, "serve", root / "config.yml"], port, root / "log", address=address):
        login = ("alice", "s3cret") if secure else ("", "")
        yield Registry(f"{address}:{port}", root, ca, *login)


@contextlib.contextmanager
def running_crane(root: Path) -> Iterator[Registry]:
    """Run the registry of go-containerregistry until the block ends: not a line of it is docker-registry's."""
    (root / "data").mkdir(parents=True)
    port = free_port()
    command: list[str | Path] = [
        require_go("crane"),
        "registry",
        "serve",
        "--address",
        f"127.0.0.1:{port}",
        "--disk",
        root / "data",
    ]
    with listening(command, port, root / "log"):
        yield Registry(f"127.0.0.1:{port}", root)


@dataclass(frozen=True)
class Asked:
    """A request that a front saw."""

    method: str
    path: str
    authorization: str | None
    range: str | None
    host: str
    cookie: str | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Fault:
    """What a front does instead of passing a request on; return False to pass it on after all."""

    def __init__(
        self, act: Callable[[FrontHandler], bool | None], *, match: str = "", method: str = "", times: int = 10**9
    ) -> None:
        self._act = act
        self._match = match
        self._method = method
        self._times = times
        self._counting = threading.Lock()

    def __call__(self, handler: FrontHandler) -> bool:
        if self._match not in handler.path or self._method not in ("", handler.command):
            return False
        with self._counting:
            if self._times <= 0:
                return False
            self._times -= 1
        return self._act(handler) is not False


@dataclass
class Front:
    """A running front.

    Attributes:
        host: ``127.0.0.1:PORT``.
        behind: the registry's host, and whether it has TLS.
        faults: tried in order.
        asked: every request so far.
        tokens: ``{token: uses left}``; None when the front wants no token.
        token_requests: queries of the token service so far.
        token_uses: for how many requests a new token is good.
        compares: what it does when it is asked, by a wrong digest, whether it compares them; None passes that on.
    """

    host: str = ""
    behind: Registry | None = None
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    tokens: dict[str, int] | None = None
    token_requests: list[dict[str, list[str]]] = field(default_factory=list)
    token_uses: int = 10**9
    token_answer: dict[str, object] = field(default_factory=dict)
    token_status: int = 200
    compares: Fault | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def paths(self, match: str = "") -> list[str]:
        return [str(item) for item in self.asked if match in item.path]


_WRONG = "digest=" + quote(digests.of(PROBE), safe="")


class FrontHandler(BaseHTTPRequestHandler):
    """One request; faults use `answer`, `pass_on` and the base class."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    front: Front

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass

    def _handle(self) -> None:
        front = self.front
        heads = self.headers
        # What only asks whether digests are compared is no upload.
        is_upload = _WRONG not in self.path
        if is_upload:
            with front.lock:
                front.asked.append(
                    Asked(
                        self.command,
                        self.path,
                        heads.get("Authorization"),
                        heads.get("Range"),
                        heads.get("Host", ""),
                        heads.get("Cookie"),
                    )
                )
        if self.path.startswith("/token"):
            self._token()
            return
        if not is_upload and front.compares is not None and front.compares(self):
            return
        if is_upload and any(fault(self) for fault in front.faults):
            return
        if front.tokens is not None and not self._has_token():
            self.challenge()
            return
        self.pass_on()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the base class's names

    def _token(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if self.command == "POST":
            query = parse_qs(self.body().decode()) | {"method": ["POST"]}
        with self.front.lock:
            self.front.token_requests.append(query)
            token = secrets.token_urlsafe(12)
            if self.front.tokens is not None:
                self.front.tokens[token] = self.front.token_uses
        if self.front.token_status != 200:
            self.answer(self.front.token_status, b'{"details": "incorrect username or password"}')
            return
        self.answer(200, json.dumps({"token": token, **self.front.token_answer}).encode())

    def _has_token(self) -> bool:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        with self.front.lock:
            tokens = self.front.tokens or {}
            if tokens.get(token, 0) <= 0:
                return False
            tokens[token] -= 1
            return True

    def challenge(self, realm: str | None = None) -> None:
        """Answer 401 and name the token service."""
        parts = urlsplit(self.path).path.removeprefix("/v2/").split("/")
        cut = next((n for n, part in enumerate(parts) if part in ("manifests", "blobs", "tags", "referrers")), 0)
        scope = f',scope="repository:{"/".join(parts[:cut])}:pull"' if cut else ""
        realm = realm or f"{self.front.url}/token"
        self.body()
        self.answer(
            401,
            b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
            {"WWW-Authenticate": f'Bearer realm="{realm}",service="front"{scope}'},
        )

    def body(self) -> bytes:
        """Take what the client sends."""
        length = int(self.headers.get("Content-Length") or 0)
        return self.rfile.read(length)

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Answer, after taking what was sent."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def ask_behind(self) -> tuple[int, dict[str, str], bytes]:
        """Ask the registry behind and return its answer whole."""
        behind = self.front.behind
        assert behind is not None
        if behind.ca:
            context = ssl.create_default_context(cafile=str(behind.ca))
            link: http.client.HTTPConnection = http.client.HTTPSConnection(behind.host, context=context, timeout=30)
        else:
            link = http.client.HTTPConnection(behind.host, timeout=30)
        # A token is the front's own; what else a client shows is for the server behind.
        dropped = ("host", "connection") if self.front.tokens is None else ("host", "connection", "authorization")
        sent = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
        try:
            link.request(self.command, self.path, self.body() or None, {**sent, "Host": self.headers["Host"]})
            got = link.getresponse()
            try:
                data = got.read()
            except http.client.IncompleteRead as error:  # docker-registry's 416 announces the whole blob.
                data = error.partial
            skip = ("transfer-encoding", "connection", "content-length")
            headers = {k: v for k, v in got.getheaders() if k.lower() not in skip}
            length = got.getheader("Content-Length")
            headers["Content-Length"] = length if self.command == "HEAD" and length else str(len(data))
            return got.status, headers, data
        finally:
            link.close()

    def begin(self, share: float) -> None:
        """Send the headers of the registry behind, and a part of what it answers."""
        status, headers, data = self.ask_behind()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: int(len(data) * share)])
        self.wfile.flush()

    def pass_on(self) -> None:
        """Let the registry behind answer."""
        status, headers, data = self.ask_behind()
        self.answer(status, data, headers)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients that break off are part of the tests."""


@contextlib.contextmanager
def running_front(behind: Registry | None = None, *, host: str = "127.0.0.1") -> Iterator[Front]:
    """Run a front until the block ends."""
    front = Front(behind=behind)
    server = _Server(("127.0.0.1", 0), type("Bound", (FrontHandler,), {"front": front}))
    front.host = f"{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def cut(share: float = 0.5, **when: object) -> Fault:
    """Break off in the middle of the content."""

    def act(handler: FrontHandler) -> None:
        handler.begin(share)
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)

    return Fault(act, **when)  # type: ignore[arg-type]


def stall(over: threading.Event, share: float = 0.5, **when: object) -> Fault:
    """Send a part of the content, then nothing until it is over."""

    def act(handler: FrontHandler) -> None:
        handler.begin(share)
        over.wait()
        handler.close_connection = True

    return Fault(act, **when)  # type: ignore[arg-type]


def lie(change: Callable[[bytes], bytes], **when: object) -> Fault:
    """Give other content, with the headers of the true one but for the length."""

    def act(handler: FrontHandler) -> None:
        status, headers, data = handler.ask_behind()
        data = change(data)
        handler.answer(status, data, {**headers, "Content-Length": str(len(data))})

    return Fault(act, **when)  # type: ignore[arg-type]


def refuse(status: int, body: bytes = b"", headers: dict[str, str] | None = None, **when: object) -> Fault:
    """Answer with an error."""

    def act(handler: FrontHandler) -> None:
        handler.body()
        handler.answer(status, body, headers)

    return Fault(act, **when)  # type: ignore[arg-type]


def redirect(to: str, status: int = 307, **when: object) -> Fault:
    """Send the client to the same path of another server (`to` is its ``scheme://host:port``)."""

    def act(handler: FrontHandler) -> None:
        handler.body()
        handler.answer(status, b"", {"Location": to + handler.path})

    return Fault(act, **when)  # type: ignore[arg-type]
