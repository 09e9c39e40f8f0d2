"""The robot that a site imports with: made once, with an administrator's login, and renewed when it expires."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlencode

from airlift.errors import FetchError
from airlift.transport.harbor import HarborClient
from airlift.transport.http import HttpStatusError
from airlift.transport.refusals import delivering

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


@dataclass(frozen=True, slots=True)
class _Found:
    """A robot that is there already.

    Attributes:
        path: of it in Harbor's API.
        created: when it was made.
        now: what Harbor's clock says.
    """

    path: str
    created: datetime
    now: datetime

    def life(self, days: int) -> int:
        """Return the duration with which it lives `days` more: Harbor counts from when a robot was made."""
        begun = -((self.created - self.now) // timedelta(days=1))
        return days if days < 0 else days + max(0, begun)


def make_robot(client: HarborClient, username: str, *, days: int, anew: bool) -> Robot:
    """Make a system robot that may do what an import and a prune need, and no more.

    Args:
        client: of an administrator.
        username: its whole name, as site.yaml has it.
        days: its life from now on, -1 for no end; of a robot that was there, up to a day more.
        anew: take a robot of this name when there is one. Its rights and its life are set first, and its secret changes
            last: whatever fails before leaves it with the secret that it has.

    Raises:
        DeliveryError: Harbor refuses, or has a robot of this name.
    """
    with delivering(client.registry):
        name = _without_prefix(client, username)
        answer = client.api("GET", "/permissions", accept=(_NOT_FOUND,))
        # A Harbor without such a list takes whatever it is asked for.
        known = None if answer.status == _NOT_FOUND else client.document(answer, "permissions")
        wanted = {
            "description": _DESCRIPTION,
            "level": "system",
            "permissions": [
                {"kind": "system", "namespace": "/", "access": _access(_IN_SYSTEM, known, "system")},
                {"kind": "project", "namespace": "*", "access": _access(_IN_PROJECTS, known, "project")},
            ],
        }
        found = _find(client, name, username) if anew else None
        if found is None:
            return _make(client, username, {**wanted, "name": name, "duration": days})
        return _renew(client, username, found, {**wanted, "name": username, "disable": False}, days)


def _make(client: HarborClient, username: str, wanted: Mapping[str, Any]) -> Robot:
    answer = client.api("POST", "/robots", json.dumps(wanted).encode(), accept=(_CONFLICT,))
    if answer.status == _CONFLICT:
        raise FetchError(
            f"{client.registry}: there is a robot {username} already",
            hint="--renew gives it a new life and a new secret, and ends the one that it has",
        )
    made = client.document(answer, "robots")
    values = [made.get(key) if isinstance(made, dict) else None for key in ("name", "secret", "expires_at")]
    given, secret, ends = values
    if given != username or not isinstance(secret, str) or not secret or not isinstance(ends, int):
        raise FetchError(f"{client.registry}: the robot that was made is {str(given)[:100]}, expected {username}")
    return Robot(username, secret, ends)


def _renew(client: HarborClient, username: str, found: _Found, wanted: Mapping[str, Any], days: int) -> Robot:
    client.api("PUT", found.path, json.dumps({**wanted, "duration": found.life(days)}).encode())
    shown = client.document(client.api("GET", found.path), "robots")
    ends = shown.get("expires_at") if isinstance(shown, dict) else None
    if not isinstance(ends, int) or (ends >= 0 if days < 0 else ends <= found.now.timestamp()):
        raise FetchError(
            f"{client.registry}: the robot {username} ends at {str(ends)[:100]}, which is not what it was told",
            hint="remove the robot in Harbor, then make it without --renew",
        )
    answer = client.document(client.api("PATCH", found.path, b"{}"), "robots")
    secret = answer.get("secret") if isinstance(answer, dict) else None
    if not isinstance(secret, str) or not secret:
        raise FetchError(f"{client.registry}: no secret came for the robot {username}")
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


def _find(client: HarborClient, name: str, username: str) -> _Found | None:
    query = urlencode({"q": f"name={name}"})
    answer = client.api("GET", f"/robots?{query}")
    listed = client.document(answer, "robots")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and item.get("name") == username and isinstance(item.get("id"), int):
            try:
                created = datetime.fromisoformat(str(item.get("creation_time")))
                now = parsedate_to_datetime(answer.headers.get("Date", ""))
                return _Found(f"/robots/{item['id']}", created.astimezone(UTC), now.astimezone(UTC))
            except (ValueError, OverflowError):
                raise FetchError(f"{client.registry}: the age of the robot {username} cannot be read") from None
    return None
