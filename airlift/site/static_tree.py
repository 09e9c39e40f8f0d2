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
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from airlift import canonical, fs, limits
from airlift import digest as digests
from airlift.digest import Verifier
from airlift.errors import IntegrityError, StoreError, UsageError
from airlift.progress import Progress
from airlift.site import kept, static_places
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
        TrustError: another trust file was pinned while this waited.
        StoreError: the disk refuses, two contents have one name, or the list of trees is damaged.
        PolicyError: two names cannot both be files.
        IntegrityError: a blob that has to be copied is damaged.
    """
    # A wrong name is told before anybody waits.
    current(target)
    registry = site.config.registry
    skipped = {} if registry is None else {"charts": f"they are in the registry {registry.url}"}
    with kept.changing(site, "exporting", progress):
        # Not the one of before: another export may have moved the link while this one waited.
        now = current(target)
        places = static_places.known(site)
        catalog = Catalog(site.journal_path, site.store)
        try:
            plan = plan_of(catalog, with_charts=registry is None)
        finally:
            catalog.close()
        state = _state(plan)
        with fs.guarded("exporting"), fs.named(target):
            is_changed = False
            if now is None or not is_of(now, target, plan) or any(differences(now, plan, site.store, progress)):
                is_changed = True
                # First, since the disk may be full of them.
                _clean(target, keep=now)
                try:
                    now = _switch(target, state, plan, site.store)
                except BaseException:
                    with contextlib.suppress(OSError):
                        _clean_parts(target)
                    raise
        # Not before, since a path that was mistyped would have to be taken out by hand.
        static_places.remember(site, places, target, progress)
    return Export(state, now, len(plan), is_changed, skipped)


def current(target: Path) -> Path | None:
    """Return the generation that a link points to, whether that is there or not; None where there is no link.

    Raises:
        UsageError: something else than a link of an export is there.
        StoreError: the directory that it is in cannot be read.
    """
    if not target.name:
        raise UsageError(f"{target} has no name that a link could have")
    with fs.guarded("reading"):
        if not target.is_symlink():
            if target.exists():
                raise UsageError(
                    f"{target} exists and is no export",
                    hint="choose a name that is free; the export makes a link there",
                )
            return None
        pointed = str(target.readlink())
    if not pointed.startswith(target.name) or not _GENERATION.fullmatch(pointed[len(target.name) :]):
        raise UsageError(f"{target} is a link to {pointed[:200]}, which no export made", hint="choose another name")
    return target.with_name(pointed)


def is_of(generation: Path, target: Path, plan: Plan) -> bool:
    """Say whether a generation was made of this plan."""
    return generation.name.startswith(f"{target.name}.{_state(plan)}.")


def _state(plan: Plan) -> str:
    described = {path: _described(item) for path, item in plan.items()}
    return digests.hex_of(digests.of(canonical.encode(described)))[:32]


def _described(item: Item) -> str:
    match item:
        case Blob(digest=digest):
            return digest
        case Link(target=target):
            return f"-> {target}"
    return digests.of(item)


def differences(generation: Path, plan: Plan, store: Store, progress: Progress) -> Iterator[tuple[str, str]]:
    """Yield path and problem of what is not as an export would write it.

    A file that is the store's own is not read here: who hashes the store has read it.

    Args:
        generation: the directory that the link points to.
        plan: what it has to hold.
        store: what blobs are links into, where they are.
        progress: hears of the files.
    """
    for path, item in plan.items():
        if (problem := _problem(generation / path, item, store)) is not None:
            yield path, problem
        progress.advance(1)
    for folder, folders, files in os.walk(generation):
        here = Path(folder)
        for name in [*files, *(name for name in folders if (here / name).is_symlink())]:
            path = str((here / name).relative_to(generation))
            if path not in plan:
                yield path, "is there, and no export made it"


def _problem(file: Path, item: Item, store: Store) -> str | None:
    try:
        return _link_problem(file, item) if isinstance(item, Link) else _file_problem(file, item, store)
    except FileNotFoundError:
        return "missing"
    except IntegrityError as error:
        return f"damaged: its bytes have the digest {error.actual}"
    except StoreError as error:
        return f"cannot be read: {error.message}"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _link_problem(file: Path, link: Link) -> str | None:
    if not file.is_symlink():
        return "missing" if not file.exists() else f"is no link, expected one to {link.target}"
    elsewhere = str(file.readlink())
    return None if elsewhere == link.target else f"points to {elsewhere[:200]}, expected {link.target}"


def _file_problem(file: Path, item: bytes | Blob, store: Store) -> str | None:
    status = file.lstat()
    size = len(item) if isinstance(item, bytes) else item.size
    if not stat.S_ISREG(status.st_mode):
        return "is no file"
    if status.st_size != size:
        return f"damaged: {status.st_size} bytes, expected {size}"
    if isinstance(item, bytes):
        return None if fs.read_bounded(file, size) == item else "damaged: another content than the drops give"
    if not _is_same(status, store.path(item.digest)):
        _verify(file, item)
    return None


def _is_same(status: os.stat_result, kept: Path) -> bool:
    with contextlib.suppress(OSError):
        found = kept.lstat()
        return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)
    return False


def _verify(file: Path, item: Blob) -> None:
    verifier = Verifier(item.digest, item.size)
    with file.open("rb") as reader:
        while chunk := reader.read(limits.CHUNK):
            verifier.update(chunk)
    verifier.finish()


def _switch(target: Path, state: str, plan: Plan, store: Store) -> Path:
    token = secrets.token_hex(4)
    part = target.with_name(f".{target.name}.part.{token}")
    fs.make_folder(part)
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
    fs.make_folder(root / folder)
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
            hint="airlift check says what is damaged, and --repair BUNDLE mends it from the drop's bundle",
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
