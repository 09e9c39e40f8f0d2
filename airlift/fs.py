"""Writing files so that they are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airlift.errors import AirliftError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_IN_THE_WAY = "something else is there: look at it, move it away, and run the same command again"
_HINTS = {
    errno.ENOSPC: "free some space on that disk and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the disk is mounted read-only; mount it writable",
    errno.EACCES: "check the owner and mode of the directory",
    errno.ENOENT: "see whether the path is right and its disk is mounted",
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: "a directory is where a file belongs: see whether the path is right, else move it away",
    errno.ENOTEMPTY: _IN_THE_WAY,
    errno.ENOTDIR: "a file is where a directory belongs: see whether the path is right, else move it away",
    errno.EPERM: "check the owner and mode of the directory",
    errno.EFBIG: (
        "the medium does not take files of this size (FAT has a limit of 4 GiB); use ext4, xfs or exFAT; "
        "splitting into volumes (--volume-size) comes with a later release"
    ),
}


def store_error(doing: str, error: OSError) -> StoreError:
    """Return `error` in our words: what was being done, to which file, and the remedy."""
    name = f" {error.filename}" if error.filename else ""
    return StoreError(f"{doing}{name}: {error.strerror or error}", hint=_HINTS.get(error.errno or 0))


@contextlib.contextmanager
def guarded(doing: str) -> Iterator[None]:
    """Let `OSError` out as `StoreError` and everything of ours as it is."""
    try:
        yield
    except AirliftError:
        raise
    except OSError as error:
        raise store_error(doing, error) from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a directory that everybody may look into, whatever the umask; one that is there stays as it is.

    Raises:
        OSError: the disk refuses.
    """
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


def part_file(folder: Path, stem: str) -> tuple[Path, int]:
    """Make ``STEM.PID.RANDOM.part``, which `remove_abandoned` leaves alone as long as it is open.

    Raises:
        OSError: the disk refuses.
    """
    while True:
        path = folder / f"{stem}.{os.getpid()}.{secrets.token_hex(4)}.part"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if _is_claimed(handle):
            return path, handle
        os.close(handle)


def _is_claimed(handle: int) -> bool:
    # A disk without locks has none in `remove_abandoned` either.
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_SH)
    # Without a name, it was taken for a leftover before it was locked.
    return os.fstat(handle).st_nlink > 0


def parts_of(folder: Path, stem: str) -> list[Path]:
    """Return the part-files and work directories of a stem, used or left behind."""
    return sorted(folder.glob(f"{glob.escape(stem)}.[0-9]*.part"))


def remove_abandoned(parts: Iterable[Path]) -> None:
    """Remove what killed runs left; what somebody is writing right now stays, and so does what cannot be removed."""
    for part in parts:
        with contextlib.suppress(OSError):
            handle = os.open(part, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISDIR(os.fstat(handle).st_mode):
                    shutil.rmtree(part)
                else:
                    part.unlink()
            finally:
                os.close(handle)


@contextlib.contextmanager
def work_directory(parent: Path, stem: str) -> Iterator[Path]:
    """Give a hidden directory of its own; it vanishes at the end, after a kill with the next of that stem.

    Args:
        parent: where; made when it is missing.
        stem: what it is for.

    Raises:
        StoreError: the disk refuses.
    """
    with guarded("creating"):
        parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(parts_of(parent, f".{stem}"))
        try:
            path, handle = _claimed_directory(parent, stem)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(parent)) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


def _claimed_directory(parent: Path, stem: str) -> tuple[Path, int]:
    while True:
        path = parent / f".{stem}.{os.getpid()}.{secrets.token_hex(4)}.part"
        path.mkdir(mode=0o700)
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        if _is_claimed(handle):
            return path, handle
        os.close(handle)


@contextlib.contextmanager
def whole_directory(path: Path, doing: str) -> Iterator[Path]:
    """Give a hidden directory beside `path` to fill; on success it is durable and takes the name, else it vanishes.

    What a killed run left of the same directory is removed first.

    Args:
        path: the final name; what is there already has to be an empty directory.
        doing: what is being done, for messages.

    Raises:
        StoreError: the disk refuses.
    """
    with guarded(doing), named(path):
        # Made by whoever asks for a directory in it, and not by us.
        path.parent.stat()
    with work_directory(path.parent, path.name) as part, guarded(doing), named(path):
        yield part
        part.chmod(0o755)
        for folder, _, _ in os.walk(part, topdown=False):
            sync_directory(Path(folder))
        part.rename(path)
        sync_directory(path.parent)


@contextlib.contextmanager
def alone(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Keep every other process that asks for the same directory out; wait until none is in.

    Args:
        folder: there already; nothing is written to it.
        waiting: is called when there is somebody to wait for.

    Raises:
        StoreError: it cannot be opened, or its disk has no locks.
    """
    with guarded("opening"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with guarded(f"locking {folder}"):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a hidden part-file beside `path`; on success it is made durable and takes the name, else it vanishes.

    What a killed run left of the same file is removed first.

    Args:
        path: the final name; its directory must exist.
        mode: the file's mode, whatever the umask.

    Raises:
        StoreError: the disk refuses.
    """
    stem = f".{path.name}"
    with guarded("writing"), named(path):
        remove_abandoned(parts_of(path.parent, stem))
        part, handle = part_file(path.parent, stem)
        try:
            with os.fdopen(handle, "w+b") as stream:
                yield stream
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
                part.replace(path)
            sync_directory(path.parent)
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()


@contextlib.contextmanager
def named(path: Path) -> Iterator[None]:
    """Let errors name the file that a person knows: a write's own has no name, the part-file's name says nothing."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename).startswith(str(path.with_name(f".{path.name}."))):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a whole file in one step.

    Raises:
        StoreError: the disk refuses.
    """
    with atomic(path, mode=mode) as stream:
        stream.write(data)


def read_bounded(path: Path, limit: int) -> bytes:
    """Return a file's content of at most `limit` bytes.

    Raises:
        StoreError: it cannot be read, or is larger.
    """
    with guarded("reading"), path.open("rb") as stream:
        # Room for what is there: read() takes at once what it is asked for, be it the largest index that there may be.
        room = min(os.fstat(stream.fileno()).st_size, limit) + 1
        data = stream.read(room)
        while len(data) == room <= limit:
            # It grew, or is one of those files that have no size.
            room = min(2 * room, limit + 1)
            data += stream.read(room - len(data))
    if len(data) > limit:
        raise StoreError(f"reading {path}: larger than {limit} bytes")
    return data


def first_line(path: Path, limit: int) -> str:
    """Return the first line of a file of at most `limit` bytes, such as a password.

    Raises:
        StoreError: it cannot be read, or is larger.
    """
    return read_bounded(path, limit).split(b"\n", 1)[0].rstrip(b"\r").decode("utf-8", "replace")
