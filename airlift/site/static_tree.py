"""The mirrors of a site as a directory that any web server serves; one rename switches from one state to the next.

``DIR`` is a symbolic link to a generation beside it, ``DIR.<state>.<random>``. A generation gets its name when it is
whole and durable, then the link is replaced, then older ones go; a kill at any step leaves the link on a whole one.

Pages show the active drops, and content stands under its digest as long as a drop that has it is kept: a client that
read a page before the switch finds its files after it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from airlift import canonical, fs, limits
from airlift import digest as digests
from airlift.digest import Digest, Verifier
from airlift.errors import StoreError, UsageError
from airlift.progress import Progress
from airlift.site import simple_pages
from airlift.site.catalog import Catalog
from airlift.site.chart_index import index_of
from airlift.site.config import Site
from airlift.site.listing import Held, Service
from airlift.store import Store

_GENERATION: Final = re.compile(r"\.[0-9a-f]{32}\.[0-9a-f]{8}")
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Export:
    """What `export` did.

    Attributes:
        state: names the content; equal states are equal trees.
        generation: the directory that the link points to.
        files: how many files it has.
        changed: whether the link was moved.
        skipped: mirror to the reason why it is not in the tree.
    """

    state: str
    generation: Path
    files: int
    changed: bool
    skipped: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Blob:
    digest: Digest
    size: int


_Plan = dict[str, "bytes | _Blob"]


def export(site: Site, target: Path, progress: Progress) -> Export:
    """Let `target` show the active drops of a site.

    Raises:
        UsageError: `target` is there and not a link that an export made.
        StoreError: the disk refuses, or two names cannot both be files.
        IntegrityError: a blob that has to be copied is damaged.
    """
    current = _current(target)
    with site.locked("exporting", progress):
        catalog = Catalog(site.journal_path, site.store)
        try:
            plan, skipped = _plan(site, catalog)
        finally:
            catalog.close()
        described = {path: digests.of(item) if isinstance(item, bytes) else item.digest for path, item in plan.items()}
        state = digests.hex_of(digests.of(canonical.encode(described)))[:32]
        with fs.guarded("exporting"):
            is_same = current is not None and current.name.startswith(f"{target.name}.{state}.")
            if current is None or not is_same or not _is_whole(current, plan, site.store):
                current = _switch(target, state, plan, site.store)
                changed = True
            else:
                changed = False
            _clean(target, keep=current.name)
    return Export(state, current, len(plan), changed, skipped)


def _current(target: Path) -> Path | None:
    if not target.name:
        raise UsageError(f"{target} has no name that a link could have")
    if not target.is_symlink():
        if target.exists():
            raise UsageError(
                f"{target} exists and is no export", hint="choose a name that is free; the export makes a link there"
            )
        return None
    pointed = str(target.readlink())
    if not pointed.startswith(target.name) or not _GENERATION.fullmatch(pointed[len(target.name) :]):
        raise UsageError(f"{target} is a link to {pointed[:200]}, which no export made", hint="choose another name")
    return target.with_name(pointed)


def _plan(site: Site, catalog: Catalog) -> tuple[_Plan, dict[str, str]]:
    plan: _Plan = {"generation.json": canonical.encode({"generation": catalog.generation()})}
    skipped = {}
    _plan_wheels(plan, catalog)
    if site.config.registry is None:
        _plan_charts(plan, catalog)
    else:
        skipped["charts"] = f"they are in the registry {site.config.registry.url}"
    _plan_files(plan, catalog)
    if catalog.keys(Service.HUB):
        skipped["models"] = "a model hub answers with headers that files do not have; use airlift serve"
    return plan, skipped


def _plan_wheels(plan: _Plan, catalog: Catalog) -> None:
    projects: dict[str, list[Any]] = {}
    for name, value in catalog.all_names(Service.SIMPLE):
        projects.setdefault(name, []).append(value)
    for suffix, kind in (("html", simple_pages.TEXT_HTML), ("json", simple_pages.JSON)):
        _add(plan, f"simple/index.{suffix}", simple_pages.projects(list(projects), kind))
        for name, values in projects.items():
            _add(plan, f"simple/{name}/index.{suffix}", simple_pages.project(name, values, kind))
    for held in _held(catalog, Service.SIMPLE):
        if "filename" not in held.facts:
            continue
        path = f"simple/{held.scope}/{digests.hex_of(held.digest)}/{held.facts['filename']}"
        _add(plan, path, _Blob(held.digest, held.size))
        metadata = catalog.held(Service.SIMPLE, held.scope, digests.parse(held.facts["metadata"]))
        if metadata is not None:
            _add(plan, f"{path}.metadata", _Blob(metadata.digest, metadata.size))


def _plan_charts(plan: _Plan, catalog: Catalog) -> None:
    _add(plan, "charts/index.yaml", canonical.encode(index_of(catalog.all_names(Service.CHARTS))))
    for held in _held(catalog, Service.CHARTS):
        if held.scope.endswith(".prov"):
            continue
        path = f"charts/{digests.hex_of(held.digest)}/{held.scope}"
        _add(plan, path, _Blob(held.digest, held.size))
        signed = held.facts.get("provenance")
        provenance = catalog.held(Service.CHARTS, f"{held.scope}.prov", digests.parse(signed)) if signed else None
        if provenance is not None:
            _add(plan, f"{path}.prov", _Blob(provenance.digest, provenance.size))


def _plan_files(plan: _Plan, catalog: Catalog) -> None:
    for held in _held(catalog, Service.FILES):
        _add(plan, f"files/{digests.hex_of(held.digest)}/{held.scope}", _Blob(held.digest, held.size))
    listed = []
    for name in catalog.keys(Service.FILES):
        value = catalog.names(Service.FILES, name)[0]
        _add(plan, f"files/{name}", _Blob(digests.parse(value["digest"]), value["size"]))
        listed.append(
            {"name": name, "size": value["size"], "sha256": digests.hex_of(value["digest"]), "url": f"files/{name}"}
        )
    _add(plan, "files.json", canonical.encode({"files": listed}))


def _held(catalog: Catalog, service: Service) -> Iterator[Held]:
    for scope in catalog.scopes(service):
        yield from catalog.held_all(service, scope)


def _add(plan: _Plan, path: str, item: bytes | _Blob) -> None:
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise StoreError(f"exporting {path[:200]!r}: expected a path below the tree")
    if plan.setdefault(path, item) != item:
        raise StoreError(f"exporting {path}: two contents have this name")


def _is_whole(generation: Path, plan: _Plan, store: Store) -> bool:
    """Say whether a generation still is what was written; a blob that was mended in the store has another inode."""
    for path, item in plan.items():
        file = generation / path
        try:
            found = file.lstat()
            if isinstance(item, bytes):
                if fs.read_bounded(file, len(item)) != item:
                    return False
                continue
            kept = store.path(item.digest).lstat()
        except (OSError, StoreError):
            return False
        if found.st_size != item.size or (found.st_dev == kept.st_dev and found.st_ino != kept.st_ino):
            return False
    return True


def _switch(target: Path, state: str, plan: _Plan, store: Store) -> Path:
    token = secrets.token_hex(4)
    part = target.with_name(f".{target.name}.part.{token}")
    part.mkdir()
    part.chmod(0o755)
    made = {PurePosixPath(".")}
    for path in sorted(plan):
        _make_parents(part, PurePosixPath(path).parent, made)
        _put(part / path, plan[path], store)
    # One call for thousands of small files; a generation has its name only after all of it is durable.
    os.sync()
    generation = target.with_name(f"{target.name}.{state}.{token}")
    part.rename(generation)
    link = target.with_name(f".{target.name}.part.{token}.link")
    link.symlink_to(generation.name)
    fs.sync_directory(target.parent)
    link.replace(target)
    fs.sync_directory(target.parent)
    return generation


def _make_parents(root: Path, folder: PurePosixPath, made: set[PurePosixPath]) -> None:
    if folder in made:
        return
    _make_parents(root, folder.parent, made)
    try:
        (root / folder).mkdir()
    except FileExistsError:
        raise StoreError(f"exporting {folder}: one name is both a file and a directory of others") from None
    (root / folder).chmod(0o755)
    made.add(folder)


def _put(file: Path, item: bytes | _Blob, store: Store) -> None:
    if isinstance(item, bytes):
        file.write_bytes(item)
        file.chmod(0o644)
        return
    source = store.path(item.digest)
    if source.lstat().st_size != item.size:
        raise StoreError(
            f"exporting {item.digest}: expected {item.size} bytes, got {source.lstat().st_size}",
            hint="mend the store with: airlift check --repair",
        )
    try:
        os.link(source, file, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        verifier = Verifier(item.digest, item.size)
        with source.open("rb") as reader, file.open("xb") as writer:
            while chunk := reader.read(limits.CHUNK):
                verifier.update(chunk)
                writer.write(chunk)
        verifier.finish()
        file.chmod(0o644)


def _clean(target: Path, *, keep: str) -> None:
    """Remove what is neither shown nor being made: older generations, and the rests of killed exports."""
    for item in target.parent.iterdir():
        is_part = item.name.startswith(f".{target.name}.part.")
        tail = item.name[len(target.name) :] if item.name.startswith(f"{target.name}.") else ""
        if not is_part and (item.name == keep or not _GENERATION.fullmatch(tail)):
            continue
        if item.is_symlink():
            item.unlink()
        else:
            shutil.rmtree(item)
