"""The stand-in's robots and quotas: made, found, changed and removed as Harbor does it."""

from __future__ import annotations

import re
import secrets
import string
from datetime import UTC, datetime
from typing import Any

from tests.support.harbor_state import Account, Project
from tests.support.harbor_web import WebHandler

NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
SECRET = re.compile(r"(?=.*[A-Z])(?=.*[a-z])(?=.*[0-9]).{8,128}")
DATE = "2026-11-25T10:05:56.270Z"

PERMISSIONS = {
    "system": {"project:create", "project:list", "quota:list", "quota:read", "quota:update", "robot:create"},
    "project": {
        *(f"repository:{action}" for action in ("read", "update", "delete", "list", "pull", "push")),
        *(f"project:{action}" for action in ("read", "update", "delete")),
        *(f"artifact:{action}" for action in ("read", "create", "list", "delete")),
        *(f"tag:{action}" for action in ("create", "list", "delete")),
        *(f"immutable-tag:{action}" for action in ("create", "delete", "list", "update")),
        "quota:read",
    },
}
"""What a robot may hold, by kind of namespace; a part of what GET /permissions says."""


class RobotHandler(WebHandler):
    """Answers for ``/robots`` and ``/quotas``."""

    def robots(self, rest: list[str]) -> None:
        account = self.caller.account
        if account is None:
            self.refuse(401, "UNAUTHORIZED", "unauthorized")
        elif not account.is_admin:
            self.refuse(403, "FORBIDDEN", self.caller.name)
        elif rest:
            self._one(rest[0])
        elif self.command == "POST":
            if (wanted := self.document("robot")) is not None:
                self._make(wanted)
        else:
            self._list()

    def _list(self) -> None:
        robots = {name: item for name, item in self.front.accounts.items() if item.is_robot}
        wanted = self.query.get("q", [""])[0]
        if wanted.startswith("name=~"):
            robots = {n: a for n, a in robots.items() if wanted[6:] in n.removeprefix(self.front.robot_prefix)}
        elif wanted.startswith("name="):
            # Without the prefix.
            robots = {n: a for n, a in robots.items() if n == self.front.robot_prefix + wanted[5:]}
        shown = [self._shown_robot(name, item) for name, item in robots.items() if item.level == "system"]
        if (page := self.page(shown, "robots")) is not None:
            self.send(200, page, self.paging)

    def _shown_robot(self, name: str, item: Account) -> dict[str, Any]:
        kinds = {"/": "system"}
        permissions = [
            {
                "access": [
                    dict(zip(("resource", "action"), right.split(":"), strict=True)) for right in sorted(rights)
                ],
                "kind": kinds.get(namespace, "project"),
                "namespace": namespace,
            }
            for namespace, rights in item.rights.items()
        ]
        return {
            "creation_time": datetime.fromtimestamp(item.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "creator_ref": 1,
            "creator_type": "local",
            "disable": not item.is_on,
            "duration": item.duration,
            "editable": True,
            "expires_at": item.expires_at,
            "id": item.number,
            "level": item.level,
            "name": name,
            "permissions": permissions,
            "update_time": DATE,
        }

    def _make(self, wanted: dict[str, Any]) -> None:
        status, said = self._refusal_of_robot(wanted)
        level, permissions = wanted.get("level"), wanted.get("permissions") or []
        owner = f"{permissions[0]['namespace']}+" if level == "project" and permissions else ""
        name = self.front.robot_prefix + owner + wanted.get("name", "")
        if not status and name in self.front.accounts:
            status, said = 409, f"robot account 0:{wanted['name']} already exists"
        if status:
            code = {400: "BAD_REQUEST", 404: "NOT_FOUND", 409: "CONFLICT"}[status]
            self.refuse(status, code, said)
            return
        made = Account(_secret(), level=level or "", number=self.front.number())
        made.live(wanted["duration"])
        made.rights = _held(permissions)
        self.front.accounts[name] = made
        shown = {
            "creation_time": DATE,
            "expires_at": made.expires_at,
            "id": made.number,
            "name": name,
            "secret": made.password,
        }
        self.send(201, shown, {"Location": f"/api/v2.0/robots/{made.number}"})

    def _refusal_of_robot(self, wanted: dict[str, Any]) -> tuple[int, str]:
        """Return status and message of what is wrong with a new robot; status 0 when nothing is."""
        if not NAME.fullmatch(wanted.get("name", "")) and not _is_no_life(wanted.get("duration", 0)):
            return 400, "robot name is not in lower case or contains illegal characters"
        return self._refusal_of_change(wanted)

    def _refusal_of_change(self, wanted: dict[str, Any]) -> tuple[int, str]:
        duration, level, permissions = wanted.get("duration", 0), wanted.get("level"), wanted.get("permissions") or []
        if _is_no_life(duration):
            never = "duration must be either -1(Never) or a positive integer"
            return 400, f"bad request error duration input: {duration}, {never}"
        if level not in ("system", "project"):
            return 400, f"bad request error level input: {level}"
        if not permissions:
            return 400, "bad request empty permission"
        if level == "project" and len(permissions) > 1:
            return 400, "bad request permission"
        for item in permissions:
            for access in item["access"]:
                right = f"{access['resource']}:{access['action']}"
                if right not in PERMISSIONS[item["kind"]]:
                    return 400, f"bad request permission: {right}"
            is_one = item["kind"] == "project" and (item["namespace"] != "*" or level == "project")
            if is_one and item["namespace"] not in self.front.projects:
                return 404, f"project {item['namespace']} not found"
        return 0, ""

    def _one(self, number: str) -> None:
        accounts = self.front.accounts
        name = next((n for n, a in accounts.items() if str(a.number) == number and a.is_robot), None)
        if name is None:
            self.refuse(404, "NOT_FOUND", f"robot {number} not found")
        elif self.command == "DELETE":
            del accounts[name]
            self.send(200)
        elif self.command in ("PUT", "PATCH"):
            wanted = self.document("robot" if self.command == "PUT" else "robotSec")
            if wanted is not None and self.command == "PUT":
                self._change(name, accounts[name], wanted)
            elif wanted is not None:
                self._refresh(accounts[name], wanted.get("secret"))
        else:
            self.send(200, self._shown_robot(name, accounts[name]))

    def _change(self, name: str, account: Account, wanted: dict[str, Any]) -> None:
        status, said = self._refusal_of_change({"duration": account.duration, **wanted})
        if not status and (wanted.get("name"), wanted["level"]) != (name, account.level):
            status, said = 400, "cannot update the level or name of robot"
        if status:
            self.refuse(status, {400: "BAD_REQUEST", 404: "NOT_FOUND"}[status], said)
            return
        if (days := wanted.get("duration", account.duration)) != account.duration:
            # From when it was made; the same number again prolongs nothing.
            account.live(days)
        account.is_on = not wanted.get("disable", False)
        account.rights = _held(wanted["permissions"])
        self.send(200)

    def _refresh(self, account: Account, secret: str | None) -> None:
        if secret and not SECRET.fullmatch(secret):
            rule = "characters long with at least 1 uppercase letter, 1 lowercase letter and 1 number"
            self.refuse(400, "BAD_REQUEST", f"the secret must be 8-128, inclusively, {rule}")
            return
        account.password = secret or _secret()
        self.send(200, {} if secret else {"secret": account.password})

    def quotas(self, rest: list[str]) -> None:
        account = self.caller.account
        if account is None:
            self.no_right()
        elif not account.allows("/", "quota:list" if self.command == "GET" else "quota:update"):
            self.refuse(403, "FORBIDDEN", self.caller.name)
        elif not rest:
            wanted = self.query.get("reference_id", [""])[0]
            found = [self._quota(p) for p in self.front.projects.values() if wanted in ("", str(p.number))]
            if (page := self.page(found, "quotas")) is not None:
                self.send(200, page, self.paging)
        else:
            project = next((p for p in self.front.projects.values() if [str(_number_of(p))] == rest), None)
            if project is None:
                self.refuse(404, "NOT_FOUND", f"quota {rest[0]} not found")
            elif self.command == "GET":
                self.send(200, self._quota(project))
            else:
                self._limit(project)

    def _limit(self, project: Project) -> None:
        wanted = self.document("hard")
        if wanted is None:
            return
        hard = wanted["hard"]["storage"]
        if hard == 0 or hard < -1:
            self.refuse(400, "BAD_REQUEST", f"invalid non-positive value for quota limit, value={hard}")
            return
        project.hard = hard
        self.send(200)

    def _quota(self, project: Project) -> dict[str, Any]:
        return {
            "creation_time": DATE,
            "hard": {"storage": project.hard},
            "id": _number_of(project),
            "ref": {"id": project.number, "name": project.name, "owner_name": ""},
            "update_time": DATE,
            "used": {"storage": project.used},
        }


def _number_of(project: Project) -> int:
    """The number of a project's quota, which is another than the project's own."""
    return project.number + 10_000


def _is_no_life(days: int) -> bool:
    return days == 0 or days < -1


def _held(permissions: list[dict[str, Any]]) -> dict[str, set[str]]:
    held: dict[str, set[str]] = {}
    for item in permissions:
        rights = {f"{access['resource']}:{access['action']}" for access in item["access"]}
        held.setdefault(item["namespace"], set()).update(rights)
    return held


def _secret() -> str:
    letters = string.ascii_letters + string.digits
    return "Aa1" + "".join(secrets.choice(letters) for _ in range(29))
