"""The package indexes of pip's configuration: project pages, files, and what is inside a wheel.

Pages are asked for once per run. A wheel is looked into through ranges: its directory and its METADATA are a few
kilobytes at its end. Where a server gives no ranges, no size or no digest, the whole file is fetched, into the cache
where there is one.
"""

from __future__ import annotations

import functools
import hashlib
import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from airlift import digest as digests
from airlift import fs, limits
from airlift.connected.pip_process import Index, Pin, PipSettings, without_credentials
from airlift.connected.remote_file import BLOCK, FileSink, RemoteFile, scratch_file
from airlift.connected.source import BlobSink, Settings
from airlift.digest import Digest
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.kinds.simple_page import ACCEPT, IndexFile, parse_page
from airlift.kinds.wheels import WheelName, normalise, read_metadata
from airlift.transport import urls
from airlift.transport.answers import content_length
from airlift.transport.http import HttpClient, HttpStatusError

_GONE: Final = frozenset({403, 404, 410})


class NoRangesError(FetchError):
    """A server that announced ranges did not give one."""


@dataclass(frozen=True, slots=True)
class Located:
    """A file and the index that has it."""

    index: Index
    file: IndexFile


@dataclass(frozen=True, slots=True)
class WheelFile:
    """A wheel that was looked into: digest, size and METADATA."""

    digest: Digest
    size: int
    metadata: bytes


