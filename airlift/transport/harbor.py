"""Harbor: a registry with projects, quotas and rules, which are asked for before the first byte is sent."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from urllib.parse import quote, urlencode

from airlift.digest import Digest
from airlift.errors import FetchError
from airlift.transport.blobs import with_digest
from airlift.transport.credentials import Credentials
from airlift.transport.harbor_api import HarborApi
from airlift.transport.harbor_quota import Piece, Wanted, sides
from airlift.transport.harbor_rules import covers
from airlift.transport.http import HttpClient, HttpStatusError
from airlift.transport.refusals import FULL, delivering
from airlift.transport.upload import Body, Whole

_PROJECT: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_MAX_PROJECT: Final = 255
_MAX_REPOSITORY: Final = 245
_PAGE: Final = 100
"""Rules on a page, the most that Harbor gives."""

_MAX_PAGES: Final = 100
_WORKERS: Final = 4
_AT_ONCE: Final = 32
"""How many pieces are asked for before it is seen whether the rest has room."""

_MOST_QUESTIONS: Final = 1000
"""How often repositories of earlier drops are asked for what a quota seems to have no room for."""

_OK: Final = 200
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_IMMUTABLE: Final = 412


class HarborClient(HarborApi):
    """One Harbor with one account. Safe to use from many threads.

    Args:
        registry: ``host[:port]``.
        http: the client.
        credentials: the account, a user or a robot.
        plain_http: use http.
        is_public: whether everybody may pull from projects that are made.
        storage_limit: bytes that a project that is made may hold, -1 for no bound, 0 for Harbor's own default.
        filled: gives the repositories that were filled before: what they have, their projects' quotas count already.
    """

    def __init__(
        self,
        registry: str,
        *,
        http: HttpClient,
        credentials: Credentials,
        plain_http: bool = False,
        is_public: bool = False,
        storage_limit: int = -1,
        filled: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        super().__init__(registry, http=http, credentials=credentials, plain_http=plain_http)
        self._is_public = is_public
        self._storage_limit = storage_limit
        self._filled = filled
        self._made = threading.Lock()
        self._absent: set[str] = set()
        self._hidden: set[str] = set()
        self._doubtful: set[Digest] = set()

    def admit(self, wanted: Mapping[str, Wanted]) -> None:
        """Refuse what can be seen to fail: names, proxy projects, quota, immutable tags. Nothing is changed.

        Args:
            wanted: by project.

        Raises:
            DeliveryError: a project cannot take what it is to get.
        """
        with delivering(self.registry):
            for project, item in wanted.items():
                self._check_names(project, item)
                status = self._presence(project)
                if status == _NOT_FOUND:
                    self._absent.add(project)
                    # 0 is whatever this Harbor gives to a project by itself.
                    self._check_limit(project, item, self._storage_limit or -1, 0)
                elif status == _FORBIDDEN:
                    self._hidden.add(project)
                else:
                    self._check_project(project, item)

    def admit_tags(self, tags: Mapping[tuple[str, str], Digest]) -> None:
        """Refuse tags that a rule keeps from moving where they are to point.

        Args:
            tags: ``(repository, tag)`` and the digest it is to have.

        Raises:
            DeliveryError: an immutable tag has another digest.
        """
        projects: dict[str, dict[tuple[str, str], Digest]] = {}
        for (repository, tag), digest in tags.items():
            projects.setdefault(repository.partition("/")[0], {})[repository, tag] = digest
        with delivering(self.registry):
            for project, own in projects.items():
                self._check_rules(project, own)

    def prepare(self) -> None:
        """Make the projects that `admit` missed, or could not see.

        Raises:
            DeliveryError: the account may not.
        """
        with self._made, delivering(self.registry):
            for project in sorted(self._absent | self._hidden):
                self._create(project, is_hidden=project in self._hidden)
            self._absent.clear()
            self._hidden.clear()

    def _check_names(self, project: str, item: Wanted) -> None:
        if len(project) > _MAX_PROJECT or _PROJECT.fullmatch(project) is None:
            raise FetchError(
                f"{self.registry}: {project[:100]} is no name of a project there",
                hint="give project or mapping in site.yaml, so that the first part of every repository is one",
            )
        for repository in {name for piece in item.pieces.values() for name in piece.repositories}:
            if "/" not in repository or len(repository) > _MAX_REPOSITORY:
                raise FetchError(
                    f"{self.registry}: {repository[:100]} is no repository there: "
                    f"expected PROJECT/NAME of at most {_MAX_REPOSITORY} characters",
                    hint="give project or mapping in site.yaml",
                )

    def _check_project(self, project: str, item: Wanted) -> None:
        answer = self.api("GET", f"/projects/{quote(project)}", accept=(_FORBIDDEN,))
        if answer.status == _FORBIDDEN:
            # There, but not to be looked at: what else is wrong shows at the first upload.
            return
        found = self.document(answer, project)
        if not isinstance(found, dict):
            raise FetchError(f"{self.registry}: the project {project} is described by no object")
        if found.get("registry_id"):
            raise FetchError(
                f"{self.registry}: {project} is a proxy-cache project, which takes no push",
                hint="give project or mapping in site.yaml, so that another project is filled",
            )
        hard, used = self._quota(project, found.get("project_id"))
        self._check_limit(project, item, hard, used)
        self._check_rules(project, item.tags)

    def _quota(self, project: str, number: object, *, retries: int | None = None) -> tuple[int, int]:
        """Return limit (-1: none is known) and use of a project."""
        query = urlencode({"reference": "project", "reference_id": str(number)})
        answer = self.api("GET", f"/quotas?{query}", accept=(_FORBIDDEN,), retries=retries)
        if answer.status == _OK:
            found = self.document(answer, "quotas")
            return sides(found[0]) if isinstance(found, list) and found else (-1, 0)
        # Who may not list quotas, such as a robot of one project, may see that project's in its summary.
        answer = self.api(
            "GET", f"/projects/{quote(project)}/summary", accept=(_FORBIDDEN, _NOT_FOUND), retries=retries
        )
        summary = self.document(answer, project) if answer.status == _OK else None
        return sides(summary.get("quota")) if isinstance(summary, dict) else (-1, 0)

    def _put(self, repository: str, digest: Digest, size: int, place: str, body: Body | Whole) -> None:
        if size and digest in self._doubtful:
            self._put_after_patch(repository, digest, size, place, body)
            return
        try:
            super()._put(repository, digest, size, place, body)
        except FetchError as error:
            # Core refuses a full project before it reads the body, and the proxy before it may make a 502 of that.
            if error.temporary:
                self._refuse_full(repository, digest, size, error)
            raise

    def _put_after_patch(self, repository: str, digest: Digest, size: int, place: str, body: Body | Whole) -> None:
        """Send the bytes first, which no quota refuses, and what counts them without any: its refusal gets through."""
        answer = self.send_blob("PATCH", repository, digest, place, body, size=size)
        end = with_digest(self.place_in(answer, repository, digest), digest)
        self.send_blob("PUT", repository, digest, end, b"", size=size)

    def _refuse_full(self, repository: str, digest: Digest, size: int, error: FetchError) -> None:
        project, (hard, used) = repository.partition("/")[0], (-1, 0)
        with contextlib.suppress(FetchError):
            if self._has_blob(repository, digest):
                # Only the answer was lost.
                return
            self._doubtful.add(digest)
            answer = self.api("GET", f"/projects/{quote(project)}", accept=(_FORBIDDEN,), retries=0)
            found = self.document(answer, project)
            number = found.get("project_id") if isinstance(found, dict) else None
            hard, used = self._quota(project, number, retries=0)
        if 0 <= hard < used + size:
            raise FetchError(
                f"{error.message}: the quota of {project} has {max(0, hard - used)} bytes left, {size} are needed",
                hint=FULL,
            ) from None

    def _check_limit(self, project: str, item: Wanted, hard: int, used: int) -> None:
        room, needed = hard - used, sum(piece.size for piece in item.pieces.values())
        if hard < 0 or needed <= room:
            return
        if project not in self._absent:
            # What is there already counts once, and has been counted.
            needed, missing = self._missing(item, needed, room)
            if needed > room:
                needed -= self._counted_elsewhere(project, missing, needed - room)
        if needed > room:
            raise FetchError(
                f"{self.registry}: the quota of {project} has {max(0, room)} bytes left, {needed} are needed",
                hint="raise the project's quota, or prune drops and let Harbor collect its garbage",
            )

    def _missing(self, item: Wanted, needed: int, room: int) -> tuple[int, dict[Digest, Piece]]:
        """Return what its repositories do not have, and the bytes of that; once they have room no more is asked."""
        missing: dict[Digest, Piece] = {}
        by_size = sorted(item.pieces.items(), key=lambda one: one[1].size, reverse=True)

        def is_there(one: tuple[Digest, Piece]) -> bool:
            return any(self._is_in(name, *one) for name in one[1].repositories)

        with ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="quota") as pool:
            for start in range(0, len(by_size), _AT_ONCE):
                asked = by_size[start : start + _AT_ONCE]
                for one, found in zip(asked, pool.map(is_there, asked), strict=True):
                    if found:
                        needed -= one[1].size
                    else:
                        missing[one[0]] = one[1]
                if needed <= room:
                    break
        return needed, missing

    def _is_in(self, repository: str, digest: Digest, piece: Piece) -> bool:
        if piece.is_manifest:
            return self.head(repository, digest) is not None
        return self._has_blob(repository, digest)

    def _counted_elsewhere(self, project: str, missing: Mapping[Digest, Piece], wanted: int) -> int:
        """Return how many bytes of it other repositories of a project have; stop when `wanted` are found."""
        others = sorted({name for name in self._filled() if name.partition("/")[0] == project})
        by_size = sorted(missing.items(), key=lambda one: one[1].size, reverse=True)
        found, questions = 0, 0
        for digest, piece in by_size:
            for name in others:
                if found >= wanted or questions >= _MOST_QUESTIONS:
                    return found
                if name in piece.repositories:
                    continue
                questions += 1
                if self._is_in(name, digest, piece):
                    found += piece.size
                    break
        return found

    def _check_rules(self, project: str, tags: Mapping[tuple[str, str], Digest]) -> None:
        rules = self._rules(project)
        for (repository, tag), digest in tags.items():
            if not any(covers(rule, repository.partition("/")[2], tag) for rule in rules):
                continue
            found = self.head(repository, tag)
            if found is not None and found.digest != digest:
                raise FetchError(
                    f"{self.registry}/{repository}:{tag} is immutable and is {found.digest}, the drop has {digest}",
                    hint="change the project's rule of immutability in Harbor, or let the release engineer ship a"
                    " new tag",
                )

    def _rules(self, project: str) -> list[object]:
        """Return the rules of immutability, of all pages; none where the account may not see them."""
        rules: list[object] = []
        for page in range(1, _MAX_PAGES + 1):
            path = f"/projects/{quote(project)}/immutabletagrules?page_size={_PAGE}&page={page}"
            answer = self.api("GET", path, accept=(_FORBIDDEN, _NOT_FOUND))
            found = self.document(answer, "immutabletagrules") if answer.status == _OK else None
            if not isinstance(found, list):
                break
            rules += found
            if len(found) < _PAGE:
                break
        return rules

    def _presence(self, project: str) -> int:
        """Ask whether a project is there. Versions after 2.15 say 403 of one that the account may not look at."""
        query = urlencode({"project_name": project})
        return self.api("HEAD", f"/projects?{query}", accept=(_FORBIDDEN, _NOT_FOUND)).status

    def _create(self, project: str, *, is_hidden: bool) -> None:
        body = {
            "project_name": project,
            "metadata": {"public": "true" if self._is_public else "false"},
            "storage_limit": self._storage_limit,
        }
        try:
            self.api("POST", "/projects", json.dumps(body).encode(), accept=(_CONFLICT,))
        except HttpStatusError as error:
            if error.status == _FORBIDDEN and "read only" not in error.said:
                if is_hidden:
                    # It may be there; if not, the first upload says so.
                    return
                raise FetchError(
                    f"{error.message}; {self._user} may not make the project {project}",
                    hint=f"make the project {project}, or give the account the right project:create",
                ) from None
            raise

    def delete_tag(self, repository: str, tag: str, digest: Digest) -> bool:
        """See `airlift.transport.push.PushHalf.delete_tag`; by Harbor's own API, which leaves the artifact."""
        project, _, inner = repository.partition("/")
        # Encoded twice: the slash of a repository would be one of the path (harbor-facts: `%252F`).
        name = quote(quote(inner, safe=""), safe="")
        with delivering(self.registry):
            answer = self.api(
                "DELETE",
                f"/projects/{quote(project)}/repositories/{name}/artifacts/{digest}/tags/{quote(tag)}",
                accept=(_FORBIDDEN, _NOT_FOUND, _IMMUTABLE),
            )
        return answer.status not in (_FORBIDDEN, _IMMUTABLE)
