"""A stand-in for Harbor over a real docker-registry; it answers what a Harbor 2.15 was recorded to answer.

Projects, robots, quotas, rules of immutability, read-only mode, the token service, the cookie that makes the next POST a
403, and the 401s that mean six things.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import hashlib
import http.client
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import requests

from tests.support.registry import Asked, Front, FrontHandler, Registry, _Server

NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
V2 = re.compile(r"/v2/(?P<repository>.+)/(?P<kind>blobs|manifests|tags|referrers)/(?P<rest>.*)")
READ_ONLY = "The system is in read only mode. Any modification is prohibited."
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")


@dataclass
class Project:
    number: int
    name: str
    metadata: dict[str, str] = field(default_factory=dict)
    hard: int = -1
    blobs: dict[str, int] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    registry_id: int | None = None

    @property
    def used(self) -> int:
        return sum(self.blobs.values())


@dataclass
class Account:
    """A user or robot; one that is off is nobody."""

    password: str
    is_on: bool = True
    may_push: bool = True
    may_create: bool = True
    may_list_quota: bool = True


@dataclass
class Harbor(Front):
    """A running stand-in.

    Attributes:
        projects, accounts: by name.
        read_only, is_database_down: its state.
    """

    projects: dict[str, Project] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    read_only: bool = False
    is_database_down: bool = False

    def project(self, name: str, **facts: Any) -> Project:
        made = Project(len(self.projects) + 1, name, **facts)
        self.projects[name] = made
        return made


class Handler(FrontHandler):
    front: Harbor  # type: ignore[mutable-override]

    def _handle(self) -> None:
        front, heads = self.front, self.headers
        self._data = None
        # Some clients send a header for each type.
        if accepted := heads.get_all("Accept"):
            del heads["Accept"]
            heads["Accept"] = ", ".join(accepted)
        with front.lock:
            seen = Asked(
                self.command,
                self.path,
                heads.get("Authorization"),
                heads.get("Range"),
                heads["Host"],
                heads.get("Cookie"),
            )
            front.asked.append(seen)
        if any(fault(self) for fault in front.faults):
            return
        path = unquote(urlsplit(self.path).path)
        if self.command in ("POST", "PUT", "PATCH", "DELETE"):
            if seen.cookie and "sid=" in seen.cookie:
                self._error(403, "FORBIDDEN", "CSRF token not found in request")
                return
            if front.read_only and not path.startswith("/service/"):
                self._error(403, "DENIED", READ_ONLY)
                return
        if path == "/service/token":
            self._tokens()
        elif path.startswith("/api/v2.0/"):
            self._api(path.removeprefix("/api/v2.0/"))
        else:
            self._v2(path)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the base class's names

    def _error(self, status: int, code: str, message: str, challenge: str | None = None) -> None:
        self.body()
        extra = {} if challenge is None else {"Www-Authenticate": challenge}
        self._send(status, {"errors": [{"code": code, "message": message}]}, extra)

    def _send(self, status: int, value: object = None, headers: dict[str, str] | None = None) -> None:
        data = b"" if value is None else json.dumps(value).encode()
        cookie = {"Set-Cookie": f"sid={secrets.token_hex(8)}; Path=/; HttpOnly"}
        self.answer(status, data, {"Content-Type": "application/json", **cookie, **(headers or {})})

    def _account(self) -> Account | None:
        """Return who asks; whoever is unknown, off or wrong is nobody."""
        if self.front.is_database_down:
            return None
        kind, _, value = (self.headers.get("Authorization") or "").partition(" ")
        if kind == "Bearer":
            name, password = "", value
            return next((a for a in self.front.accounts.values() if f"token-{a.password}" == password), None)
        with contextlib.suppress(ValueError):
            name, _, password = base64.b64decode(value).decode().partition(":")
            found = self.front.accounts.get(name)
            if kind == "Basic" and found is not None and found.is_on and found.password == password:
                return found
        return None

    def _tokens(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if self.command != "GET":
            self.answer(405)
        elif query.get("service") != ["harbor-registry"]:
            self.answer(400, b"invalid service", {"Content-Type": "text/plain"})
        else:
            account = self._account()
            self._send(200, {"token": "token-" + (account.password if account else "anonymous"), "expires_in": 1800})

    def _api(self, path: str) -> None:
        front, account = self.front, self._account()
        query = parse_qs(urlsplit(self.path).query)
        if path == "systeminfo":
            more = {"harbor_version": "v2.15.2-080b0220", "read_only": front.read_only} if account else {}
            self._send(200, {"auth_mode": "db_auth", **more})
        elif front.is_database_down:
            self._error(500, "UNKNOWN", "internal server error")
        elif account is None:
            self._error(401, "UNAUTHORIZED", "unauthorized")
        elif path == "projects" and self.command == "HEAD":
            name = query["project_name"][0]
            self._send(400 if not NAME.fullmatch(name) else 200 if name in front.projects else 404)
        elif path == "projects" and self.command == "POST":
            self._create(account)
        elif path == "quotas":
            found = [p for p in front.projects.values() if [str(p.number)] == query.get("reference_id")]
            if not account.may_list_quota:
                self._error(403, "FORBIDDEN", "robot$imp")
            else:
                self._send(
                    200, [{"id": p.number, "hard": {"storage": p.hard}, "used": {"storage": p.used}} for p in found]
                )
        else:
            self._project(path, account)

    def _create(self, account: Account) -> None:
        if self.headers.get("Content-Type") != "application/json":
            self._error(422, "UNPROCESSABLE_ENTITY", "unsupported media type")
            return
        wanted = json.loads(self.body())
        name, metadata = wanted["project_name"], wanted.get("metadata", {})
        with self.front.lock:
            if not account.may_create:
                status, code, message = 403, "FORBIDDEN", "forbidden"
            elif not NAME.fullmatch(name):
                status, code = 400, "BAD_REQUEST"
                message = "project name is not in lower case or contains illegal characters"
            elif name in self.front.projects:
                status, code, message = 409, "CONFLICT", f"The project named {name} already exists"
            elif metadata.get("public", "false") not in ("true", "false"):
                status, code, message = 400, "BAD_REQUEST", "metadata.public should only be 'true' or 'false'"
            else:
                made = self.front.project(name, metadata=metadata, hard=wanted.get("storage_limit", -1))
                status, code, message = 201, "", f"/api/v2.0/projects/{made.number}"
        if status == 201:
            self._send(201, None, {"Location": message})
        else:
            self._send(status, {"errors": [{"code": code, "message": message}]})

    def _project(self, path: str, account: Account) -> None:
        _, _, rest = path.partition("projects/")
        name, _, more = rest.partition("/")
        found = self.front.projects.get(name)
        if found is None:
            self._error(404, "NOT_FOUND", f"project {name} not found")
        elif more == "immutabletagrules":
            self._send(200, found.rules)
        elif not more:
            proxy = {} if found.registry_id is None else {"registry_id": found.registry_id}
            self._send(200, {"name": name, "project_id": found.number, "metadata": found.metadata, **proxy})
        else:
            self._error(404, "NOT_FOUND", f"path {self.path} was not found")

    def _v2(self, path: str) -> None:
        account = self._account()
        is_named = self.headers.get("Authorization") is not None
        match = V2.fullmatch(path)
        if account is None:
            realm = f'Bearer realm="{self.front.url}/service/token",service="harbor-registry"'
            scope = f',scope="repository:{match["repository"]}:pull"' if match else ""
            challenge = 'Basic realm="harbor"' if is_named else realm + scope
            self._error(401, "UNAUTHORIZED", "unauthorized: unauthorized", challenge)
        elif path == "/v2/":
            self._send(200, {})
        elif match is None:
            self._error(404, "NOT_FOUND", "page not found")
        else:
            self._repository(match["repository"], match["kind"], match["rest"], account)

    def _repository(self, repository: str, kind: str, rest: str, account: Account) -> None:
        name, slash, inner = repository.partition("/")
        project = self.front.projects.get(name)
        is_write = self.command in ("POST", "PUT", "PATCH", "DELETE")
        if not slash:
            self._error(400, "BAD_REQUEST", f"bad request: invalid repository name: {repository}")
        elif not all(re.fullmatch(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*", part) for part in repository.split("/")):
            said = f"un-recognized request: {self.command} {self.path}"
            self._error(401, "UNAUTHORIZED", f"{said}: {said}", "")
        elif project is None:
            self._error(401, "UNAUTHORIZED", f"project {name} not found: project {name} not found", "")
        elif is_write and not account.may_push:
            said = f"unauthorized to access repository: {repository}, action: push"
            self._error(401, "UNAUTHORIZED", f"{said}: {said}", 'Basic realm="harbor"')
        elif is_write and project.registry_id is not None:
            self._error(403, "DENIED", "can not push artifact to a proxy project")
        elif kind == "manifests" and self.command in ("GET", "HEAD") and "json" not in self.headers.get("Accept", ""):
            self._error(404, "NOT_FOUND", f"{repository}:{rest} not found")
        elif kind == "manifests" and self.command == "PUT":
            self._manifest(project, inner, rest)
        elif kind == "blobs" and is_write:
            self._blob(project, rest)
        else:
            self.pass_on()

    def _manifest(self, project: Project, inner: str, reference: str) -> None:
        if not reference.startswith("sha256:") and _is_immutable(project, inner, reference) and self._is_there():
            said = f"Failed to process request due to '{inner}:{reference}' configured as immutable."
            self._error(412, "PRECONDITION", said)
            return
        data = self.body()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if self._is_over(project, {digest: len(data)}):
            return
        self._pass_body(project, {digest: len(data)})

    def _is_there(self) -> bool:
        assert self.front.behind is not None
        link = http.client.HTTPConnection(self.front.behind.host, timeout=30)
        try:
            accept = "application/vnd.oci.image.manifest.v1+json, " + ", ".join(INDEXES)
            link.request("HEAD", self.path, headers={"Accept": accept})
            return link.getresponse().status == 200
        finally:
            link.close()

    def _blob(self, project: Project, rest: str) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if self.command == "POST":
            if project.hard >= 0 and project.used > project.hard:
                self._is_over(project, {"": 0})
                return
            source = query.get("from", [""])[0].partition("/")[0]
            if source and source not in self.front.projects:
                self._error(401, "UNAUTHORIZED", f"project {source} not found: project {source} not found", "")
                return
            size = self.front.projects[source].blobs.get(query["mount"][0], 0) if source else 0
            counted = {query["mount"][0]: size} if source else {}
            if self._is_over(project, counted):
                return
            self._pass_body(project, counted)
            return
        data = self.body()
        counted = {query["digest"][0]: len(data)} if self.command == "PUT" and "digest" in query else {}
        if not self._is_over(project, counted):
            self._pass_body(project, counted)

    def _is_over(self, project: Project, counted: dict[str, int]) -> bool:
        new = sum(size for digest, size in counted.items() if digest not in project.blobs)
        if project.hard < 0 or not counted or project.used + new <= project.hard:
            return False
        self._error(
            403,
            "DENIED",
            f"adding {new} B of storage resource, which when updated to current usage of {project.used} B will exceed "
            f"the configured upper limit of {project.hard} B.",
        )
        return True

    def _pass_body(self, project: Project, counted: dict[str, int]) -> None:
        status, headers, answer = self.ask_behind()
        if status == 201:
            with self.front.lock:
                project.blobs.update(counted)
        self.answer(status, answer, {**headers, "Set-Cookie": f"sid={secrets.token_hex(8)}; Path=/; HttpOnly"})

    _data: bytes | None = None

    def body(self) -> bytes:
        """Return what the client sends; taken once for each request."""
        if self._data is None:
            self._data = super().body()
        return self._data


def _is_immutable(project: Project, inner: str, tag: str) -> bool:
    for rule in project.rules:
        tags = rule.get("tag_selectors") or []
        scopes = (rule.get("scope_selectors") or {}).get("repository") or []
        if tags and scopes and all(fnmatch.fnmatch(tag, item["pattern"]) for item in tags):
            return all(fnmatch.fnmatch(inner, item["pattern"]) for item in scopes)
    return False


def immutable(pattern: str) -> dict[str, Any]:
    """Return a rule of immutability for tags."""
    return {
        "id": 1,
        "action": "immutable",
        "template": "immutable_template",
        "tag_selectors": [{"kind": "doublestar", "decoration": "matches", "pattern": pattern}],
        "scope_selectors": {"repository": [{"kind": "doublestar", "decoration": "repoMatches", "pattern": "**"}]},
    }


@contextlib.contextmanager
def running_harbor(behind: Registry) -> Iterator[Harbor]:
    """Run a stand-in until the block ends; ``robot$import`` with ``s3cret`` may push and make projects."""
    harbor = Harbor(behind=behind, accounts={"robot$import": Account("s3cret")})
    harbor.project("library", metadata={"public": "true"})
    server = _Server(("127.0.0.1", 0), type("Bound", (Handler,), {"front": harbor}))
    harbor.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield harbor
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class RealHarbor:
    """A Harbor that a tester named: AIRLIFT_TEST_HARBOR, and the account in _USER and _PASSWORD."""

    url: str
    user: str
    password: str

    @classmethod
    def named(cls) -> RealHarbor | None:
        """Return it, or None when none is named."""
        names = ("AIRLIFT_TEST_HARBOR", "AIRLIFT_TEST_HARBOR_USER", "AIRLIFT_TEST_HARBOR_PASSWORD")
        values = [os.environ.get(name, "") for name in names]
        return cls(values[0].rstrip("/"), *values[1:]) if all(values) else None

    @contextlib.contextmanager
    def project(self) -> Iterator[str]:
        """Give the name of a project that is not there yet; what was made of it is removed."""
        name = f"airlift-test-{secrets.token_hex(6)}"
        try:
            yield name
        finally:
            self._remove(name)

    def _remove(self, name: str) -> None:
        # Nobody's cookies: with them Harbor refuses the next DELETE.
        base, login = f"{self.url}/api/v2.0/projects/{name}", (self.user, self.password)
        while True:
            answer = requests.get(f"{base}/repositories?page_size=100", auth=login, timeout=60)
            found = answer.json() if answer.status_code == 200 else []
            for item in found:
                path = quote(quote(item["name"].partition("/")[2], safe=""), safe="")
                requests.delete(f"{base}/repositories/{path}", auth=login, timeout=60).raise_for_status()
            if not found:
                break
        gone = requests.delete(base, auth=login, timeout=60)
        assert gone.status_code in (200, 403, 404), gone.text