class SimpleIndex:
    """Client of all configured indexes."""

    def __init__(self, pip: PipSettings, settings: Settings) -> None:
        self.pip = pip
        self._cache = settings.cache
        self._http = HttpClient(pip.http, settings.progress)
        self._pages: dict[tuple[str, str], tuple[IndexFile, ...]] = {}
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._guard = threading.Lock()

    def files(self, project: str) -> tuple[IndexFile, ...]:
        """Return the files that any index has for a project.

        Raises:
            FetchError: an index did not answer.
            IntegrityError: an index answered something else than a project page.
        """
        return tuple(file for index in self.pip.indexes for file in self._page(index, normalise(project)))

    def _page(self, index: Index, project: str) -> tuple[IndexFile, ...]:
        key = (index.name, project)
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._pages:
                self._pages[key] = self._read_page(index, project)
            return self._pages[key]

    def _read_page(self, index: Index, project: str) -> tuple[IndexFile, ...]:
        subject = f"{project} in the package index {index.name}"
        try:
            answer = self._http.get_bytes(
                f"{index.url}{quote(project)}/",
                limit=limits.PROJECT_PAGE,
                headers={"Accept": ACCEPT},
                auth=index.auth,
                subject=subject,
                plain_http=index.plain_http,
            )
        except HttpStatusError as error:
            # pip, too, takes a refusal of one index to mean that it does not have the project.
            if error.status in _GONE:
                return ()
            raise
        kind = answer.headers.get("Content-Type", "")
        return parse_page(answer.body, kind, without_credentials(answer.url), subject=subject)

    def locate(self, pin: Pin) -> Located:
        """Find the file that pip chose on the page of its index.

        Raises:
            ResolveError: no page has it.
        """
        wanted = _comparable(pin.url)
        second = None
        for index in self.pip.indexes:
            for file in self._page(index, normalise(pin.project)):
                if file.filename != pin.filename:
                    continue
                if _comparable(file.url) == wanted:
                    return Located(index, file)
                if pin.sha256 is not None and file.sha256 == f"sha256:{pin.sha256}":
                    second = second or Located(index, file)
        if second is None:
            raise ResolveError(
                f"{pin.filename} was chosen and is on no page that the indexes have for {pin.project}",
                hint="a dependency that is given by its address (name @ https://...) cannot be carried",
            )
        return second

    def locate_file(self, project: str, file: IndexFile) -> Located:
        """Return which index has this very file of `files`."""
        for index in self.pip.indexes:
            if file in self._page(index, normalise(project)):
                return Located(index, file)
        raise ResolveError(f"{file.filename} is on no page of {project} any more")

    def find(self, index_name: str, project: str, filename: str, digest: Digest) -> Located:
        """Find a file that a lock names.

        Raises:
            FetchError: its index is not configured, does not have it, or has another under its name.
        """
        index = next((item for item in self.pip.indexes if item.name == index_name), None)
        if index is None:
            raise FetchError(
                f"{filename}: the lock takes it from the package index {index_name!r}, which is not configured",
                hint="configure as many extra-index-url in pip as there were at resolve, in the same order",
            )
        found = [file for file in self._page(index, project) if file.filename == filename]
        for file in found:
            if file.sha256 in (None, digest):
                return Located(index, file)
        if found:
            raise IntegrityError(
                f"{filename} in the package index {index_name}", expected=digest, actual=str(found[0].sha256)
            )
        raise FetchError(
            f"{filename}: the package index {index_name} does not have it (any more)",
            hint=f"run airlift resolve with --update, or configure an index that has {project}",
        )

    def inspect(self, located: Located, wheel: WheelName, work: Path) -> WheelFile:
        """Look into a wheel.

        Args:
            located: the file.
            wheel: what its name says.
            work: directory for a file that has to be fetched whole and cannot go into the cache.

        Raises:
            IntegrityError: the wheel is not one, or is not what the page says of it.
            FetchError: the index did not answer.
        """
        file = located.file
        found = self._inspect_in_cache(file, wheel) or self._inspect_by_ranges(located, wheel)
        if found is None:
            with scratch_file(work) as path:
                digest = self.download_whole(located, path)
                with path.open("rb") as stream:
                    found = WheelFile(digest, path.stat().st_size, read_metadata(stream, wheel=wheel))
                    self._keep(stream, found)
        if file.size is not None and file.size != found.size:
            raise IntegrityError(file.filename, expected=f"{file.size} bytes", actual=f"{found.size} bytes")
        if file.metadata is not None:
            digests.check(found.metadata, file.metadata, subject=f"METADATA of {file.filename}")
        return found

    def _inspect_in_cache(self, file: IndexFile, wheel: WheelName) -> WheelFile | None:
        if self._cache is None or file.sha256 is None or not self._cache.has(file.sha256):
            return None
        with self._cache.open(file.sha256) as stream:
            return WheelFile(file.sha256, self._cache.size(file.sha256), read_metadata(stream, wheel=wheel))

    def _inspect_by_ranges(self, located: Located, wheel: WheelName) -> WheelFile | None:
        digest = located.file.sha256
        if digest is None:
            return None
        size = self._ranged_size(located)
        if size is None:
            return None
        try:
            return WheelFile(digest, size, self._remote_metadata(located, size, wheel))
        except NoRangesError:
            return None

    def _ranged_size(self, located: Located) -> int | None:
        """Return a file's size when its server gives ranges of it."""
        file = located.file
        try:
            answer = self._http.head(
                file.url,
                auth=_auth(located),
                subject=file.filename,
                plain_http=located.index.plain_http,
            )
        except HttpStatusError:
            return None  # a signed address may be good for GET alone
        if answer.headers.get("Accept-Ranges", "").lower() != "bytes":
            return None
        return content_length(answer.headers)

    def _remote_metadata(self, located: Located, size: int, wheel: WheelName) -> bytes:
        part = functools.partial(self._part, located)
        with RemoteFile(part, size, subject=wheel.filename) as stream, io.BufferedReader(stream, BLOCK) as buffered:
            return read_metadata(buffered, wheel=wheel)

    def _part(self, located: Located, start: int, size: int) -> bytes:
        """Return some bytes of a file.

        Raises:
            NoRangesError: the server sent something else than that range.
            FetchError: the server did not answer.
        """
        try:
            answer = self._http.get_bytes(
                located.file.url,
                limit=size,
                headers={"Range": f"bytes={start}-{start + size - 1}"},
                auth=_auth(located),
                subject=located.file.filename,
                plain_http=located.index.plain_http,
            )
        except IntegrityError as error:
            raise NoRangesError(f"{located.file.filename}: a range was asked for: {error.message}") from None
        if answer.status != 206 or len(answer.body) != size:  # noqa: PLR2004 - partial content
            raise NoRangesError(f"{located.file.filename}: a range was asked for, and the server sent something else")
        return answer.body

    def _keep(self, stream: io.BufferedIOBase | io.BufferedReader, found: WheelFile) -> None:
        if self._cache is None or self._cache.has(found.digest):
            return
        stream.seek(0)
        with self._cache.put(found.digest, found.size) as writer:
            while chunk := stream.read(limits.CHUNK):
                writer.write(chunk)

    def download(self, located: Located, sink: BlobSink, *, size: int | None) -> None:
        """Stream a file into a sink that checks it.

        Raises:
            FetchError: the index did not answer.
        """
        self._http.download(
            located.file.url,
            sink,
            size=size,
            auth=_auth(located),
            subject=located.file.filename,
            plain_http=located.index.plain_http,
        )

    def download_whole(self, located: Located, path: Path) -> Digest:
        """Fetch a file to `path` and return its digest.

        Raises:
            FetchError: the index did not answer.
            IntegrityError: it is not what the page says.
            StoreError: the disk refuses.
        """
        file = located.file
        with fs.guarded("writing"), path.open("wb") as stream:
            sink = FileSink(stream, file.size or limits.BLOB, file.filename)
            self.download(located, sink, size=file.size)
        if file.size is not None and sink.written != file.size:
            raise IntegrityError(file.filename, expected=f"{file.size} bytes", actual=f"{sink.written} bytes")
        if file.sha256 is not None and sink.digest != file.sha256:
            raise IntegrityError(file.filename, expected=file.sha256, actual=sink.digest)
        return sink.digest

    def metadata(self, located: Located, wheel: WheelName, *, digest: Digest) -> bytes:
        """Return METADATA of a wheel that is not looked into for the first time.

        Raises:
            IntegrityError: it is not the one with this digest.
            FetchError: the index did not answer.
        """
        file = located.file
        if file.has_metadata:
            try:
                answer = self._http.get_bytes(
                    file.url + ".metadata",
                    limit=limits.SMALL_BLOB,
                    auth=_auth(located),
                    subject=f"METADATA of {file.filename}",
                    plain_http=located.index.plain_http,
                )
            except HttpStatusError as error:
                # Some indexes announce it and do not have it; the wheel has it in any case.
                if error.status not in _GONE:
                    raise
            else:
                return digests.check(answer.body, digest, subject=f"METADATA of {file.filename}")
        size = self._ranged_size(located)
        if size is None:
            raise FetchError(
                f"METADATA of {file.filename}: the index neither offers it nor ranges of the wheel",
                hint="build with the cache that resolve filled",
            )
        data = self._remote_metadata(located, size, wheel)
        return digests.check(data, digest, subject=f"METADATA of {file.filename}")

    def digest_of(self, path: Path) -> Digest:
        """Return the digest of a file on this disk."""
        with fs.guarded("reading"), path.open("rb") as stream:
            return digests.from_hex(hashlib.file_digest(stream, "sha256").hexdigest())


def _auth(located: Located) -> str | None:
    """Return the index's credentials for a file on the index's own origin, and nothing for other hosts."""
    return located.index.auth if urls.origin(located.index.url) == urls.origin(located.file.url) else None


def _comparable(url: str) -> str:
    return unquote(without_credentials(url))
