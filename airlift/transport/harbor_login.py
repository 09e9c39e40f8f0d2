"""Logging in to Harbor, whose 401 has six meanings. Basic goes with every request: it never expires.

A 401 is asked again once. One that stays is explained by two more questions: whether the registry knows the account,
and whether the project is there. So a wrong password is never reported because of a project, a name or a database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final
from urllib.parse import urlencode

from airlift import limits
from airlift.errors import FetchError
from airlift.transport.http import HttpClient, HttpStatusError
from airlift.transport.tokens import Login, Scope

_OK: Final = 200
_BAD_REQUEST: Final = 400
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_SERVER_ERROR: Final = 500
_ANY: Final = range(200, 600)
_AGAIN: Final = "then run the same command again"


class Meaning(Enum):
    """What a 401 of Harbor means."""

    LOGIN = auto()
    ENDED = auto()
    RIGHT = auto()
    PROJECT = auto()
    NAME = auto()
    DATABASE = auto()


class RefusedError(FetchError):
    """A 401 of Harbor, explained.

    Attributes:
        meaning: which of the six.
    """

    def __init__(self, meaning: Meaning, message: str, *, hint: str, temporary: bool = False) -> None:
        super().__init__(message, hint=hint, temporary=temporary)
        self.meaning = meaning


class Refusals:
    """Says what the 401s of one Harbor to one account mean. Safe to use from many threads.

    Args:
        registry, user: for messages.
        http, base, basic, plain_http: how to ask.
    """

    def __init__(
        self, registry: str, user: str, http: HttpClient, *, base: str, basic: str | None, plain_http: bool
    ) -> None:
        self.basic = basic
        self._registry = registry
        self._user = user
        self._http = http
        self._base = base
        self._plain_http = plain_http
        self._was_let_in = False

    def let_in(self) -> None:
        """Remember that the account was known a moment ago."""
        self._was_let_in = True

    def explain(self, error: HttpStatusError, repository: str) -> FetchError:
        """Return what a 401 means that came for a repository, or for none (empty)."""
        try:
            known = self._ask("GET", "/v2/")
            if known == _OK:
                self.let_in()
                return self._about_the_place(error, repository)
            there = self._project("library")
            if there < _SERVER_ERROR and there != _UNAUTHORIZED:
                # Versions after 2.15 show a public project to anybody.
                there = self._ask("GET", "/api/v2.0/users/current")
        except FetchError as other:
            return other
        if there == _UNAUTHORIZED:
            return self._about_the_login()
        return self._database() if there >= _SERVER_ERROR else self._passing(error)

    def _about_the_login(self) -> RefusedError:
        if self._was_let_in:
            return RefusedError(
                Meaning.ENDED,
                f"{self._registry}: the login of {self._user} was taken before and is refused now",
                hint=f"the robot has expired or was disabled; renew it (airlift site robot --renew), {_AGAIN}",
            )
        return RefusedError(
            Meaning.LOGIN,
            f"{self._registry}: the login of {self._user} is refused",
            hint="mend the password in password_file; a robot may be disabled, expired or renamed",
        )

    def _about_the_place(self, error: HttpStatusError, repository: str) -> FetchError:
        project = repository.partition("/")[0]
        challenge = (error.headers.get("WWW-Authenticate") or "").strip()
        if not repository:
            return self._passing(error)
        if challenge:
            action = re.search(r"action: ([a-z]{1,20})", error.said)
            right = f"repository:{action[1] if action else 'pull'}"
            # The repository may be another than the one that was asked for: the source of a mount.
            named = re.search(r"repository: ([^\s/,:]{1,255})/", error.said)
            where = named[1] if named else project
            return RefusedError(
                Meaning.RIGHT,
                f"{self._registry}: {self._user} lacks the right {right} in the project {where}",
                hint=f"give the account that right in Harbor, {_AGAIN}",
            )
        there = self._project(project)
        if there >= _SERVER_ERROR:
            return self._database()
        # Versions after 2.15 say 403 of a project that the account may not look at, also where there is none.
        if there in (_FORBIDDEN, _NOT_FOUND):
            return RefusedError(
                Meaning.PROJECT,
                f"{self._registry}: the project {project} is missing",
                hint="it was removed meanwhile; run the same command again, and when nothing but tags was missing"
                " airlift check --repair",
            )
        if "not found" in error.said and there != _BAD_REQUEST:
            # It came into being, or the database was away for a moment.
            return self._passing(error)
        return RefusedError(
            Meaning.NAME,
            f"{self._registry}: it does not allow the name {repository[:300]}",
            hint="give project or mapping in site.yaml, so that the repository has another name",
        )

    def _database(self) -> RefusedError:
        return RefusedError(
            Meaning.DATABASE,
            f"{self._registry}: it refuses every login, since its database is down",
            hint=f"let the administrator of Harbor see to its database, {_AGAIN}",
            temporary=True,
        )

    def _passing(self, error: HttpStatusError) -> FetchError:
        return FetchError(error.message, temporary=True, hint=f"Harbor did not keep to its own answer; {_AGAIN}")

    def _project(self, name: str) -> int:
        return self._ask("HEAD", f"/api/v2.0/projects?{urlencode({'project_name': name})}")

    def _ask(self, method: str, path: str) -> int:
        return self._http.exchange(
            method,
            self._base + path,
            limit=limits.ERROR_BODY,
            auth=self.basic,
            plain_http=self._plain_http,
            subject=self._registry,
            accept=_ANY,
            retries=0,
        ).status


class HarborLogin(Scope):
    """Authorizes one request (`airlift.transport.http.Authorizer`)."""

    def __init__(self, login: Login, refusals: Refusals, scopes: tuple[str, ...]) -> None:
        super().__init__(login, scopes)
        self._refusals = refusals
        self._repository = scopes[0].split(":")[1] if scopes else ""
        self._was_asked_again = False

    def header(self) -> str | None:
        """Return the Authorization value: always the same."""
        return self._refusals.basic

    def challenged(self, used: str | None, headers: Mapping[str, str]) -> bool:
        """Say that the same is worth another attempt, once: a single 401 may come from a database that is away."""
        del used, headers
        is_first, self._was_asked_again = not self._was_asked_again, True
        return is_first

    def refused(self, error: HttpStatusError) -> FetchError:
        """Return which of its meanings a 401 has."""
        return self._refusals.explain(error, self._repository)
