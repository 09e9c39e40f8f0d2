"""The mirrors of a site as a directory that any web server serves; one rename switches from one state to the next.

``DIR`` is a symbolic link to a generation beside it, ``DIR.<state>.<random>``. A generation gets its name when it is
whole and durable, then the link is replaced; a kill at any step leaves the link on a whole one. The generation before
stays until the next switch, since a server may be on its way through it; older ones go.

Pages show the active drops, and content stands under its digest as long as a drop that has it is kept: a client that
read a page before the switch finds its files after it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from airlift import canonical, fs, limits
from airlift import digest as digests
from airlift.digest import Verifier
from airlift.errors import StoreError, UsageError
from airlift.progress import Progress
from airlift.site.catalog import Catalog
from airlift.site.config import Site
from airlift.site.static_plan import Blob, Item, Link, Plan, plan_of
from airlift.store import Store

_GENERATION: Final = re.compile(r"\.[0-9a-f]{32}\.[0-9a-f]{8}")
_NO_LINK: Final = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Export:
    """What `export` did.

    Attributes:
        state: names the content; equal states are equal trees.
        generation: the directory that the link points to.
        files: how many files and links it has.
        changed: whether the link was moved.
        skipped: mirror to the reason why it is not in the tree.
    """

    state: str
    generation: Path
    files: int
    changed: bool
    skipped: dict[str, str]


def export(site: Site, target: Path, progress: Progress) -> Export:
    """Let `target` show the active drops of a site.

    Raises:
        UsageError: `target` is there and not a link that an export made.
        StoreError: the disk refuses, or two contents have one name.
        PolicyError: two names cannot both be files.
        IntegrityError: a blob that has to be copied is damaged.
    """
    current = _current(target)
    registry = site.config.registry
    skipped = {} if registry is None else {"charts": f"they are in the registry {registry.url}"}
    with site.locked("exporting", progress):
        catalog = Catalog(site.journal_path, site.store)
        try:
            plan = plan_of(catalog, with_charts=registry is None)
        finally:
            catalog.close()
        described = {path: _described(item) for path, item in plan.items()}
        state = digests.hex_of(digests.of(canonical.encode(described)))[:32]
        with fs.guarded("exporting"), fs.named(target):
            is_same = current is not None and current.name.startswith(f"{target.name}.{state}.")
            is_changed = False
            if current is None or not is_same or not _is_whole(current, plan, site.store):
                is_changed = True
                # First, since the disk may be full of them.
                _clean(target, keep=current)
                try:
                    current = _switch(target, state, plan, site.store)
                except BaseException:
                    with contextlib.suppress(OSError):
                        _clean_parts(target)
                    raise
    return Export(state, current, len(plan), is_changed, skipped)


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


def _described(item: Item) -> str:
    match item:
        case Blob(digest=digest):
            return digest
        case Link(target=target):
            return f"-> {target}"
    return digests.of(item)


def _is_whole(generation: Path, plan: Plan, store: Store) -> bool:
    """Say whether a generation still is what was written; a blob that was mended in the store has another inode."""
    for path, item in plan.items():
        file = generation / path
        try:
            if isinstance(item, Link):
                if str(file.readlink()) != item.target:
                    return False
                continue
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


def _switch(target: Path, state: str, plan: Plan, store: Store) -> Path:
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
    (root / folder).mkdir()
    (root / folder).chmod(0o755)
    made.add(folder)


def _put(file: Path, item: Item, store: Store) -> None:
    if isinstance(item, bytes):
        file.write_bytes(item)
        file.chmod(0o644)
        return
    if isinstance(item, Link):
        file.symlink_to(item.target)
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


def _clean(target: Path, *, keep: Path | None) -> None:
    """Remove what is not shown: older generations, and the rests of killed exports."""
    _clean_parts(target)
    for item in target.parent.iterdir():
        tail = item.name[len(target.name) :] if item.name.startswith(f"{target.name}.") else ""
        if item != keep and _GENERATION.fullmatch(tail):
            _remove(item)


def _clean_parts(target: Path) -> None:
    for item in target.parent.iterdir():
        if item.name.startswith(f".{target.name}.part."):
            _remove(item)


def _remove(item: Path) -> None:
    if item.is_symlink():
        item.unlink()
    else:
        shutil.rmtree(item)
