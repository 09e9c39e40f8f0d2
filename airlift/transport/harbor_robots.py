"""The robot that a site imports with: made once, with an administrator's login, and made anew when it expires."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from airlift.errors import FetchError
from airlift.transport.harbor import HarborClient
from airlift.transport.http import HttpStatusError
from airlift.transport.push import delivering

_IN_PROJECTS: Final = (
    ("repository", "pull"),
    ("repository", "push"),
    ("repository", "delete"),
    ("tag", "delete"),
    ("project", "read"),
    ("immutable-tag", "list"),
)
_IN_SYSTEM: Final = (("project", "create"), ("quota", "list"))
_CONFLICT: Final = 409
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_NAME: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_DESCRIPTION: Final = "imports bundles (airlift)"


@dataclass(frozen=True, slots=True)
class Robot:
    """A robot that was made.

    Attributes:
        name: with Harbor's prefix.
        secret: its password, which Harbor tells once.
        expires_at: seconds since 1970, -1 for never.
    """

    name: str
    secret: str = field(repr=False)
    expires_at: int


def make_robot(client: HarborClient, username: str, *, days: int, anew: bool) -> Robot:
    """Make a system robot that may do what an import and a prune need, and no more.

    Args:
        client: of an administrator.
        username: its whole name, as site.yaml has it.
        days: its life, -1 for no end.
        anew: remove a robot of this name first; its secret ends.

    Raises:
        DeliveryError: Harbor refuses, or has a robot of this name.
    """
    with delivering(client.registry):
        name = _without_prefix(client, username)
        if anew:
            _remove(client, name, username)
        known = client.document(client.api("GET", "/permissions"), "permissions")
        body = {
            "name": name,
            "description": _DESCRIPTION,
            "level": "system",
            "duration": days,
            "permissions": [
                {"kind": "system", "namespace": "/", "access": _access(_IN_SYSTEM, known, "system")},
                {"kind": "project", "namespace": "*", "access": _access(_IN_PROJECTS, known, "project")},
            ],
        }
        answer = client.api("POST", "/robots", json.dumps(body).encode(), accept=(_CONFLICT,))
        if answer.status == _CONFLICT:
            raise FetchError(
                f"{client.registry}: there is a robot {username} already",
                hint="--renew makes it anew, and ends the secret that it has",
            )
        made = client.document(answer, "robots")
        values = [made.get(key) if isinstance(made, dict) else None for key in ("name", "secret", "expires_at")]
        given, secret, ends = values
        if given != username or not isinstance(secret, str) or not secret or not isinstance(ends, int):
            raise FetchError(f"{client.registry}: the robot that was made is {str(given)[:100]}, expected {username}")
        return Robot(username, secret, ends)


def _access(rights: tuple[tuple[str, str], ...], known: Any, kind: str) -> list[dict[str, str]]:
    """Return the rights that this version of Harbor has: it refuses a robot with one that it does not know."""
    wanted = [{"resource": resource, "action": action} for resource, action in rights]
    listed = known.get(kind) if isinstance(known, dict) else None
    return [right for right in wanted if right in listed] if isinstance(listed, list) else wanted


def _without_prefix(client: HarborClient, username: str) -> str:
    """Return a robot's name without the prefix that this Harbor puts before all of them."""
    try:
        settings = client.document(client.api("GET", "/configurations"), "configurations")
    except HttpStatusError as error:
        if error.status == _FORBIDDEN:
            raise FetchError(
                f"{client.registry}: only an administrator may make a robot", hint="give the login of one with --admin"
            ) from None
        raise
    entry: Any = settings.get("robot_name_prefix") if isinstance(settings, dict) else None
    prefix = entry.get("value") if isinstance(entry, dict) else None
    name = username.removeprefix(prefix) if isinstance(prefix, str) else username
    if not isinstance(prefix, str) or name == username or _NAME.fullmatch(name) is None:
        raise FetchError(
            f"{client.registry}: {username} is no name of a system robot there: expected {str(prefix)[:100]}NAME",
            hint="set username of registry in site.yaml to such a name, in lower case",
        )
    return name


def _remove(client: HarborClient, name: str, username: str) -> None:
    query = urlencode({"q": f"name={name}"})
    found = client.document(client.api("GET", f"/robots?{query}"), "robots")
    for item in found if isinstance(found, list) else []:
        if isinstance(item, dict) and item.get("name") == username and isinstance(item.get("id"), int):
            client.api("DELETE", f"/robots/{item['id']}", accept=(_NOT_FOUND,))
