"""The stand-in's ``/api/v2.0``: projects, rules, repositories. Robots and quotas are in `tests.support.harbor_robots`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

from tests.support.harbor_robots import PERMISSIONS, RobotHandler
from tests.support.harbor_state import Project

NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
DATE = "2026-11-25T09:44:28.740Z"
NEVER = "0001-01-01T00:00:00.000Z"
BAD_NAME = "project name is not in lower case or contains illegal characters"
MOST_STORAGE = 1024 * 2**40
KEYS = [
    "auto_sbom_generation",
    "auto_scan",
    "enable_content_trust",
    "enable_content_trust_cosign",
    "prevent_vul",
    "public",
    "severity",
    "reuse_sys_cve_allowlist",
]
COMPONENTS = ("core", "database", "redis", "registry")


class ApiHandler(RobotHandler):
    """Answers for the API."""

    def api(self) -> None:
        path = self.path_once.removeprefix("/api/v2.0/")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if path == "ping":
            self.give(200, b"Pong", {"Content-Type": "text/plain"})
        elif path == "health":
            states = [{"name": n, "status": "unhealthy" if n in self.front.down else "healthy"} for n in COMPONENTS]
            self.send(200, {"components": states, "status": "unhealthy" if self.front.down else "healthy"})
        elif "database" in self.front.down:
            self.broken()
        elif path == "systeminfo":
            self._systeminfo()
        elif parts[0] == "projects":
            self._projects(parts[1:])
        elif parts[0] == "quotas":
            self.quotas(parts[1:])
        elif parts[0] == "robots":
            self.robots(parts[1:])
        elif parts[0] == "users" and parts[1:] == ["current"]:
            self._current()
        elif path == "permissions":
            self._permissions()
        elif parts[0] == "configurations":
            self._configurations()
        else:
            self.no_path()

    def no_path(self) -> None:
        self.refuse(404, "NOT_FOUND", f"path {self.path_once} was not found")

    def _systeminfo(self) -> None:
        known = {
            "current_time": DATE,
            "external_url": "",
            "harbor_version": "v2.15.2-080b0220",
            "has_ca_root": False,
            "notification_enable": True,
            "project_creation_restriction": self.front.creation,
            "read_only": self.front.read_only,
            "registry_storage_provider_name": "filesystem",
            "registry_url": self.front.host,
        }
        public = {
            "auth_mode": "db_auth",
            "banner_message": "",
            "oidc_provider_name": "",
            "primary_auth_mode": False,
            "self_registration": False,
        }
        self.send(200, dict(sorted((public | (known if self.caller.account else {})).items())))

    def _current(self) -> None:
        account = self.caller.account
        if account is None:
            self.no_right()
        elif account.is_robot:
            said = "get current user not available for security context: robot"
            self.refuse(412, "PRECONDITION", said)
        else:
            about = {"admin_role_in_auth": account.is_by_group, "comment": "admin user", "realname": "system admin"}
            dates = {"creation_time": DATE, "update_time": DATE}
            is_flagged = account.is_admin and not account.is_by_group
            mine = {"sysadmin_flag": is_flagged, "user_id": account.number, "username": self.caller.name}
            self.send(200, {**about, **dates, **mine})

    def _permissions(self) -> None:
        account = self.caller.account
        if account is None or not account.is_admin:
            self.refuse(401, "UNAUTHORIZED", "")
            return
        pairs = {kind: [right.split(":") for right in sorted(rights)] for kind, rights in PERMISSIONS.items()}
        self.send(200, {k: [{"action": action, "resource": what} for what, action in v] for k, v in pairs.items()})

    def _configurations(self) -> None:
        account = self.caller.account
        if account is None or not account.is_admin:
            self.refuse(401, "UNAUTHORIZED", "unauthorized") if account is None else self.refuse(
                403, "FORBIDDEN", self.caller.name
            )
        elif self.command == "PUT":
            given = json.loads(self.body())
            self.front.read_only = given.get("read_only", self.front.read_only)
            self.front.creation = given.get("project_creation_restriction", self.front.creation)
            self.front.name_robots(given.get("robot_name_prefix", self.front.robot_prefix))
            self.send(200)
        else:
            values = {
                "auth_mode": "db_auth",
                "project_creation_restriction": self.front.creation,
                "read_only": self.front.read_only,
                "robot_name_prefix": self.front.robot_prefix,
            }
            self.send(200, {name: {"editable": True, "value": value} for name, value in values.items()})

    def _projects(self, rest: list[str]) -> None:
        if rest:
            self._project(rest[0], rest[1:])
        elif self.command == "HEAD":
            name = self.query["project_name"][0]
            status = 400 if not NAME.fullmatch(name) else 200 if name in self.front.projects else 404
            self.give(401 if self.caller.account is None else status, b"", {})
        elif self.command == "POST":
            self._create()
        else:
            wanted = self.query.get("name", [""])[0]
            exact = self.query.get("q", [""])[0].removeprefix("name=")
            found = [
                p
                for p in sorted(self.front.projects.values(), key=lambda p: p.name)
                if wanted in p.name and exact in ("", p.name) and (p.is_public or self.caller.account is not None)
            ]
            if (page := self.page(found, "projects")) is not None:
                self.send(200, [self._shown(item) for item in page], self.paging)

    def _create(self) -> None:
        account = self.caller.account
        if account is None:
            self.no_right()
            return
        wanted = self.document("project")
        if wanted is None:
            return
        status, code, said = self._refusal(wanted)
        with self.front.lock:
            name = wanted["project_name"]
            if not status and name in self.front.projects:
                status, code, said = 409, "CONFLICT", f"The project named {name} already exists"
            if not status:
                # The limit of who has no right to make projects, but may as everybody may, is ignored without a word.
                limit = wanted.get("storage_limit") or -1
                hard = limit if account.allows("/", "project:create") else -1
                metadata = {"public": "false", **(wanted.get("metadata") or {})}
                if metadata.get("severity") == "bogus":
                    metadata["severity"] = "unknown"
                made = self.front.project(name, metadata=metadata, hard=hard, registry_id=wanted.get("registry_id"))
                if not account.is_robot:
                    # Whoever makes a project administers it.
                    account.gain(*PERMISSIONS["project"], namespace=name)
        if status:
            self.refuse(status, code, said)
            return
        is_named = self.headers.get("X-Resource-Name-In-Location") == "true"
        self.send(201, None, {"Location": f"/api/v2.0/projects/{name if is_named else made.number}"})

    def _refusal(self, wanted: dict[str, Any]) -> tuple[int, str, str]:
        """Return status, code and message of what is wrong with a project; status 0 when nothing is."""
        account = self.caller.account
        assert account is not None
        name, limit = wanted.get("project_name", ""), wanted.get("storage_limit", 0)
        failed = 'validation failure list:\nparsing project body from "" failed, because json: cannot unmarshal '
        for key, value in (wanted.get("metadata") or {}).items():
            if not isinstance(value, str):
                kind = "bool" if isinstance(value, bool) else "number"
                into = f"Go struct field ProjectMetadata.metadata.{key} of type string"
                return 422, "UNPROCESSABLE_ENTITY", f"{failed}{kind} into {into}"
        if not isinstance(limit, int) or limit >= 2**63:
            what = "string" if isinstance(limit, str) else f"number {limit}"
            return (
                422,
                "UNPROCESSABLE_ENTITY",
                f"{failed}{what} into Go struct field ProjectReq.storage_limit of type int64",
            )
        if len(name) > 255:
            long = "project_name in body should be at most 255 chars long"
            return 422, "UNPROCESSABLE_ENTITY", f"validation failure list:\nvalidation failure list:\n{long}"
        if account.is_robot and account.level != "system":
            return 403, "FORBIDDEN", "Only system level robot can create project"
        if self.front.creation == "adminonly" and not account.allows("/", "project:create"):
            return 403, "FORBIDDEN", "Only system admin can create project"
        if not name:
            return 400, "BAD_REQUEST", f"Project name {name} is illegal in length. (greater than 255 or less than 1)"
        if not NAME.fullmatch(name):
            return 400, "BAD_REQUEST", BAD_NAME
        public = (wanted.get("metadata") or {}).get("public", "false")
        if public not in ("true", "false"):
            said = f"metadata.public should only be 'true' or 'false', but got: '{public}'"
            return 400, "BAD_REQUEST", said
        if limit < -1:
            return 400, "BAD_REQUEST", f"bad request: invalid non-positive value for quota limit, value={limit}"
        if limit > MOST_STORAGE:
            said = f"bad request: exceeded 1024TB, which is {MOST_STORAGE} Bytes, value={limit}"
            return 400, "BAD_REQUEST", said
        return 0, "", ""

    def _shown(self, project: Project) -> dict[str, Any]:
        account = self.caller.account
        is_admin = account is not None and account.is_admin
        role = (
            {"current_user_role_id": 1, "current_user_role_ids": [1]} if is_admin else {"current_user_role_ids": None}
        )
        allowed = {"id": project.number, "items": [], "project_id": project.number, "update_time": NEVER}
        proxy = {} if project.registry_id is None else {"registry_id": project.registry_id}
        return {
            "creation_time": DATE,
            **role,
            "cve_allowlist": {"creation_time": NEVER, **allowed},
            "metadata": dict(sorted(project.metadata.items())),
            "name": project.name,
            "owner_id": 1,
            "owner_name": "admin",
            "project_id": project.number,
            **proxy,
            "repo_count": len(project.repositories),
            "update_time": DATE,
        }

    def _find(self, name: str) -> Project | None:
        if name.isdigit() and self.headers.get("X-Is-Resource-Name") != "true":
            return next((p for p in self.front.projects.values() if str(p.number) == name), None)
        return self.front.projects.get(name)

    def _project(self, name: str, rest: list[str]) -> None:
        found, account = self._find(name), self.caller.account
        verbs = {"GET": "read", "PUT": "update", "DELETE": "delete"}
        is_open = found is not None and found.is_public and self.command == "GET" and not rest
        right = f"project:{verbs.get(self.command, 'update')}" if not rest or rest == ["summary"] else ""
        if rest and rest[0] == "immutabletagrules":
            right = f"immutable-tag:{'list' if self.command == 'GET' else 'create'}"
        elif rest and rest[0] == "repositories":
            verbs = {"DELETE": "repository:delete", "POST": "artifact:create"}
            right = verbs.get(self.command, "repository:list")
            right = "tag:delete" if rest[4:5] == ["tags"] else right
        is_hidden = found is None and account is not None and not account.is_admin
        if not is_open and (account is None or is_hidden or not account.allows(name, right)):
            self.no_right()
        elif found is None and rest[:1] == ["repositories"] and rest[2:] == ["artifacts"]:
            self.send(200, [], {"X-Total-Count": "0"})
        elif found is None:
            self.refuse(404, "NOT_FOUND", f"project {name} not found")
        else:
            self._in_project(found, rest)

    def _in_project(self, project: Project, rest: list[str]) -> None:
        routes: dict[str, Callable[[Project, list[str]], None]] = {
            "immutabletagrules": self._rules,
            "repositories": self._repositories,
            "metadatas": self._metadatas,
        }
        if not rest and self.command == "GET":
            self.send(200, self._shown(project))
        elif not rest and self.command == "PUT":
            project.metadata.update(json.loads(self.body()).get("metadata") or {})
            self.send(200)
        elif not rest and self.command == "DELETE" and project.repositories:
            said = "precondition failed: the project contains repositories, can not be deleted"
            self.refuse(412, "PRECONDITION", said)
        elif not rest:
            del self.front.projects[project.name]
            self.send(200)
        elif rest == ["summary"]:
            self._summary(project)
        elif rest[0] in routes:
            routes[rest[0]](project, rest[1:])
        else:
            self.no_path()

    def _summary(self, project: Project) -> None:
        """Tell what the caller may see: a part that needs another right is left out without a word."""
        account, parts = self.caller.account, {"repo_count": len(project.repositories)}
        quota = {"hard": {"storage": project.hard}, "used": {"storage": project.used}}
        if account is not None and account.allows(project.name, "member:list"):
            parts = {"project_admin_count": 1, **parts}
        if account is not None and account.allows(project.name, "quota:read"):
            parts = {**parts, "quota": quota}
        self.send(200, dict(sorted(parts.items())))

    def _rules(self, project: Project, rest: list[str]) -> None:
        if self.command == "POST":
            rule = self.document("ImmutableRule")
            if rule is None:
                return
            if any({k: v for k, v in old.items() if k != "id"} == rule for old in project.rules):
                self.refuse(409, "CONFLICT", "immutable rule already exists")
                return
            project.rules.append({**rule, "id": self.front.number()})
            number = project.rules[-1]["id"]
            location = f"/api/v2.0/projects/{project.name}/immutabletagrules/{number}"
            self.send(201, None, {"Location": location})
        elif self.command == "DELETE":
            project.rules[:] = [rule for rule in project.rules if str(rule["id"]) not in rest]
            self.send(200)
        elif (page := self.page(self._listed(project), f"projects/{project.name}/immutabletagrules")) is not None:
            self.send(200, page, self.paging)

    def _listed(self, project: Project) -> list[dict[str, Any]]:
        return [{"tag_selectors": None, **rule} for rule in project.rules]

    def _metadatas(self, project: Project, rest: list[str]) -> None:
        given = {} if self.command == "GET" else json.loads(self.body())
        key = next(iter(given), "")
        if self.command == "GET":
            self.send(200, dict(sorted(project.metadata.items())))
        elif self.command == "POST" and len(given) > 1:
            self.refuse(400, "BAD_REQUEST", "only allow one key/value pair")
        elif key not in KEYS:
            self.refuse(400, "BAD_REQUEST", f"invalid key: {key}")
        elif self.command == "POST" and key in project.metadata:
            self.refuse(409, "CONFLICT", f"metadata {key} already exists for project {project.number}")
        else:
            project.metadata.update(given)
            self.send(200)

    def _repositories(self, project: Project, rest: list[str]) -> None:
        if not rest:
            names = [
                {"artifact_count": len(item.artifacts), "id": item.number, "name": f"{project.name}/{inner}"}
                for inner, item in sorted(project.repositories.items())
            ]
            if (page := self.page(names, f"projects/{project.name}/repositories")) is not None:
                self.send(200, page, self.paging)
            return
        found = project.repositories.get(rest[0])
        if len(rest) == 5 and rest[1::2] == ["artifacts", "tags"] and self.command == "DELETE":
            self._tag(project, rest[0], rest[2], rest[4])
        elif rest[1:] not in ([], ["artifacts"]):
            self.no_path()
        elif rest[1:] == ["artifacts"] and self.command == "GET":
            self._artifacts(project, rest[0])
        elif found is None:
            self.refuse(404, "NOT_FOUND", f"repository {project.name}/{rest[0]} not found")
        elif self.command == "DELETE" and not rest[1:]:
            stuck = next((tag for tag in found.tags if project.is_immutable(rest[0], tag)), None)
            if stuck is not None:
                self.refuse(412, "PRECONDITION", f"the tag {stuck} configured as immutable, cannot be deleted")
                return
            for digest in list(found.artifacts):
                project.forget(found, digest)
            del project.repositories[rest[0]]
            self.send(200)
        else:
            self.answer(501)

    def _tag(self, project: Project, inner: str, reference: str, tag: str) -> None:
        found = project.repositories.get(inner)
        digest = None if found is None else found.tags.get(reference, reference)
        if found is None or digest not in found.artifacts:
            self.refuse(404, "NOT_FOUND", f"artifact {project.name}/{inner}:{reference} not found")
        elif found.tags.get(tag) != digest:
            self.refuse(404, "NOT_FOUND", f"tag {tag} attached to artifact {project.number} not found")
        elif project.is_immutable(inner, tag):
            self.refuse(412, "PRECONDITION", f"the tag {tag} configured as immutable, cannot be deleted")
        else:
            del found.tags[tag]
            self.send(200)

    def _artifacts(self, project: Project, inner: str) -> None:
        """List artifacts as Harbor does: children of an index and accessories are hidden."""
        found = project.repositories.get(inner)
        items = {} if found is None else found.artifacts
        hidden = {child for item in items.values() for child in item.children}
        hidden |= {digest for digest, item in items.items() if item.subject in items}
        shown = [
            {"digest": digest, "tags": [tag for tag, to in (found.tags if found else {}).items() if to == digest]}
            for digest in items
            if digest not in hidden
        ]
        path = f"projects/{project.name}/repositories/{quote(quote(inner, safe=''), safe='')}/artifacts"
        if (page := self.page(shown, path)) is not None:
            self.send(200, page, self.paging)
