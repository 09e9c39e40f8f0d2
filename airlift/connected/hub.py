"""The protocol of a model hub, as much of it as pinning and fetching need."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urljoin

from airlift import digest as digests
from airlift import limits
from airlift.errors import AirliftError, FetchError, IntegrityError, ResolveError
from airlift.transport import urls
from airlift.transport.http import HttpClient, HttpStatusError

if TYPE_CHECKING:
    from airlift.connected.source import BlobSink
    from airlift.digest import Digest

DEFAULT_ENDPOINT: Final = "https://huggingface.co"

_PAGE: Final = 16 * limits.MIB
_WHOLE: Final = 1 * limits.MIB
_PARTIAL: Final = 206
_ABSENT: Final = {
    "RepoNotFound": "the hub has no such model",
    "RevisionNotFound": "the hub has no such revision",
    "EntryNotFound": "the hub has no such file",
}
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_NEXT: Final = re.compile(r'<([^<>]+)>\s*;\s*rel="?next"?')


@dataclass(frozen=True, slots=True)
class HubRevision:
    """What a revision is right now."""

    commit: str
    licence: str | None


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a tree.

    Attributes:
        path: its place, not yet checked.
        size: its size; of the content, also where Git has a pointer only.
        oid: its Git object id (of the pointer, for LFS).
        sha256: digest of its content where the hub keeps it in LFS, else None.
    """

    path: str
    size: int
    oid: str
    sha256: Digest | None


