"""Models: of a hub, pinned to a commit, or of a directory.

What the hub keeps in LFS is pinned without being fetched: digest and size come from the tree, the structure from the
first bytes. What it keeps in Git is fetched, compared with its Git object id, and hashed. Weights are looked at again
while they stream into the bundle: only those bytes have the pinned digest.
"""

from __future__ import annotations

import hashlib
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from packageurl import PackageURL

from airlift import digest as digests
from airlift import fs, limits, oci
from airlift.artifact import Artifact, Kind
from airlift.connected.hub import DEFAULT_ENDPOINT, HubClient, HubFile
from airlift.errors import IntegrityError, ResolveError
from airlift.kinds import models
from airlift.kinds.models import ModelFile, Packed
from airlift.kinds.weights import Inspector
from airlift.lock import Component, LockedArtifact, LockedBlob, LockedEntry, made
from airlift.transport import urls
from airlift.transport.http import HttpClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from airlift.connected.source import BlobSink, Settings
    from airlift.digest import Digest
    from airlift.manifest import ModelWeights

_AT_ONCE: Final = 4
_IN_MEMORY: Final = 32 * limits.MIB
_SKIPPED: Final = frozenset({".git", ".cache"})


@dataclass(frozen=True, slots=True)
class _Examined:
    """A file that was looked at."""

    file: ModelFile
    danger: str | None


