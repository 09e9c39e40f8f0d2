"""What the stand-in of a Harbor remembers: projects, what is in them, accounts, tokens, and its own state."""

from __future__ import annotations

import fnmatch
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.support.registry import Front

LEEWAY_S = 60
"""How long after its end a token is still taken."""

IMPORT_RIGHTS = ("repository:push", "repository:pull", "project:read", "immutable-tag:list")


@dataclass
class Artifact:
    """A manifest or index that Harbor knows; the back end has its bytes."""

    number: int
    media_type: str
    size: int
    blobs: dict[str, int]
    children: tuple[str, ...]
    subject: str
    kind: str
    annotations: dict[str, str] | None


@dataclass
class Repository:
    number: int
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def digest(self, reference: str) -> str | None:
        """The digest that a tag or digest gives, or None."""
        if reference in self.artifacts:
            return reference
        return self.tags.get(reference)

    def referrers(self, subject: str) -> list[str]:
        """The digests of what refers to a subject, by the field or by a cosign tag."""
        by_tag = self.tags.get(f"{subject.replace(':', '-')}.sig")
        return [d for d, item in self.artifacts.items() if item.subject == subject or d == by_tag]

    def is_listed(self, digest: str) -> bool:
        """Whether an index lists it."""
        return any(digest in item.children for item in self.artifacts.values())


@dataclass
class Project:
    number: int
    name: str
    metadata: dict[str, str] = field(default_factory=dict)
    hard: int = -1
    blobs: dict[str, int] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    registry_id: int | None = None
    repositories: dict[str, Repository] = field(default_factory=dict)

    @property
    def used(self) -> int:
        return sum(self.blobs.values())

    @property
    def is_public(self) -> bool:
        return self.metadata.get("public") == "true"

    def forget(self, repository: Repository, digest: str) -> None:
        """Let an artifact go, with its share of the quota."""
        gone = repository.artifacts.pop(digest)
        repository.tags = {tag: to for tag, to in repository.tags.items() if to != digest}
        kept = {d for other in self.repositories.values() for a in other.artifacts.values() for d in a.blobs}
        for blob in (digest, *gone.blobs):
            if blob not in kept:
                self.blobs.pop(blob, None)

    def forget_deeply(self, repository: Repository, digest: str) -> None:
        """Let an artifact go with what refers to it, tagged or not, and with its children that have no tag.

        What an index lists stays in both cases.
        """
        for other in repository.referrers(digest):
            if other in repository.artifacts and not repository.is_listed(other):
                self.forget_deeply(repository, other)
        children = repository.artifacts[digest].children
        self.forget(repository, digest)
        for child in children:
            if (
                child in repository.artifacts
                and child not in repository.tags.values()
                and not repository.is_listed(child)
            ):
                self.forget_deeply(repository, child)

    def collect_untagged(self) -> None:
        """Collect garbage with ``delete_untagged``: children and accessories stay with what they belong to."""
        for repository in self.repositories.values():
            for digest in list(repository.artifacts):
                item = repository.artifacts.get(digest)
                if item and not (
                    digest in repository.tags.values()
                    or repository.is_listed(digest)
                    or item.subject in repository.artifacts
                ):
                    self.forget_deeply(repository, digest)

    def is_immutable(self, inner: str, tag: str) -> bool:
        """Say whether a rule covers a tag."""
        for rule in self.rules:
            tags = rule.get("tag_selectors") or []
            scopes = (rule.get("scope_selectors") or {}).get("repository") or []
            if (
                tags
                and scopes
                and all(item["decoration"] == "matches" and fnmatch.fnmatch(tag, item["pattern"]) for item in tags)
                and all(fnmatch.fnmatch(inner, item["pattern"]) for item in scopes)
            ):
                return True
        return False


@dataclass
class Account:
    """A user or robot; one that is off is nobody.

    Attributes:
        is_by_group: of an administrator: by a group of LDAP or OIDC, not by a flag of its own.
        created: when it was made, in seconds since 1970: a robot's life counts from then.
        rights: ``resource:action`` by namespace: ``/`` for the system, ``*`` for all projects, or a project's name.
    """

    password: str
    is_on: bool = True
    is_admin: bool = False
    is_robot: bool = True
    is_by_group: bool = False
    level: str = "system"
    number: int = 0
    duration: int = -1
    created: float = field(default_factory=time.time)
    expires_at: int = -1
    rights: dict[str, set[str]] = field(default_factory=dict)

    def allows(self, namespace: str, right: str) -> bool:
        if self.is_admin:
            return True
        everywhere = set() if namespace == "/" else self.rights.get("*", set())
        return right in self.rights.get(namespace, set()) | everywhere

    def gain(self, *rights: str, namespace: str = "*") -> None:
        self.rights.setdefault(namespace, set()).update(rights)

    def lose(self, *rights: str) -> None:
        for held in self.rights.values():
            held.difference_update(rights)

    def live(self, days: int) -> None:
        """Give it a life that counts from when it was made; -1 for no end."""
        self.duration = days
        self.expires_at = -1 if days < 0 else int(self.created) + days * 86400

    @property
    def is_good(self) -> bool:
        return self.is_on and not -1 < self.expires_at <= time.time()