class HubClient:
    """One hub. The token, if any, goes to its own host and nowhere else."""

    def __init__(self, endpoint: str, *, http: HttpClient, token: str | None) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._http = http
        self._auth = f"Bearer {token}" if token else None

    def revision(self, repo: str, revision: str) -> HubRevision:
        """Ask which commit a branch, tag or commit is.

        Raises:
            ResolveError: there is no such model or revision.
            FetchError: the hub does not answer, or does not let us in.
            IntegrityError: it answers something else.
        """
        subject = f"model {repo}, revision {revision}"
        value, _ = self._json(f"{self._endpoint}/api/models/{quote(repo)}/revision/{quote(revision, safe='')}", subject)
        commit = value.get("sha") if isinstance(value, dict) else None
        if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
            raise IntegrityError(subject, expected="a commit of 40 hex digits", actual=repr(commit)[:100])
        if _COMMIT.fullmatch(revision) and commit != revision:
            raise IntegrityError(subject, expected=revision, actual=commit)
        return HubRevision(commit, _licence(value))

    def tree(self, repo: str, commit: str) -> list[HubFile]:
        """List all files of a commit, however many pages that takes.

        Raises:
            ResolveError: there is no such commit.
            FetchError: the hub does not answer.
            IntegrityError: it answers something else, or more than is accepted.
        """
        subject = f"model {repo}, files of {commit}"
        url: str | None = f"{self._endpoint}/api/models/{quote(repo)}/tree/{commit}?recursive=true&expand=false"
        files: list[HubFile] = []
        seen: set[str] = set()
        while url is not None:
            # A page that leads back to an earlier one, or to another host, would keep us or take our token.
            if url in seen or urls.origin(url) != urls.origin(self._endpoint):
                raise IntegrityError(subject, expected="a next page of the same hub", actual=repr(url)[:200])
            seen.add(url)
            value, headers = self._json(url, subject)
            if not isinstance(value, list):
                raise IntegrityError(subject, expected="a list of files", actual=repr(value)[:100])
            files += [_file(item, subject) for item in value if not _is_directory(item)]
            if len(files) > limits.ARCHIVE_MEMBERS:
                raise IntegrityError(subject, expected=f"at most {limits.ARCHIVE_MEMBERS} files", actual="more")
            following = _NEXT.search(headers.get("Link", ""))
            url = urljoin(url, following[1]) if following else None
        return files

    def part(self, repo: str, commit: str, file: HubFile, start: int, end: int, *, subject: str) -> bytes:
        """Return the bytes of a file from `start` up to `end`.

        Raises:
            FetchError: the hub does not give them.
            IntegrityError: it gives another number of bytes.
        """
        url = self._content_url(repo, commit, file.path)
        with self._explained(subject):
            answer = self._http.get_bytes(
                url,
                limit=max(end - start, _WHOLE),
                headers={"Range": f"bytes={start}-{end - 1}"},
                auth=self._auth,
                subject=subject,
            )
        body = answer.body if answer.status == _PARTIAL else answer.body[start:end]
        if len(body) != end - start:
            raise IntegrityError(subject, expected=f"{end - start} bytes from {start}", actual=f"{len(body)} bytes")
        return body

    def stream(self, repo: str, commit: str, path: str, sink: BlobSink, *, size: int, subject: str) -> None:
        """Stream a file into `sink`, from where it is.

        Raises:
            ResolveError: there is no such file.
            FetchError: the hub does not give it.
        """
        url = self._content_url(repo, commit, path)
        with self._explained(subject):
            self._http.download(url, sink, size=size, auth=self._auth, subject=subject)

    def _json(self, url: str, subject: str) -> tuple[Any, Mapping[str, str]]:
        with self._explained(subject):
            answer = self._http.get_bytes(url, limit=_PAGE, auth=self._auth, subject=subject)
        try:
            return json.loads(answer.body), answer.headers
        except (ValueError, RecursionError):
            raise IntegrityError(subject, expected="JSON", actual=repr(answer.body[:40])) from None

    @contextlib.contextmanager
    def _explained(self, subject: str) -> Iterator[None]:
        """Put a hub's error codes into words."""
        try:
            yield
        except HttpStatusError as error:
            raise self._meaning(error, subject) from error

    def _meaning(self, error: HttpStatusError, subject: str) -> AirliftError:
        has_token = self._auth is not None
        absent = _ABSENT.get(error.headers.get("X-Error-Code", ""))
        # A hub hides private models: it says 401 and RepoNotFound for what is not there and for what we may not see.
        if absent is not None:
            hint = "check the name; a private model needs HF_TOKEN" if not has_token else "check the name"
            return ResolveError(f"{subject}: {absent}", hint=hint)
        if error.status in (401, 403):
            return FetchError(
                f"{subject}: the hub does not let us in ({error.status}): {error.said or 'no reason given'}",
                hint="the account of HF_TOKEN has no access; accept the model's terms on the hub's page"
                if has_token
                else "accept the model's terms on the hub's page and set HF_TOKEN",
            )
        return error

    def _content_url(self, repo: str, commit: str, path: str) -> str:
        return f"{self._endpoint}/{quote(repo)}/resolve/{commit}/{quote(path)}"


def _is_directory(item: object) -> bool:
    return isinstance(item, dict) and item.get("type") == "directory"


def _file(item: object, subject: str) -> HubFile:
    value: Mapping[str, Any] = item if isinstance(item, dict) else {}
    path, size, oid, lfs = value.get("path"), value.get("size"), value.get("oid"), value.get("lfs")
    if isinstance(lfs, dict):
        size = lfs.get("size", size)
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= limits.BLOB:
        raise IntegrityError(subject, expected="a file with a size", actual=repr(item)[:200])
    if value.get("type") != "file" or not isinstance(path, str) or not isinstance(oid, str):
        raise IntegrityError(subject, expected="a file with path and oid", actual=repr(item)[:200])
    sha256 = digests.from_hex(str(lfs.get("oid")), subject=f"{subject}, {path}") if isinstance(lfs, dict) else None
    return HubFile(path, size, oid, sha256)


def _licence(value: Mapping[str, Any]) -> str | None:
    card = value.get("cardData")
    licence = card.get("license") if isinstance(card, dict) else None
    if isinstance(licence, list):
        licence = " OR ".join(str(item) for item in licence) or None
    return licence[: limits.NAME] if isinstance(licence, str) and licence else None
