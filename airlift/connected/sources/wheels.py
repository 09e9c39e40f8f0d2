"""Wheels from package indexes: one set of requirements, pinned for each of its targets.

- pip chooses (in a process per target); what it chose is looked up on the index's page again, and every wheel is
  looked into: its own METADATA counts, and by it the set is checked to be complete for the target.
- Only wheels are taken. With ``allow_sdist`` a wheel is built where no index has one; it is kept in the cache, under
  the digest of what it was built from, and marked in the lock.
- A lock names an index by its place in pip's configuration (``index``, ``extra-1``), a file by project, name, digest.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from packaging.requirements import Requirement

from airlift import digest as digests
from airlift import fs, oci
from airlift.artifact import PYTHON_TYPE, Artifact, Kind
from airlift.connected import pip_process, requirement_files
from airlift.connected.built_wheels import BuiltWheel, BuiltWheels
from airlift.connected.pip_process import NoAnswerError, Pin
from airlift.connected.requirement_files import Requirements
from airlift.connected.simple_index import SimpleIndex
from airlift.connected.source import BlobSink, Settings
from airlift.connected.unmet import explain
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.kinds.wheel_targets import Chosen, WheelTarget, check_closure
from airlift.kinds.wheels import (
    METADATA_TYPE,
    WHEEL_TYPE,
    DistributionFile,
    Metadata,
    normalise,
    parse_filename,
    parse_metadata,
    set_index,
)
from airlift.lock import Component, LockedArtifact, LockedBlob, LockedEntry, made
from airlift.manifest import Python
from airlift.oci import Descriptor

SOURCE: Final = "pypi"

_WORKERS: Final = 2
_PARALLEL_FILES: Final = 8
_BUILDS_MOST: Final = 100


@dataclass(frozen=True, slots=True)
class _Wheel:
    """A wheel that will be carried, once, however many targets want it."""

    file: DistributionFile
    metadata: Metadata
    origin: Mapping[str, str]

    @property
    def purl(self) -> str:
        name = self.file.name
        version = quote(str(name.version), safe="")
        return f"pkg:pypi/{name.project}@{version}?file_name={quote(name.filename, safe='')}"


class WheelSource:
    """The source of sets of wheels."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._index_client: SimpleIndex | None = None
        # A worker takes up to 260 MB; sets of one manifest share these places.
        self._places = threading.BoundedSemaphore(_WORKERS)

    def _index(self) -> SimpleIndex:
        with self._lock:
            if self._index_client is None:
                self._index_client = SimpleIndex(pip_process.load_settings(self._settings), self._settings)
            return self._index_client

    def resolve(self, request: Python, previous: LockedEntry | None) -> LockedEntry:
        """Pin a set of requirements for each of its targets.

        Raises:
            ManifestError: a requirements file cannot be understood.
            ResolveError: no set of wheels answers; with project, target and what there is.
            FetchError: an index did not answer.
            IntegrityError: an index or a wheel is not what it says.
        """
        del previous  # an unchanged request keeps its lock; one that moves is resolved anew
        requirements = requirement_files.read(
            request.requirements, request.packages, base=self._settings.base, set_name=request.name
        )
        targets = [WheelTarget(item.python, item.platform, item.libc) for item in request.targets]
        _check_targets(targets, request.name)
        index = self._index()
        if index.pip.ignored:
            ignored = ", ".join(index.pip.ignored)
            self._settings.progress.note(f"pip's find-links ({ignored}) is not used: wheels come from indexes")
        with fs.work_directory(self._settings.work, "wheels") as work:
            run = _Resolve(self._settings, index, request, requirements, work=work, places=self._places)
            pins = run.pin(targets)
            wheels = run.look_into(pins)
        return _entry(request, requirements, targets, pins, wheels)

    def fetch(self, entry: LockedEntry, blob: LockedBlob, sink: BlobSink) -> None:
        """Stream a wheel or its METADATA.

        Raises:
            ResolveError: it was built here and is not in the cache any more.
            FetchError: the index does not have that file any more, or did not answer.
            IntegrityError: the index has other bytes under that name.
        """
        origin = blob.origin
        if "built-from" in origin:
            raise ResolveError(
                f"{origin['file']} was built from {origin['built-from']} by an earlier resolve "
                "and is not in the cache any more",
                hint=f"run airlift resolve --update {entry.name} with this cache",
            )
        if "sha256" in origin:
            index = self._index()
            found = index.find(origin["index"], origin["project"], origin["file"], digests.from_hex(origin["sha256"]))
            if blob.media_type == METADATA_TYPE:
                data = index.metadata(found, parse_filename(origin["file"]), digest=blob.digest)
                sink.write(data[sink.written :])
            else:
                index.download(found, sink, size=blob.size)
            return
        raise FetchError(f"{entry.name}: the lock does not say where {blob.digest} comes from")


