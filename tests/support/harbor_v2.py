"""The stand-in's ``/v2``: who may do what is decided here, as in core; the back end stores, and answers for blobs."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
from abc import abstractmethod
from collections.abc import Callable
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from tests.support.harbor_state import Project, Repository, size_in_words
from tests.support.harbor_web import FROM_REGISTRY, UTF8, WRITES, WebHandler

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]+)?"
_REPOSITORY = rf"/v2/(?P<repository>(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]+"
ROUTES = {
    "manifests": re.compile(rf"{_REPOSITORY}/manifests/(?P<rest>.*)"),
    "tags": re.compile(rf"{_REPOSITORY}/tags/list(?P<rest>.*)"),
    "referrers": re.compile(rf"{_REPOSITORY}/referrers/(?P<rest>.*)"),
    "blobs": re.compile(rf"{_REPOSITORY}/blobs/(?P<rest>{_DIGEST})"),
    "uploads": re.compile(rf"{_REPOSITORY}/blobs/uploads(?P<rest>[/a-zA-Z0-9\-_.=]*)"),
}
"""In the order in which Harbor tries them; only the names of the first part may have upper case."""

ACTIONS = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}
BASIC = {"Www-Authenticate": 'Basic realm="harbor"', **FROM_REGISTRY}
EMPTY = {"Www-Authenticate": "", **FROM_REGISTRY}
MOST_CHARACTERS = 245


class V2Handler(WebHandler):
    """Decides about requests for the registry, and passes on what the back end answers."""

    project: Project
    repository: str
    inner: str

    def v2(self) -> None:
        path = self.path_once
        if path == "/v2/":
            self._base()
        elif path == "/v2/_catalog":
            self._catalog()
        else:
            found = ((kind, route.fullmatch(path)) for kind, route in ROUTES.items())
            kind, match = next(((kind, match) for kind, match in found if match), ("", None))
            if match is None:
                said = f"un-recognized request: {self.command} {path}"
                self.refuse(401, "UNAUTHORIZED", f"{said}: {said}", EMPTY)
            else:
                self.repository = match["repository"]
                self._named(kind, match["rest"])

    def _base(self) -> None:
        if not self.caller.is_authenticated:
            self._challenge("unauthorized", "")
        elif "registry" in self.front.down:
            self.give(502, b"", {})
        else:
            self.send(200, {}, {**UTF8, **FROM_REGISTRY})

    def _challenge(self, said: str, actions: str) -> None:
        realm = f'Bearer realm="{self.front.scheme}://{self.headers["Host"]}/service/token",service="harbor-registry"'
        scope = f',scope="repository:{self.repository}:{actions}"' if actions else ""
        bearer = {"Www-Authenticate": realm + scope, **FROM_REGISTRY}
        self.refuse(401, "UNAUTHORIZED", f"{said}: {said}", BASIC if self.caller.is_named else bearer)

    def _catalog(self) -> None:
        account = self.caller.account
        if account is None or not account.is_admin:
            said = "unauthorized to list catalog"
            self.refuse(401, "UNAUTHORIZED", f"{said}: {said}", BASIC)
            return
        projects = self.front.projects.values()
        names = sorted(
            f"{p.name}/{inner}" for p in projects for inner, item in p.repositories.items() if item.artifacts
        )
        last = self.query.get("last", [""])[0]
        if last and last not in names:
            self.refuse(400, "BAD_REQUEST", f"the last: {last} should be a valid repository name.")
        else:
            self._paged("repositories", names, "/v2/_catalog", {})

    def _paged(self, key: str, names: list[str], path: str, more: dict[str, str]) -> None:
        count = int(self.query.get("n", ["-1"])[0])
        if "n" in self.query and count < 0:
            self.refuse(400, "BAD_REQUEST", "the N must be a positive int type")
            return
        rest = [name for name in names if name > self.query.get("last", [""])[0]]
        shown = rest if count < 0 else rest[:count]
        link = {}
        if 0 < count < len(rest):
            link["Link"] = f'<{path}?{urlencode({"last": shown[-1], "n": count})}>; rel="next"'
        self.send(200, {**more, key: shown}, {**UTF8, **link})

    def _named(self, kind: str, rest: str) -> None:
        """Do what is asked of a repository, when its name and the rights allow it."""
        name, slash, self.inner = self.repository.partition("/")
        source = self.query.get("from", [""])[0] if "mount" in self.query else ""
        action = ACTIONS.get(self.command, "push")
        wrong = self.repository if not slash else source if source and "/" not in source else ""
        if wrong:
            self.refuse(400, "BAD_REQUEST", f"bad request: invalid repository name: {wrong}")
        elif "database" in self.front.down:
            # Reads fail where the project is looked up.
            self.broken() if self.command in WRITES else self._challenge_empty("database is down")
        elif not self.caller.is_named and self.command in ("GET", "HEAD"):
            self._challenge("authorize header needed to send HEAD to repository", "pull")
        elif self._may(name, self.repository, action) and (
            not source or self._may(source.partition("/")[0], source, "pull")
        ):
            self.project = self.front.projects[name]
            if action == "push" and self.project.registry_id is not None:
                self.refuse(403, "DENIED", f"denied: can not push artifact to a proxy project: {name}")
            elif kind == "uploads" and len(self.repository) > MOST_CHARACTERS:
                self.give(500, b"{}\n", UTF8)
            else:
                getattr(self, f"_{kind}")(rest)

    def _challenge_empty(self, said: str) -> None:
        self.refuse(401, "UNAUTHORIZED", f"{said}: {said}", EMPTY)

    def _may(self, name: str, repository: str, action: str) -> bool:
        """Say whether the caller may; refuse otherwise."""
        project = self.front.projects.get(name)
        if project is None:
            self._challenge_empty(f"project {name} not found")
            return False
        if not self.caller.may(project, action):
            asked = "pull,push" if action == "push" else action
            self._challenge(f"unauthorized to access repository: {repository}, action: {action}", asked)
            return False
        return True

    def _not_found(self, what: str) -> None:
        self.refuse(404, "NOT_FOUND", f"{what} not found")

    def _artifact(self, reference: str) -> tuple[Repository, str] | None:
        """Return repository and digest of a reference; refuse when there is none."""
        found = self.project.repositories.get(self.inner)
        digest = None if found is None else found.digest(reference)
        sign = "@" if re.fullmatch("sha256:[0-9a-f]{64}", reference) else ":"
        if found is None:
            self._not_found(f"repository {self.repository}")
        elif digest is None:
            self._not_found(f"artifact {self.repository}{sign}{reference}")
        else:
            return found, digest
        return None

    def _tags(self, _rest: str) -> None:
        found = self.project.repositories.get(self.inner)
        if found is None:
            self._not_found(f"repository {self.repository}")
        else:
            self._paged("tags", sorted(found.tags), self.path_once, {"name": self.repository})

    def _referrers(self, subject: str) -> None:
        if not re.fullmatch("sha256:[0-9a-f]{64}", subject):
            self.refuse(400, "BAD_REQUEST", f"unsupported digest {subject}: invalid checksum digest format")
            return
        found = self.project.repositories.get(self.inner) or Repository(0)
        items = {digest: found.artifacts[digest] for digest in found.referrers(subject)}
        listed = [
            {
                "mediaType": item.media_type,
                "digest": digest,
                "size": item.size,
                **({"annotations": item.annotations} if item.annotations else {}),
                "artifactType": item.kind,
            }
            for digest, item in sorted(items.items(), key=lambda one: one[1].number)
        ]
        headers = {"Content-Type": "application/vnd.oci.image.index.v1+json", "X-Total-Count": str(len(listed))}
        if wanted := self.query.get("artifactType", [""])[0]:
            headers["Oci-Filters-Applied"] = "artifactType"
            listed = [item for item in listed if item["artifactType"] == wanted]
        index = {"schemaVersion": 2, "mediaType": headers["Content-Type"], "manifests": listed}
        self.send(200, index, headers)

    def _blobs(self, digest: str) -> None:
        if self.command == "GET" and not re.fullmatch("sha256:[0-9a-f]{64}", digest):
            said = {"code": "DIGEST_INVALID", "message": "provided digest did not match uploaded content", "detail": {}}
            self.send(400, {"errors": [said]}, UTF8)
        else:
            self.hand_over()

    def _uploads(self, rest: str) -> None:
        session = rest.strip("/")
        if not rest:
            location = f"{self.front.scheme}://{self.headers['Host']}{self.path_once}/"
            self.give(301, b"", {"Location": location})
        elif self.command == "POST":
            self._begin()
        elif not session or session in self.front.dead:
            code = "BLOB_UPLOAD_INVALID" if session else "BLOB_UPLOAD_UNKNOWN"
            said = "blob upload invalid" if session else "blob upload unknown to registry"
            self.refuse(404, code, said)
        elif self.command == "PUT":
            self._close(session)
        else:
            self.body()
            if "redis" in self.front.down and self.command == "PATCH":
                self.broken()
            else:
                size = self.front.upload_sizes.get(session, 0) + len(self.body())
                self.hand_over(then=(202, lambda: self.front.upload_sizes.update({session: size})))

    def _begin(self) -> None:
        project = self.project
        if 0 <= project.hard < project.used:
            self._over("subtracting", 0)
            return
        counted = {}
        if mount := self.query.get("mount", [""])[0]:
            source = self.query.get("from", [""])[0].partition("/")[0]
            size = self.front.projects[source].blobs.get(mount) if source else None
            counted = {} if size is None else {mount: size}
        if not self.is_over(counted):
            self.hand_over(then=(201, lambda: self._count(counted)))

    def _close(self, session: str) -> None:
        digest = parse_qs(urlsplit(self.path).query).get("digest", [""])[0]
        if not digest:
            self.refuse(400, "BAD_REQUEST", "exist blob require digest")
            return
        # What the request itself brings, else what has been accepted before.
        size = int(self.headers.get("Content-Length") or 0) or self.front.upload_sizes.get(session, 0)
        counted = {digest: size}
        if not self.is_over(counted):
            self.hand_over(then=(201, lambda: self._count(counted)))

    def _count(self, counted: dict[str, int]) -> None:
        with self.front.lock:
            self.project.blobs.update(counted)

    def is_over(self, counted: dict[str, int]) -> bool:
        """Say whether the quota has no room for what is new of it; refuse then."""
        project = self.project
        new = sum(size for digest, size in counted.items() if digest not in project.blobs)
        if project.hard < 0 or not counted or project.used + new <= project.hard:
            return False
        self._over("adding", new)
        return True

    def _over(self, verb: str, size: int) -> None:
        used, hard = size_in_words(self.project.used), size_in_words(self.project.hard)
        self.leave_body()
        self.refuse(
            403,
            "DENIED",
            f"{verb} {size_in_words(size)} of storage resource, which when updated to current usage of {used} "
            f"will exceed the configured upper limit of {hard}.",
        )

    def hand_over(self, path: str | None = None, *, then: tuple[int, Callable[[], object]] | None = None) -> None:
        """Let the back end answer; `then` is what is done at a status, before who asked knows of it."""
        self.body()
        if "registry" in self.front.down:
            self.give(502, b"", {})
            return
        given = self.path
        self.path = path or quote(self.path_once) + given[len(urlsplit(given).path) :]
        try:
            status, headers, data = self.ask_behind()
        finally:
            self.path = given
        if then is not None and then[0] == status:
            then[1]()
        self.give(status, data, headers)

    def stored(self, kind: str, digest: str) -> bytes:
        """Return what the back end has under a digest, or nothing."""
        assert self.front.behind is not None
        link = http.client.HTTPConnection(self.front.behind.host, timeout=30)
        try:
            link.request("GET", f"/v2/{self.repository}/{kind}/{digest}")
            answer = link.getresponse()
            return answer.read() if answer.status == 200 else b""
        finally:
            link.close()

    @abstractmethod
    def _manifests(self, reference: str) -> None:
        """Answer what is asked of a manifest."""


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def parsed(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
