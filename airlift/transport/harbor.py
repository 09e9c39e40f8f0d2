"""Harbor: a registry with projects, quotas and rules, which are asked for before the first byte is sent.

Every request carries Basic: Harbor's tokens expire into a challenge for Basic, and 401 there may as well mean that a
project is missing. See docs/site-harbor.md.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from airlift import limits
from airlift.digest import Digest
from airlift.errors import FetchError
from airlift.oci import Descriptor
from airlift.transport.credentials import Credentials
from airlift.transport.harbor_login import HarborLogin, Meaning, Refusals, RefusedError
from airlift.transport.harbor_quota import Piece, Wanted, sides
from airlift.transport.harbor_rules import covers
from airlift.transport.http import HttpClient, HttpStatusError, Response
from airlift.transport.push import FULL, POLICY, delivering
from airlift.transport.registry import RegistryClient
from airlift.transport.tokens import Login, Scope
from airlift.transport.upload import Body, Whole

_PROJECT: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*")
_MAX_PROJECT: Final = 255
_MAX_REPOSITORY: Final = 245
_MOST_QUESTIONS: Final = 1000
"""How often repositories of earlier drops are asked for what a quota seems to have no room for."""

_OK: Final = 200
_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_IMMUTABLE: Final = 412
_BLOCKED: Final = 412


class HarborClient(RegistryClient):
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

    takes_sparse = False
    # Its 401 may as well mean that the database is away.
    no_referrers: tuple[int, ...] = (_NOT_FOUND,)

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
        self._user = credentials.username
        self._refusals: Refusals | None = None
        self._made = threading.Lock()
        self._absent: set[str] = set()

    def scope(self, *scopes: str) -> Scope:
        """Return the authorizer: Basic for all scopes, which say what a 401 is about."""
        if self._login is None or self._refusals is None:
            self._login = Login(self.registry, self.base, self.http, self._credentials)
            self._refusals = Refusals(
                self.registry,
                self._user,
                self.http,
                base=self.base,
                basic=self._login.basic(),
                plain_http=self.plain_http,
            )
        return HarborLogin(self._login, self._refusals, scopes)

    def head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest is right now, or None; a missing project has none.

        Raises:
            FetchError: the registry does not answer.
        """
        try:
            return super().head(repository, reference)
        except RefusedError as error:
            if error.meaning is Meaning.PROJECT:
                return None
            raise
        except HttpStatusError as error:
            if error.status == _BLOCKED:
                raise FetchError(error.message, hint=POLICY) from None
            raise

    def ready(self) -> None:
        """Ask whether this is a Harbor that knows the account and may be written to.

        Raises:
            DeliveryError: it is not.
        """
        with delivering(self.registry):
            info = self.document(self.api("GET", "/systeminfo"), "systeminfo")
            if not isinstance(info, dict) or "auth_mode" not in info:
                raise FetchError(
                    f"{self.registry}: this is no Harbor", hint="leave out kind: harbor in site.yaml, or mend its url"
                )
            # A refused login is answered as if nobody had asked; the registry says what is wrong with it.
            self.ping()
            if self._refusals is not None:
                self._refusals.let_in()
            self._refuse_read_only(info)

    def _refuse_read_only(self, info: Mapping[str, Any]) -> None:
        if info.get("read_only") is True:
            raise FetchError(
                f"{self.registry}: the registry is in read-only mode",
                hint="let its administrator end the read-only mode, then run the same command again",
            )

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
                if not self._exists(project):
                    self._absent.add(project)
                    # 0 is whatever this Harbor gives to a project by itself.
                    self._check_limit(project, item, self._storage_limit or -1, 0)
                    continue
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
        """Make the projects that `admit` missed.

        Raises:
            DeliveryError: the account may not.
        """
        with self._made, delivering(self.registry):
            for project in sorted(self._absent):
                self._create(project)
            self._absent.clear()

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
        hard, used = self._quota(found.get("project_id"))
        self._check_limit(project, item, hard, used)
        self._check_rules(project, item.tags)

    def _quota(self, number: object) -> tuple[int, int]:
        """Return limit (-1: none is known) and use of a project."""
        query = urlencode({"reference": "project", "reference_id": str(number)})
        answer = self.api("GET", f"/quotas?{query}", accept=(_FORBIDDEN,))
        found = self.document(answer, "quotas") if answer.status == _OK else None
        return sides(found[0]) if isinstance(found, list) and found else (-1, 0)

    def _put(self, repository: str, digest: Digest, size: int, place: str, body: Body | Whole) -> None:
        try:
            super()._put(repository, digest, size, place, body)
        except FetchError as error:
            # Core refuses a full project before it reads the body, and the proxy before it may make a 502 of that.
            if error.temporary:
                self._refuse_full(repository, digest, size, error)
            raise

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> None:
        """See `airlift.transport.push.PushHalf.put_manifest`."""
        try:
            super().put_manifest(repository, reference, data, media_type)
        except HttpStatusError as error:
            # An index without its manifests never comes here; what an image lacks was there a moment ago.
            if error.status == _BAD_REQUEST and "MANIFEST_BLOB_UNKNOWN" in error.said:
                raise FetchError(
                    error.message,
                    hint="Harbor's garbage collection took a blob before its manifest came; run the same command again,"
                    " which sends what is missing",
                ) from None
            raise

    def _refuse_full(self, repository: str, digest: Digest, size: int, error: FetchError) -> None:
        project, (hard, used) = repository.partition("/")[0], (-1, 0)
        with contextlib.suppress(FetchError):
            if self._has_blob(repository, digest):
                # Only the answer was lost.
                return
            path = f"/projects/{quote(project)}"
            found = self.document(self.api("GET", path, accept=(_FORBIDDEN,), retries=0), project)
            hard, used = self._quota(found.get("project_id") if isinstance(found, dict) else None)
            if hard < 0:
                # Who may not list quotas may see this one here.
                summary = self.document(self.api("GET", f"{path}/summary", retries=0), project)
                hard, used = sides(summary.get("quota") if isinstance(summary, dict) else None)
        if 0 <= hard < used + size:
            raise FetchError(
                f"{error.message}: the quota of {project} has {max(0, hard - used)} bytes left, {size} are needed",
                hint=FULL,
            ) from None

    def _check_limit(self, project: str, item: Wanted, hard: int, used: int) -> None:
        room = hard - used
        if hard < 0 or sum(piece.size for piece in item.pieces.values()) <= room:
            return
        # What is there already counts once, and has been counted.
        missing = {
            digest: piece
            for digest, piece in item.pieces.items()
            if project in self._absent or not any(self._is_in(name, digest, piece) for name in piece.repositories)
        }
        needed = sum(piece.size for piece in missing.values())
        if needed > room and project not in self._absent:
            needed -= self._counted_elsewhere(project, missing, needed - room)
        if needed > room:
            raise FetchError(
                f"{self.registry}: the quota of {project} has {max(0, room)} bytes left, {needed} are needed",
                hint="raise the project's quota, or prune drops and let Harbor collect its garbage",
            )

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
        path = f"/projects/{quote(project)}/immutabletagrules?page_size=100"
        answer = self.api("GET", path, accept=(_FORBIDDEN, _NOT_FOUND))
        rules = self.document(answer, "immutabletagrules") if answer.status == _OK else None
        if not isinstance(rules, list) or not rules:
            return
        for (repository, tag), digest in tags.items():
            if not any(covers(rule, repository.partition("/")[2], tag) for rule in rules):
                continue
            found = self.head(repository, tag)
            if found is not None and found.digest != digest:
                raise FetchError(
                    f"{self.registry}/{repository}:{tag} is immutable and is {found.digest}, the drop has {digest}",
                    hint="change the project's rule of immutability, or ship the content under a new tag",
                )

    def _exists(self, project: str) -> bool:
        answer = self.api("HEAD", f"/projects?{urlencode({'project_name': project})}", accept=(_NOT_FOUND,))
        return answer.status != _NOT_FOUND

    def _create(self, project: str) -> None:
        body = {
            "project_name": project,
            "metadata": {"public": "true" if self._is_public else "false"},
            "storage_limit": self._storage_limit,
        }
        try:
            self.api("POST", "/projects", json.dumps(body).encode(), accept=(_CONFLICT,))
        except HttpStatusError as error:
            if error.status == _FORBIDDEN and "read only" not in error.said:
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

    def api(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        accept: Iterable[int] = (),
        retries: int | None = None,
    ) -> Response:
        """Ask Harbor's API; `path` is what follows ``/api/v2.0``.

        Raises:
            RefusedError: it answers 401.
            HttpStatusError: it answers with another error that is not in `accept`.
            FetchError: it does not answer.
        """
        headers = {"X-Is-Resource-Name": "true"}
        return self.http.exchange(
            method,
            self.url(f"/api/v2.0{path}"),
            limit=0 if method == "HEAD" else limits.DOCUMENT,
            body=body,
            headers=headers if body is None else {**headers, "Content-Type": "application/json"},
            auth=self.scope(),
            plain_http=self.plain_http,
            subject=f"{self.registry}: {path.partition('?')[0].strip('/')}",
            accept=tuple(accept),
            retries=retries,
        )

    def document(self, answer: Response, name: str) -> Any:
        """Return what an answer of the API holds.

        Raises:
            FetchError: it is no JSON.
        """
        try:
            return json.loads(answer.body)
        except (ValueError, RecursionError):
            raise FetchError(f"{self.registry}: the answer about {name} is no JSON", hint="is this a Harbor?") from None
