"""One request to the stand-in of a Harbor: what nginx and the first layers of core do with it."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import socket
import time
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from tests.support.harbor_state import Account, Caller, Harbor
from tests.support.registry import Asked, FrontHandler

READ_ONLY = "The system is in read only mode. Any modification is prohibited."
UTF8 = {"Content-Type": "application/json; charset=utf-8"}
FROM_REGISTRY = {"Docker-Distribution-Api-Version": "registry/2.0"}
WRITES = ("POST", "PUT", "PATCH", "DELETE")
HANGS_UP_AFTER_S = 0.5
MOST_DRAINED = 256 * 1024
"""Bytes of a body that Go's server takes after the answer, for the sake of the connection."""

_PAGE = "<html>\n<head><title>{0}</title></head>\n<body>\n<center><h1>{0}</h1></center>\n<hr><center>nginx</center>\n</body>\n</html>\n"


def nginx_page(title: str) -> bytes:
    return _PAGE.format(title).replace("\n", "\r\n").encode()


class WebHandler(FrontHandler, ABC):
    """Reads the request, says who asks, and answers in Harbor's form."""

    front: Harbor  # type: ignore[mutable-override]
    caller: Caller
    path_once: str
    query: dict[str, list[str]]
    paging: dict[str, str]
    _data: bytes | None = None

    def _handle(self) -> None:
        front, heads = self.front, self.headers
        self._data = None
        # Some clients send a header for each type.
        if accepted := heads.get_all("Accept"):
            del heads["Accept"]
            heads["Accept"] = ", ".join(accepted)
        if front.scheme == "https":
            heads["X-Forwarded-Proto"] = "https"
        asked = Asked(
            self.command, self.path, heads.get("Authorization"), heads.get("Range"), heads["Host"], heads.get("Cookie")
        )
        with front.lock:
            front.asked.append(asked)
        if any(fault(self) for fault in front.faults):
            return
        parts = urlsplit(self.path)
        # nginx decodes a path once and merges its slashes.
        self.path_once = re.sub("/{2,}", "/", unquote(parts.path))
        self.query = parse_qs(parts.query, keep_blank_values=True)
        if "core" in front.down:
            self.body()
            self.answer(502, nginx_page("502 Bad Gateway"), {"Content-Type": "text/html"})
        elif self.path_once == "/v2":
            location = {"Content-Type": "text/html", "Location": f"{front.scheme}://{heads['Host']}/v2/"}
            self.answer(301, nginx_page("301 Moved Permanently"), location)
        else:
            self._core("sid=" in (asked.cookie or ""))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the base class's names

    def _core(self, has_session: bool) -> None:
        is_write = self.command in WRITES
        self.csrf = {"X-Harbor-Csrf-Token": secrets.token_urlsafe(48)} if has_session else {}
        self.caller = self._who()
        if is_write and has_session:
            self.refuse(403, "FORBIDDEN", "CSRF token not found in request")
        elif is_write and self.front.read_only and self.path_once != "/api/v2.0/configurations":
            self.refuse(403, "DENIED", READ_ONLY)
        elif self.path_once == "/service/token":
            self.token_service()
        elif self.path_once.startswith("/api/v2.0/"):
            self.api()
        else:
            self.v2()

    @abstractmethod
    def api(self) -> None:
        """Answer a request below ``/api``."""

    @abstractmethod
    def v2(self) -> None:
        """Answer a request below ``/v2``."""

    def _who(self) -> Caller:
        kind, _, value = (self.headers.get("Authorization") or "").partition(" ")
        if not kind:
            return Caller()
        if "database" not in self.front.down:
            if kind == "Bearer":
                return Caller(token=self.front.token(value), is_named=True)
            with contextlib.suppress(ValueError):
                name, _, password = base64.b64decode(value).decode().partition(":")
                found = self.front.accounts.get(name)
                if found is not None and found.is_good and found.password == password:
                    return Caller(found, name=name, is_named=True)
        return Caller(is_named=True)

    def refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        """Answer with an error document."""
        self.send(status, {"errors": [{"code": code, "message": message}]}, {**UTF8, **(headers or {})})

    def broken(self) -> None:
        self.refuse(500, "UNKNOWN", "internal server error")

    def send(self, status: int, value: object = None, headers: dict[str, str] | None = None) -> None:
        """Answer with JSON, or with nothing."""
        data = b"" if value is None else json.dumps(value, separators=(",", ":")).encode() + b"\n"
        self.give(status, data, {"Content-Type": "application/json", **(headers or {})} if data else headers or {})

    def unprocessable(self, said: str) -> None:
        self.refuse(422, "UNPROCESSABLE_ENTITY", f"validation failure list:\n{said}")

    def document(self, parameter: str) -> Any:
        """Return the JSON that was sent, or None when it has been refused."""
        kind = self.headers.get("Content-Type") or "application/octet-stream"
        said = ""
        try:
            value = json.loads(self.body())
        except ValueError:
            character = self.body().decode().strip("{ ")[:1]
            said = f"invalid character '{character}' looking for beginning of object key string"
            value, said = None, f'parsing {parameter} body from "" failed, because {said}'
        if kind != "application/json":
            said = f'unsupported media type "{kind}", only [application/json] are allowed'
        if said:
            self.unprocessable(said)
            return None
        return value

    def no_right(self) -> None:
        if self.caller.account is None:
            self.refuse(401, "UNAUTHORIZED", "unauthorized")
        else:
            self.refuse(403, "FORBIDDEN", "forbidden")

    def page(self, items: list[Any], path: str) -> list[Any] | None:
        """Return the asked page with its headers in `paging`, or None when it has been refused."""
        size = int(self.query.get("page_size", ["10"])[0])
        number = int(self.query.get("page", ["1"])[0])
        if size > 100:
            self.unprocessable("page_size in query should be less than or equal to 100")
            return None
        self.paging = {"X-Total-Count": str(len(items))}
        if size == 0:
            return items
        if number * size < len(items):
            query = {k: v[0] for k, v in self.query.items() if not k.startswith("page")}
            query |= {"page": str(number + 1), "page_size": str(size)}
            self.paging["Link"] = f'</api/v2.0/{path}?{urlencode(query)}>; rel="next"'
        return items[(number - 1) * size : number * size]

    def give(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        """Answer, with the cookie that every answer of core sets."""
        self.body()
        more = {"Set-Cookie": f"sid={secrets.token_hex(16)}; Path=/; HttpOnly", "X-Request-Id": secrets.token_hex(16)}
        if self.close_connection:
            more["Connection"] = "close"
        self.answer(status, data, {**headers, **self.csrf, **more})
        if self.close_connection:
            self.wfile.flush()
            with contextlib.suppress(OSError):
                # The answer's end goes out, and its reader has a moment, before what was not read resets the connection.
                self.connection.shutdown(socket.SHUT_WR)
                time.sleep(HANGS_UP_AFTER_S)

    def text(self, status: int, text: str) -> None:
        self.give(status, text.encode() + b"\n", {"Content-Type": "text/plain; charset=utf-8"})

    def body(self) -> bytes:
        """Return what the client sends; taken once for each request. A body that breaks off kills its upload."""
        if self._data is None:
            wanted = int(self.headers.get("Content-Length") or 0)
            self._data = super().body()
            if len(self._data) < wanted:
                self.close_connection = True
                if self._data:
                    self.front.dead.add(urlsplit(self.path).path.rpartition("/")[2])
                raise ConnectionResetError
        return self._data

    def leave_body(self) -> None:
        """Answer without reading what is sent, as Go's server does: of much it hangs up, which may cost the answer."""
        if self._data is None and int(self.headers.get("Content-Length") or 0) > MOST_DRAINED:
            self._data, self.close_connection = b"", True

    def token_service(self) -> None:
        front, account = self.front, self.caller.account
        service = "".join(self.query.get("service", [])[:1])
        scopes = [part for item in self.query.get("scope", []) for part in item.split()]
        if self.command != "GET":
            self.text(405, "Method Not Allowed")
        elif service != "harbor-registry":
            self.text(400, f"Unable to handle service: {service}")
        elif account is None and not scopes:
            self.give(401, b"", {})
        else:
            access = {name: self._actions(account, name) for name in map(_repository, scopes) if name}
            token = front.give_token(self.caller.name, access)
            life = {"expires_in": int(front.token_life_s), "issued_at": "2026-11-25T09:45:16Z"}
            self.send(200, {"token": token, "access_token": "", **life}, UTF8)

    def _actions(self, account: Account | None, repository: str) -> list[str]:
        project = self.front.projects.get(repository.partition("/")[0])
        caller = Caller(account)
        return [a for a in ("pull", "push", "delete") if project is not None and caller.may(project, a)]


def _repository(scope: str) -> str:
    kind, _, rest = scope.partition(":")
    return rest.rpartition(":")[0] if kind == "repository" else ""