def _check_targets(targets: Sequence[WheelTarget], name: str) -> None:
    seen: set[str] = set()
    for target in targets:
        target.tags()
        if str(target) in seen:
            raise ResolveError(f"{name}: target {target} is there twice")
        seen.add(str(target))


def _check_case(names: Sequence[str], set_name: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise IntegrityError(
                f"{set_name}: file names",
                expected="names that differ in more than case",
                actual=f"{other!r} and {name!r}",
            )


class _Resolve:
    """One run of `WheelSource.resolve`."""

    def __init__(
        self,
        settings: Settings,
        index: SimpleIndex,
        request: Python,
        requirements: Requirements,
        *,
        work: Path,
        places: threading.BoundedSemaphore,
    ) -> None:
        self._settings = settings
        self._index = index
        self._request = request
        self._requirements = requirements
        self._work = work
        self._places = places
        self._built = BuiltWheels(settings, index, work)

    def pin(self, targets: Sequence[WheelTarget]) -> list[list[Pin]]:
        """Return the pins of each target."""
        # A wheel that one target's build adds may change another's answer, so builds go one target after the other.
        with ThreadPoolExecutor(1 if self._request.allow_sdist else _WORKERS) as pool:
            return list(pool.map(self._pin_one, targets))

    def _pin_one(self, target: WheelTarget) -> list[Pin]:
        for _ in range(_BUILDS_MOST):
            try:
                with self._places:
                    return pip_process.resolve(
                        self._settings,
                        self._index.pip,
                        target,
                        self._requirements,
                        work=self._work,
                        built=self._built.folder if self._request.allow_sdist else None,
                    )
            except NoAnswerError as error:
                if not (self._request.allow_sdist and self._built.add(error.unmet, target)):
                    raise explain(
                        error,
                        self._index,
                        target,
                        set_name=self._request.name,
                        allow_sdist=self._request.allow_sdist,
                    ) from None
        raise ResolveError(f"{self._request.name}: more than {_BUILDS_MOST} source distributions are wanted")

    def look_into(self, pins: Sequence[Sequence[Pin]]) -> dict[str, _Wheel]:
        """Return every chosen wheel by file name."""
        once: dict[str, Pin] = {}
        for pin in (pin for chosen in pins for pin in chosen):
            other = once.setdefault(pin.filename, pin)
            if other.sha256 and pin.sha256 and other.sha256 != pin.sha256:
                raise IntegrityError(
                    pin.filename, expected=f"sha256:{other.sha256}", actual=f"sha256:{pin.sha256} for another target"
                )
        _check_case(list(once), self._request.name)
        with ThreadPoolExecutor(_PARALLEL_FILES) as pool:
            wheels = list(pool.map(self._look_into_one, once.values()))
        self._check_hashes(wheels)
        return {wheel.file.name.filename: wheel for wheel in wheels}

    def _look_into_one(self, pin: Pin) -> _Wheel:
        if pin.local:
            return _of_built(self._built.get(pin.filename))
        found = self._index.locate(pin)
        name = parse_filename(pin.filename)
        wheel = self._index.inspect(found, name, self._work)
        said = parse_metadata(wheel.metadata, wheel=name)
        if self._settings.cache is not None:
            self._settings.cache.put_bytes(wheel.metadata)
        if found.file.yanked is not None:
            reason = found.file.yanked or "no reason is given"
            self._settings.progress.warn(f"{self._request.name}: {pin.filename} is yanked: {reason}")
        file = DistributionFile(
            name,
            wheel.digest,
            wheel.size,
            digests.of(wheel.metadata),
            len(wheel.metadata),
            said.requires_python,
            found.file.yanked,
            found.file.upload_time,
        )
        origin = {
            "index": found.index.name,
            "project": name.project,
            "file": pin.filename,
            "sha256": digests.hex_of(wheel.digest),
        }
        return _Wheel(file, said, origin)

    def _check_hashes(self, wheels: Sequence[_Wheel]) -> None:
        allowed: dict[str, set[str]] = {}
        for line in self._requirements.lines:
            if line.hashes:
                allowed.setdefault(normalise(Requirement(line.text).name), set()).update(line.hashes)
        for wheel in wheels:
            wanted = allowed.get(wheel.file.name.project)
            if wanted is not None and wheel.file.digest not in wanted and wheel.file.sdist_built is None:
                raise IntegrityError(
                    wheel.file.name.filename, expected=" or ".join(sorted(wanted)), actual=wheel.file.digest
                )
            if wanted is None and self._requirements.require_hashes:
                raise ResolveError(
                    f"{self._request.name}: --require-hashes is on and no hash is given for {wheel.file.name.project}",
                    hint="give every project a --hash, or remove --require-hashes: the lock pins every file anyway",
                )


def _of_built(built: BuiltWheel) -> _Wheel:
    said = parse_metadata(built.metadata, wheel=built.name)
    file = DistributionFile(
        built.name,
        built.digest,
        built.size,
        digests.of(built.metadata),
        len(built.metadata),
        said.requires_python,
        sdist_built=f"{built.sdist}@{built.sdist_digest}",
    )
    return _Wheel(file, said, {"built-from": built.sdist, "file": built.name.filename})


def _entry(
    request: Python,
    requirements: Requirements,
    targets: Sequence[WheelTarget],
    pins: Sequence[Sequence[Pin]],
    wheels: Mapping[str, _Wheel],
) -> LockedEntry:
    order = sorted(wheels)
    manifests = {name: made(wheels[name].file.manifest(), oci.MANIFEST) for name in order}
    roots = [line.text for line in requirements.lines if not line.constraint]
    described = []
    needs: dict[str, set[str]] = {name: set() for name in order}
    for target, chosen in zip(targets, pins, strict=True):
        by_project = {parse_filename(pin.filename).project: wheels[pin.filename] for pin in chosen}
        edges = check_closure(
            target, roots, {project: Chosen(w.file.name, w.metadata) for project, w in by_project.items()}
        )
        for project, others in edges.items():
            needs[by_project[project].file.name.filename] |= {by_project[other].purl for other in others}
        described.append(
            {
                "target": str(target),
                "python": target.python,
                "platform": target.platform,
                "libc": target.libc,
                "wheels": [manifests[name].digest for name in sorted(pin.filename for pin in chosen)],
            }
        )
    index = made(set_index([(manifests[name].text or "").encode() for name in order]), oci.INDEX)
    root = Descriptor(oci.INDEX, index.digest, index.size, artifact_type=PYTHON_TYPE)
    artifact = Artifact(Kind.WHEELS, f"python/{request.name}:set", root, {"name": request.name, "targets": described})
    config = made(oci.EMPTY_CONFIG, oci.EMPTY)
    small = _once([index, *(blob for name in order for blob in (manifests[name], config))])
    large = _once([blob for name in order for blob in _blobs(wheels[name])])
    components = tuple(
        Component(
            wheels[name].purl,
            "library",
            wheels[name].file.name.project,
            str(wheels[name].file.name.version),
            wheels[name].file.digest,
            wheels[name].metadata.licence,
            tuple(sorted(needs[name])),
        )
        for name in order
    )
    return LockedEntry(Kind.WHEELS, request.name, {}, SOURCE, (LockedArtifact(artifact, small, large),), components)


def _once(blobs: Sequence[LockedBlob]) -> tuple[LockedBlob, ...]:
    """Keep the first of equal blobs: wheels of one release often share their METADATA."""
    first: dict[str, LockedBlob] = {}
    for blob in blobs:
        first.setdefault(blob.digest, blob)
    return tuple(first.values())


def _blobs(wheel: _Wheel) -> tuple[LockedBlob, LockedBlob]:
    file = wheel.file
    return (
        LockedBlob(file.digest, file.size, WHEEL_TYPE, None, wheel.origin),
        LockedBlob(file.metadata_digest, file.metadata_size, METADATA_TYPE, None, wheel.origin),
    )
