"""Wheels that are built here, once, from source distributions of an index.

What was built lies in the cache under its own digest, and a note beside it under the digest of its sdist and the
interpreter that built it; so a second resolve finds the same wheel, and gives the same lock.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from airlift import canonical, fs, limits
from airlift import digest as digests
from airlift.connected import pip_process
from airlift.connected.pip_process import Unmet
from airlift.connected.remote_file import scratch_file
from airlift.connected.simple_index import Located, SimpleIndex
from airlift.connected.source import Settings
from airlift.connected.unmet import runs_on, sdist_versions, wheel_versions
from airlift.digest import Digest
from airlift.errors import AirliftError, ResolveError
from airlift.kinds.wheel_targets import WheelTarget
from airlift.kinds.wheels import WheelName, parse_filename, read_metadata
from airlift.store import Store


@dataclass(frozen=True, slots=True)
class BuiltWheel:
    """A wheel and what it was built from.

    Attributes:
        name, digest, size: of the wheel.
        metadata: its METADATA.
        sdist, sdist_digest: file name and digest of the source distribution.
    """

    name: WheelName
    digest: Digest
    size: int
    metadata: bytes
    sdist: str
    sdist_digest: Digest


class BuiltWheels:
    """The wheels that were built for one set; `folder` holds them for pip to find."""

    def __init__(self, settings: Settings, index: SimpleIndex, work: Path) -> None:
        self._settings = settings
        self._index = index
        self._work = work
        self._lock = threading.Lock()
        self._found: dict[str, BuiltWheel] = {}
        self._tried: set[str] = set()
        self.folder = work / "built"
        with fs.guarded("creating"):
            self.folder.mkdir()

    def get(self, filename: str) -> BuiltWheel:
        """Return a wheel of `folder`.

        Raises:
            ResolveError: it is not one that was built here: an index's page led pip to a file of this machine.
        """
        if filename not in self._found:
            raise ResolveError(
                f"{filename}: a page of an index points to a file of this machine, which is not taken",
                hint="tell the index's owner; an index has no reason to do that",
            )
        return self._found[filename]

    def add(self, unmet: Sequence[Unmet], target: WheelTarget) -> bool:
        """Build what only source distributions can answer; say whether something was added.

        Raises:
            ResolveError: it does not build, does not run on the target, or there is no cache to keep it in.
        """
        with self._lock:
            return any(self._add_one(item, unmet, target) for item in unmet if not item.is_python)

    def _add_one(self, item: Unmet, unmet: Sequence[Unmet], target: WheelTarget) -> bool:
        wanted = SpecifierSet(",".join(u.specifier for u in unmet if u.project == item.project and u.specifier))
        files = self._index.files(item.project)
        supported = set(target.tags())
        for version, file in wheel_versions(files):
            fits = wanted.contains(version, prereleases=True) and file.yanked is None and runs_on(file, target)
            if fits and parse_filename(file.filename).tags & supported:
                return False
        versions = {version: file for version, file in sdist_versions(files) if runs_on(file, target)}
        pinned = any(spec.operator in ("==", "===") for spec in wanted)
        usable = [v for v, file in versions.items() if file.yanked is None or pinned]
        best: Version | None = max(wanted.filter(usable), default=None)
        if best is None or versions[best].filename in self._tried:
            return False
        self._tried.add(versions[best].filename)
        built = self._make(self._index.locate_file(item.project, versions[best]), target)
        self._found[built.name.filename] = built
        return True

    def _make(self, sdist: Located, target: WheelTarget) -> BuiltWheel:
        cache = self._settings.cache
        if cache is None:
            raise ResolveError(
                f"{sdist.file.filename} has to be built, and there is no cache to keep the wheel in",
                hint="resolve without --no-cache: build takes the wheel from the cache",
            )
        with scratch_file(self._work) as path:
            digest = self._index.download_whole(sdist, path)
            built = self._recall(cache, sdist.file.filename, digest) or self._build(cache, sdist, path, digest)
        if not built.name.tags & set(target.tags()):
            raise ResolveError(
                f"{built.name.filename}, built from {sdist.file.filename} on this machine, does not run on the "
                f"target {target}",
                hint="build the wheel on a machine like the target and put it into an index",
            )
        return built

    def _build(self, cache: Store, sdist: Located, path: Path, digest: Digest) -> BuiltWheel:
        filename = sdist.file.filename
        self._settings.progress.note(f"building a wheel of {filename}")
        place = self._work / digests.hex_of(digest)
        with fs.guarded("creating"):
            (place / "out").mkdir(parents=True)
            named = path.rename(place / filename)
        wheel = pip_process.build(self._settings, self._index.pip, named, out=place / "out")
        name = parse_filename(wheel.name)
        size, own = wheel.stat().st_size, self._index.digest_of(wheel)
        with cache.put(own, size) as writer, wheel.open("rb") as stream:
            while chunk := stream.read(limits.CHUNK):
                writer.write(chunk)
        note = canonical.encode({"filename": name.filename, "digest": own, "sdist": filename})
        with fs.guarded("creating"):
            self._note(cache, digest).parent.mkdir(exist_ok=True)
        fs.write(self._note(cache, digest), note)
        return self._place(cache, name, own, filename, digest)

    def _recall(self, cache: Store, filename: str, digest: Digest) -> BuiltWheel | None:
        note = self._note(cache, digest)
        if not note.is_file():
            return None
        try:
            value = json.loads(fs.read_bounded(note, limits.ERROR_BODY))
            name, own = parse_filename(value["filename"]), digests.parse(value["digest"])
            cache.verify(own)
        except (AirliftError, ValueError, KeyError, TypeError):
            return None  # a cache is allowed to forget: the wheel is built again
        return self._place(cache, name, own, filename, digest)

    def _place(self, cache: Store, name: WheelName, own: Digest, sdist: str, sdist_digest: Digest) -> BuiltWheel:
        with fs.guarded("copying"):
            shutil.copyfile(cache.path(own), self.folder / name.filename)
        with cache.open(own) as stream:
            metadata = read_metadata(stream, wheel=name)
        cache.put_bytes(metadata)
        return BuiltWheel(name, own, cache.size(own), metadata, sdist, sdist_digest)

    def _note(self, cache: Store, sdist: Digest) -> Path:
        return cache.root / "built" / f"{digests.hex_of(sdist)}.{sys.implementation.cache_tag}.json"
