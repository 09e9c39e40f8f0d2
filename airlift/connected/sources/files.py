"""Files: by URL, hashed once while they are pinned, or from a path beside the manifest."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from packageurl import PackageURL

from airlift import digest as digests
from airlift import fs, limits, oci
from airlift.artifact import FILE_TYPE, Artifact, Kind
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.kinds import files
from airlift.kinds.files import NamedFile
from airlift.lock import Component, LockedArtifact, LockedBlob, LockedEntry, made
from airlift.transport.answers import content_length
from airlift.transport.http import HttpClient

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

    from airlift.connected.source import BlobSink, Settings
    from airlift.digest import Digest
    from airlift.manifest import File
    from airlift.store import Store


class FileSource:
    """Where single files come from. Safe to use from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http = HttpClient(settings.http, settings.progress)

    def resolve(self, request: File, previous: LockedEntry | None) -> LockedEntry:  # noqa: ARG002 - a URL keeps nothing
        """Pin a file.

        Raises:
            ResolveError: there is no such local file.
            FetchError: the server does not give it.
            IntegrityError: it is not the one whose ``sha256`` the manifest names, or its name is unsafe.
        """
        files.check_name(request.name)
        wanted = digests.from_hex(request.sha256) if request.sha256 else None
        if request.url is not None:
            # Not the query: it may be a signature, and the site sees this.
            shown = urlsplit(request.url)._replace(query="", fragment="").geturl()
            digest, size = self._measure_url(request.url, request, wanted)
            origin = {"url": request.url} | ({"plain_http": "true"} if request.plain_http else {})
            source = urlsplit(request.url).netloc
        else:
            shown, source, origin = "local", "local", {"path": request.path or ""}
            digest, size = self._measure_path(self._settings.base / (request.path or ""), request)
        if wanted is not None and digest != wanted:
            raise IntegrityError(
                f"file {request.name}",
                expected=wanted,
                actual=digest,
                hint="compare sha256 in the manifest with what the file's maker publishes",
            )
        return _entry(NamedFile(request.name, digest, size), shown=shown, source=source, origin=origin)

    def fetch(self, entry: LockedEntry, blob: LockedBlob, sink: BlobSink) -> None:
        """Stream the file.

        Raises:
            FetchError: the server does not give it.
            ResolveError: the local file is not there any more.
            StoreError: it cannot be read.
        """
        if (url := blob.origin.get("url")) is not None:
            plain = blob.origin.get("plain_http") == "true"
            self._http.download(url, sink, size=blob.size, plain_http=plain, subject=f"file {entry.name}")
            return
        path = self._settings.base / blob.origin["path"]
        if not path.is_file():
            raise ResolveError(f"file {entry.name}: {path} is not a file")
        with fs.guarded("reading"), path.open("rb") as stream:
            stream.seek(sink.written)
            while chunk := stream.read(limits.CHUNK):
                sink.write(chunk)

    def _measure_url(self, url: str, request: File, wanted: Digest | None) -> tuple[Digest, int]:
        """Return digest and size: from the cache, from the server's word for a known digest, else by a download."""
        cache, subject = self._settings.cache, f"file {request.name}"
        if wanted is not None and cache is not None and cache.has(wanted):
            return wanted, cache.size(wanted)
        if wanted is not None and cache is None:
            # Nothing would be kept of a download, and build compares the digest anyway.
            size = self._announced(url, request)
            if size is not None:
                return wanted, size
        if cache is None:
            sink = _Hashing(None)
            self._http.download(url, sink, size=None, plain_http=request.plain_http, subject=subject)
            return sink.digest, sink.written
        with fs.work_directory(self._settings.work, "file") as folder:
            part = folder / "content"
            with fs.guarded("writing"), part.open("xb") as stream:
                sink = _Hashing(stream)
                self._http.download(url, sink, size=None, plain_http=request.plain_http, subject=subject)
            if wanted in (None, sink.digest):
                _keep(cache, part, sink.digest, sink.written)
        return sink.digest, sink.written

    def _announced(self, url: str, request: File) -> int | None:
        try:
            answer = self._http.head(url, plain_http=request.plain_http, subject=f"file {request.name}")
        except FetchError as error:
            if error.temporary:
                raise
            return None
        encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
        size = None if encoded else content_length(answer.headers)
        return size if size is not None and size <= limits.BLOB else None

    def _measure_path(self, path: Path, request: File) -> tuple[Digest, int]:
        if not path.is_file():
            raise ResolveError(f"file {request.name}: {request.path} is not a file")
        sink = _Hashing(None)
        with fs.guarded("reading"), path.open("rb") as stream:
            while chunk := stream.read(limits.CHUNK):
                sink.write(chunk)
        return sink.digest, sink.written


class _Hashing:
    """A sink that hashes, and writes on into a file where there is one."""

    def __init__(self, stream: BinaryIO | None) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.written = 0

    @property
    def digest(self) -> Digest:
        return digests.from_hex(self._hash.hexdigest())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._hash.update(data)
        self.written += len(data)
        if self.written > limits.BLOB:
            raise IntegrityError("download", expected=f"at most {limits.BLOB} bytes", actual="more")
        if self._stream is not None:
            with fs.guarded("writing"):
                self._stream.write(data)


def _keep(cache: Store, part: Path, digest: Digest, size: int) -> None:
    if cache.has(digest):
        return
    with cache.put(digest, size) as writer, fs.guarded("reading"), part.open("rb") as stream:
        while chunk := stream.read(limits.CHUNK):
            writer.write(chunk)


def _entry(file: NamedFile, *, shown: str, source: str, origin: dict[str, str]) -> LockedEntry:
    manifest = files.pack(file)
    root = oci.describe(manifest, oci.MANIFEST)
    root = oci.Descriptor(root.media_type, root.digest, root.size, artifact_type=FILE_TYPE)
    artifact = Artifact(Kind.FILE, file.artifact_name, root, {"name": file.name, "source": shown})
    small = (made(manifest, oci.MANIFEST), made(oci.EMPTY_CONFIG, oci.EMPTY))
    large = (LockedBlob(file.digest, file.size, files.MEDIA_TYPE, origin=origin),)
    version = digests.hex_of(file.digest)[:12]
    namespace, _, name = file.name.rpartition("/")
    qualifiers = {"checksum": file.digest} | ({"download_url": shown} if shown != "local" else {})
    purl = PackageURL("generic", namespace or None, name, version, qualifiers).to_string()
    component = Component(purl, "file", file.name, version, file.digest)
    return LockedEntry(Kind.FILE, file.name, {}, source, (LockedArtifact(artifact, small, large),), (component,))