@dataclass(frozen=True)
class Token:
    """A token of the token service.

    Attributes:
        name: whose, empty for nobody's.
        access: actions by repository.
        ends: when its life ends, in seconds since 1970.
    """

    name: str
    access: dict[str, list[str]]
    ends: float


@dataclass(frozen=True)
class Caller:
    """Who asks. With a token only the token counts; whoever is unknown, off or wrong is nobody."""

    account: Account | None = None
    token: Token | None = None
    name: str = ""
    is_named: bool = False

    @property
    def is_authenticated(self) -> bool:
        return self.account is not None or (self.token is not None and bool(self.token.name))

    def may(self, project: Project, action: str) -> bool:
        if self.token is not None:
            own = [acts for name, acts in self.token.access.items() if name.partition("/")[0] == project.name]
            return any(action in actions for actions in own)
        if self.account is not None and self.account.allows(project.name, f"repository:{action}"):
            return True
        return action == "pull" and project.is_public


@dataclass
class Harbor(Front):
    """A running stand-in.

    Attributes:
        projects, accounts: by name.
        tokens_given: by value.
        read_only, creation, token_life_s, robot_prefix: its settings.
        down: what of it is: ``core``, ``registry``, ``database``, ``redis``.
        dead: upload sessions that a broken body killed.
        upload_sizes: bytes that an upload session has.
    """

    projects: dict[str, Project] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    tokens_given: dict[str, Token] = field(default_factory=dict)
    read_only: bool = False
    creation: str = "everyone"
    token_life_s: float = 1800
    robot_prefix: str = "robot$"
    down: set[str] = field(default_factory=set)
    dead: set[str] = field(default_factory=set)
    upload_sizes: dict[str, int] = field(default_factory=dict)
    scheme: str = "http"
    numbers: int = 0

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}"

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def project(self, name: str, **facts: Any) -> Project:
        made = Project(self.number(), name, **facts)
        self.projects[name] = made
        return made

    def robot(self, name: str, password: str, *, rights: Iterable[str] = IMPORT_RIGHTS, **facts: Any) -> Account:
        """Make a system robot that may do the same in all projects; `name` with its prefix."""
        made = Account(password, number=self.number(), **facts)
        made.gain(*rights)
        self.accounts[name] = made
        return made

    def name_robots(self, prefix: str) -> None:
        """Change the prefix of all robots' names; the old names end at once."""
        old, self.robot_prefix = self.robot_prefix, prefix
        self.accounts = {
            prefix + name.removeprefix(old) if item.is_robot else name: item for name, item in self.accounts.items()
        }

    def give_token(self, name: str, access: dict[str, list[str]]) -> str:
        value = secrets.token_urlsafe(24)
        self.tokens_given[value] = Token(name, access, time.time() + self.token_life_s)
        return value

    def token(self, value: str) -> Token | None:
        found = self.tokens_given.get(value)
        return found if found is not None and time.time() < found.ends + LEEWAY_S else None


def immutable(pattern: str, repositories: str = "**") -> dict[str, Any]:
    """Return a rule of immutability for tags."""
    return {
        "action": "immutable",
        "template": "immutable_template",
        "tag_selectors": [{"kind": "doublestar", "decoration": "matches", "pattern": pattern}],
        "scope_selectors": {
            "repository": [{"kind": "doublestar", "decoration": "repoMatches", "pattern": repositories}]
        },
    }


def size_in_words(size: int) -> str:
    """Return a size as Harbor's messages have it: ``417 B``, ``12.7 KiB``."""
    value, unit = float(size), 0
    while value >= 1024 and unit < 5:
        value, unit = value / 1024, unit + 1
    return f"{size} B" if unit == 0 else f"{value:.1f} {('KiB', 'MiB', 'GiB', 'TiB', 'PiB')[unit - 1]}"
