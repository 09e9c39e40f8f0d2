"""The Harbor that the contract is run against: a stand-in, or a real one that a tester names.

What a run makes there carries the run's own mark in its name, and nothing else is ever touched or changed: no settings of
the instance, no other project, no other robot. Whatever bears the mark is removed at the end, also of a run that failed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

from tests.support.harbor import ADMIN, ADMIN_SECRET, Harbor, immutable

URL, USER, PASSWORD, CA = (f"AIRLIFT_TEST_HARBOR{part}" for part in ("", "_USER", "_PASSWORD", "_CA"))
MARK = "airlift-test-"
RIGHTS = ("repository:push", "repository:pull", "project:read", "immutable-tag:list")
PATIENCE_S = 60
"""How long an answer of Harbor may lag behind what was done: quotas and deletions are booked later."""

_FAILURES = (AssertionError, requests.RequestException)


@dataclass
class HarborUnderTest:
    """A Harbor, an account of it, and what this run has made there.

    Attributes:
        url, user, password, ca: of it.
        run: the mark of this run, which begins every name that it makes.
        stand_in: the stand-in that it is, or None.
    """

    url: str
    user: str
    password: str
    ca: Path | None = None
    run: str = field(default_factory=lambda: MARK + secrets.token_hex(4))
    stand_in: Harbor | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def is_plain(self) -> bool:
        return self.url.startswith("http://")

    def name(self) -> str:
        """A name for a project or robot of this run."""
        return f"{self.run}-{secrets.token_hex(4)}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API; what Harbor fails to do for a moment, and can be asked again, is asked again."""
        for _ in range(3):
            answer = self._ask_once(method, path, body)
            if answer.status_code < 500 or method == "POST":
                break
            time.sleep(1)
        return answer

    def _ask_once(self, method: str, path: str, body: Any) -> Any:
        # With nobody's cookies: with them Harbor refuses the next write.
        with requests.Session() as session:
            session.trust_env = False
            return session.request(
                method,
                f"{self.url}/api/v2.0{path}",
                auth=(self.user, self.password),
                json=body,
                headers={"X-Is-Resource-Name": "true"},
                timeout=120,
                verify=str(self.ca) if self.ca else True,
            )

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:300]}"
        return answer.json()

    @functools.cached_property
    def is_administrators(self) -> bool:
        """Whether the account is an administrator's. Asked once: a Harbor in trouble makes nobody ordinary."""
        answer = self.ask("GET", "/users/current")
        # A robot is no user: 412.
        assert answer.status_code in (200, 412), f"the account {self.user}: {answer.status_code} {answer.text[:200]}"
        # The second is one by a group of LDAP or OIDC.
        return answer.status_code == 200 and any(
            answer.json().get(key) for key in ("sysadmin_flag", "admin_role_in_auth")
        )

    def need_administrator(self) -> None:
        if not self.is_administrators:
            pytest.skip(f"{USER} is no administrator of this Harbor: robots, quotas and rules cannot be made")

    def project(self, *, public: bool = False, storage_limit: int = -1) -> str:
        """Make a project and return its name."""
        name = self.name()
        body = {"project_name": name, "metadata": {"public": str(public).lower()}, "storage_limit": storage_limit}
        answer = self.ask("POST", "/projects", body)
        if answer.status_code == 403:
            pytest.fail(f"{USER} ({self.user}) may make no project there: 403 {answer.text.strip()[:200]}")
        assert answer.status_code == 201, answer.text
        return name

    def robot(self, *rights: str, system: tuple[str, ...] = ("project:create",)) -> tuple[str, str, int]:
        """Make a system robot; return its name, secret and number."""
        permissions = [{"kind": "project", "namespace": "*", "access": _access(rights or RIGHTS)}]
        if system:
            permissions.append({"kind": "system", "namespace": "/", "access": _access(system)})
        body = {"name": self.name(), "level": "system", "duration": 1, "permissions": permissions}
        answer = self.ask("POST", "/robots", body)
        assert answer.status_code == 201, answer.text
        made = answer.json()
        return made["name"], made["secret"], made["id"]

    def switch(self, robot: int, *, on: bool) -> None:
        """Disable or enable a robot."""
        about = self.get(f"/robots/{robot}")
        answer = self.ask("PUT", f"/robots/{robot}", {**about, "disable": not on})
        assert answer.status_code == 200, answer.text

    def rule(self, project: str, pattern: str) -> None:
        """Make tags of a project immutable."""
        answer = self.ask("POST", f"/projects/{project}/immutabletagrules", immutable(pattern))
        assert answer.status_code == 201, answer.text

    def quota(self, project: str) -> tuple[int, int, int]:
        """Return number, limit and use of a project's quota."""
        number = self.get(f"/projects/{project}")["project_id"]
        found = self.get(f"/quotas?reference=project&reference_id={number}")[0]
        return found["id"], found["hard"]["storage"], found["used"]["storage"]

    def limit(self, project: str, storage: int) -> None:
        answer = self.ask("PUT", f"/quotas/{self.quota(project)[0]}", {"hard": {"storage": storage}})
        assert answer.status_code == 200, answer.text

    def remove_repository(self, project: str, repository: str) -> None:
        answer = self.ask("DELETE", f"/projects/{project}/repositories/{_in_path(repository)}")
        assert answer.status_code == 200, answer.text

    # What bears the mark of this run.

    def projects(self) -> list[str]:
        return [item["name"] for item in self._pages(f"/projects?name={self.run}") if self._is_ours(item["name"])]

    def robots(self) -> list[int]:
        """The numbers of this run's robots; none for an account that may not see robots."""
        if not self.is_administrators:
            return []
        found = self._pages(f"/robots?q=name=~{self.run}")
        return [item["id"] for item in found if self.run in item["name"]]

    def _is_ours(self, name: str) -> bool:
        return name.startswith(f"{self.run}-")

    def _pages(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for page in range(1, 101):
            some = self.get(f"{path}{'&' if '?' in path else '?'}page={page}&page_size=100")
            found += some
            if len(some) < 100:
                break
        return found

    def clear(self) -> None:
        """Remove everything that this run made; what cannot be removed keeps nothing else from it.

        Raises:
            AssertionError: something stays; all of it is named.
        """
        fewest, ends = -1, 0.0
        while left := self._sweep():
            # As long as something goes, the rest has its time.
            if len(left) < fewest or fewest < 0:
                fewest, ends = len(left), time.monotonic() + PATIENCE_S
            assert time.monotonic() < ends, f"this stays in {self.url}, remove it by hand: {', '.join(left)}"
            time.sleep(0.2)

    def _sweep(self) -> list[str]:
        """Try once to remove everything; return what was there, with what went wrong: the next look must find nothing."""
        robots = self._swept("robot ", self.robots, self._remove_robot)
        return robots + self._swept("", self.projects, self._remove)

    def _swept(self, kind: str, find: Callable[[], list[Any]], remove: Callable[[Any], object]) -> list[str]:
        try:
            found = find()
        except _FAILURES as error:
            return [f"what bears {self.run} and cannot be listed ({error})"]
        left = []
        for item in found:
            try:
                remove(item)
                left.append(f"{kind}{item}")
            except _FAILURES as error:
                left.append(f"{kind}{item} ({error})")
        return left

    def _remove_robot(self, number: int) -> None:
        self._delete(f"/robots/{number}")

    def _remove(self, project: str) -> None:
        """Remove a project of this run with its rules and repositories."""
        assert self._is_ours(project), project
        for part in ("immutabletagrules", "repositories"):
            listed = self.ask("GET", f"/projects/{project}/{part}?page_size=100")
            for item in listed.json() if listed.status_code == 200 else []:
                name = item["id"] if part == "immutabletagrules" else _in_path(item["name"].partition("/")[2])
                self.ask("DELETE", f"/projects/{project}/{part}/{name}")
        self._delete(f"/projects/{project}")

    def _delete(self, path: str) -> None:
        answer = self.ask("DELETE", path)
        assert answer.status_code in (200, 404), f"DELETE {path}: {answer.status_code} {answer.text.strip()[:200]}"


def _in_path(repository: str) -> str:
    """A repository's name in a path, where Harbor wants it encoded twice."""
    return quote(quote(repository, safe=""), safe="")


def _access(rights: tuple[str, ...]) -> list[dict[str, str]]:
    pairs = [right.split(":") for right in rights]
    return [{"resource": resource, "action": action} for resource, action in pairs]


def eventually(check: Callable[[], object], message: str) -> None:
    """Wait until `check` gives something true."""
    ends = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < ends, message
        time.sleep(0.2)


def named() -> HarborUnderTest | None:
    """Return the real Harbor that the environment names, or None; fail where it names half of one."""
    url, user, password, ca = (os.environ.get(name, "") for name in (URL, USER, PASSWORD, CA))
    if not url:
        return None
    for name, value in ((USER, user), (PASSWORD, password)):
        if not value:
            pytest.fail(f"{URL} is set, {name} is not")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
        pytest.fail(f"{URL} is {url}, expected http://HOST or https://HOST without a path")
    if ca and not Path(ca).is_file():
        pytest.fail(f"{CA} is {ca}, which is no file")
    if not ca and parts.scheme == "https":
        # As airlift itself and helm do: what the system trusts, of which the certificates of Python's libraries know nothing.
        ca = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    return HarborUnderTest(url.rstrip("/"), user, password, Path(ca) if ca and Path(ca).is_file() else None)


def administered(stand_in: Harbor) -> HarborUnderTest:
    """Return a stand-in as its administrator sees it."""
    return HarborUnderTest(stand_in.url, ADMIN, ADMIN_SECRET, stand_in=stand_in)


@contextlib.contextmanager
def clearing(harbor: HarborUnderTest) -> Iterator[HarborUnderTest]:
    """Remove what a run made when the block ends, however it ends.

    An account that cannot remove what it makes is not used at all.
    """
    if not harbor.is_administrators:
        probe = harbor.project()
        if harbor.ask("DELETE", f"/projects/{probe}").status_code != 200:
            pytest.fail(f"{USER} may make projects and may not remove them; {probe} is left, remove it by hand")
    try:
        yield harbor
    finally:
        harbor.clear()