class ModelSource:
    """Where models come from. Safe to use from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http = HttpClient(settings.http, settings.progress)
        self._lock = threading.Lock()
        self._inspectors: dict[Digest, Inspector] = {}

    def resolve(self, request: ModelWeights, previous: LockedEntry | None) -> LockedEntry:  # noqa: ARG002 - a commit has nothing to keep
        """Pin a model.

        Raises:
            ResolveError: the hub has no such model or revision, the directory is none, or a pattern matches nothing.
            FetchError: the hub does not answer, or does not let us in.
            IntegrityError: a file is not what it should be, or has an unsafe name.
            PolicyError: a file may run code when it is loaded and is not named under ``unsafe_files``.
        """
        return self._local(request) if request.path is not None else self._remote(request)

    def fetch(self, entry: LockedEntry, blob: LockedBlob, sink: BlobSink) -> None:
        """Stream one file, and look at its structure meanwhile.

        Raises:
            FetchError: the hub does not give it.
            IntegrityError: it is not what it should be.
            StoreError: the local file cannot be read.
        """
        path = blob.origin["path"]
        subject = f"model {entry.name}, {path}"
        with self._lock:
            inspector = self._inspectors.get(blob.digest)
            if inspector is None or sink.written == 0:
                inspector = self._inspectors[blob.digest] = Inspector(path, blob.size, subject=subject)
        watched = _Watched(sink, inspector)
        if "repo" in blob.origin:
            hub = self._hub(blob.origin.get("endpoint"))
            hub.stream(blob.origin["repo"], blob.origin["revision"], path, watched, size=blob.size, subject=subject)
        else:
            _read(self._settings.base / blob.origin["directory"] / path, watched.write, start=sink.written)
        inspector.finish()
        with self._lock:
            self._inspectors.pop(blob.digest, None)

    def _hub(self, endpoint: str | None) -> HubClient:
        """Return the client of a hub: one that the manifest names, or the one that this machine is set up for."""
        environment = self._settings.environment
        usual = environment.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
        chosen = endpoint or usual
        # A token is for the hub that it was set up for, not for one that a manifest brings along.
        token = environment.get("HF_TOKEN") if urls.origin(chosen) == urls.origin(usual) else None
        return HubClient(chosen, http=self._http, token=token or None)

    def _remote(self, request: ModelWeights) -> LockedEntry:
        repo, subject = request.repo or "", f"model {request.repo}"
        hub = self._hub(request.endpoint)
        revision = hub.revision(repo, request.revision)
        tree = {file.path: file for file in hub.tree(repo, revision.commit)}
        wanted = [tree[path] for path in self._select(request, list(tree), subject)]
        models.check_paths([file.path for file in wanted], subject=subject)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            examined = list(pool.map(lambda file: self._examine(hub, repo, revision.commit, file), wanted))
        base = (request.endpoint or DEFAULT_ENDPOINT).rstrip("/")
        licence = request.licence or revision.licence
        packed = self._pack(request, examined, revision=revision.commit, licence=licence, source=f"{base}/{repo}")
        origin = {"repo": repo, "revision": revision.commit}
        if request.endpoint:
            origin["endpoint"] = request.endpoint
        branch = request.revision if request.revision != revision.commit else "main"
        host = urlsplit(base).netloc
        qualifiers = {"repository_url": base} if request.endpoint else {}
        namespace, _, name = repo.rpartition("/")
        purl = PackageURL("huggingface", namespace or None, name, revision.commit, qualifiers)
        return _entry(
            request,
            packed,
            [item.file for item in examined],
            facts={"revision": revision.commit, "branch": branch, "licence": licence, "source": f"{host}/{repo}"},
            origin=origin,
            purl=purl.to_string(),
            source=host,
        )

    def _local(self, request: ModelWeights) -> LockedEntry:
        subject = f"model {request.id}"
        root = self._settings.base / (request.path or "")
        if not root.is_dir():
            raise ResolveError(f"{subject}: {request.path} is not a directory")
        found = dict(self._walk(root, "", subject))
        examined = [
            _examine_local(found[path], path, f"{subject}, {path}")
            for path in self._select(request, list(found), subject)
        ]
        packed = self._pack(request, examined, revision=None, licence=request.licence, source=None)
        revision = packed.revision
        namespace, _, name = request.id.rpartition("/")
        return _entry(
            request,
            packed,
            [item.file for item in examined],
            facts={"revision": revision, "branch": request.revision, "licence": request.licence, "source": "local"},
            origin={"directory": request.path or ""},
            purl=PackageURL("generic", namespace or None, name, revision).to_string(),
            source="local",
        )

    def _select(self, request: ModelWeights, paths: list[str], subject: str) -> list[str]:
        for pattern in request.exclude:
            if not any(models.matches(path, pattern) for path in paths):
                self._settings.progress.warn(f"{subject}: exclude pattern {pattern!r} matches none of its files")
        return models.select(
            paths, include=request.include, exclude=request.exclude, unsafe=request.unsafe_files, subject=subject
        )

    def _pack(
        self,
        request: ModelWeights,
        examined: list[_Examined],
        *,
        revision: str | None,
        licence: str | None,
        source: str | None,
    ) -> Packed:
        dangers = [(item.file.path, item.danger) for item in examined if item.danger is not None]
        models.refuse_dangerous(dangers, allowed=request.unsafe_files, subject=f"model {request.id}")
        for path, why in dangers:
            self._settings.progress.warn(f"model {request.id}: {path} {why}; taken because unsafe_files names it")
        files = [item.file for item in examined]
        return models.pack(request.id, files, revision=revision, licence=licence, source=source)

    def _examine(self, hub: HubClient, repo: str, commit: str, file: HubFile) -> _Examined:
        subject = f"model {repo}, {file.path}"
        inspector = Inspector(file.path, file.size, subject=subject)
        if file.sha256 is not None:
            while not inspector.complete:
                start = inspector.seen
                inspector.update(hub.part(repo, commit, file, start, inspector.need, subject=subject))
            return _Examined(ModelFile(file.path, file.sha256, file.size), inspector.danger)
        sink = _Hashing(inspector, file.size)
        hub.stream(repo, commit, file.path, sink, size=file.size, subject=subject)
        inspector.finish()
        if (oid := sink.git.hexdigest()) != file.oid:
            raise IntegrityError(subject, expected=f"the Git object {file.oid}", actual=oid)
        if self._settings.cache is not None and sink.kept is not None:
            self._settings.cache.put_bytes(bytes(sink.kept))
        return _Examined(ModelFile(file.path, sink.digest, file.size, file.oid), inspector.danger)

    def _walk(self, directory: Path, prefix: str, subject: str) -> Iterator[tuple[str, Path]]:
        with fs.guarded("reading"):
            children = sorted(directory.iterdir())
        for child in children:
            path = prefix + child.name
            mode = child.lstat().st_mode
            if stat.S_ISDIR(mode):
                if child.name in _SKIPPED:
                    self._settings.progress.note(f"{subject}: {path} is left out")
                else:
                    yield from self._walk(child, f"{path}/", subject)
            elif stat.S_ISREG(mode):
                yield path, child
            else:
                what = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a directory"
                raise ResolveError(
                    f"{subject}: {path!r} is {what}", hint="put the file itself there; what a link points to may change"
                )


class _Watched:
    """A sink that lets an inspector see what passes."""

    def __init__(self, sink: BlobSink, inspector: Inspector) -> None:
        self._sink = sink
        self._inspector = inspector

    @property
    def written(self) -> int:
        return self._sink.written

    def write(self, data: bytes | bytearray | memoryview) -> None:
        # A part that an inspector has not seen leaves it incomplete, and then `finish` says so.
        if self._sink.written == self._inspector.seen:
            self._inspector.update(data)
        self._sink.write(data)


class _Hashing:
    """A sink that hashes a file of Git and keeps it when it is small."""

    def __init__(self, inspector: Inspector, size: int) -> None:
        self._inspector = inspector
        self._sha256 = hashlib.sha256()
        self.git = models.git_blob(size)
        self.kept: bytearray | None = bytearray() if size <= _IN_MEMORY else None

    @property
    def written(self) -> int:
        return self._inspector.seen

    @property
    def digest(self) -> Digest:
        return digests.from_hex(self._sha256.hexdigest())

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._sha256.update(data)
        self.git.update(data)
        if self.kept is not None:
            self.kept += data
        self._inspector.update(data)


def _examine_local(place: Path, path: str, subject: str) -> _Examined:
    with fs.guarded("reading"):
        size = place.stat().st_size
    inspector = Inspector(path, size, subject=subject)
    sink = _Hashing(inspector, size)
    sink.kept = None
    _read(place, sink.write, start=0)
    inspector.finish()
    return _Examined(ModelFile(path, sink.digest, sink.written), inspector.danger)


def _read(path: Path, write: Callable[[bytes], None], *, start: int) -> None:
    with fs.guarded("reading"), path.open("rb") as stream:
        stream.seek(start)
        while chunk := stream.read(limits.CHUNK):
            write(chunk)


def _entry(
    request: ModelWeights,
    packed: Packed,
    files: list[ModelFile],
    *,
    facts: dict[str, str | None],
    origin: dict[str, str],
    purl: str,
    source: str,
) -> LockedEntry:
    revision = facts["revision"] or ""
    artifact = Artifact(Kind.MODEL, f"models/{request.id}:{revision[:12]}", packed.root, {"id": request.id, **facts})
    blobs = {
        file.digest: LockedBlob(file.digest, file.size, file.media_type, origin={**origin, "path": file.path})
        for file in reversed(files)
    }
    small = (made(packed.manifest, oci.MANIFEST), made(packed.config, models.CONFIG_TYPE))
    large = tuple(blobs[digest] for digest in dict.fromkeys(file.digest for file in files))
    component = Component(purl, "machine-learning-model", request.id, revision, packed.root.digest, facts["licence"])
    return LockedEntry(Kind.MODEL, request.id, {}, source, (LockedArtifact(artifact, small, large),), (component,))
