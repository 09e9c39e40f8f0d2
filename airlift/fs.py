"""Writing files so that they are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airlift.errors import AirliftError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

_HINTS = {
    errno.ENOSPC: "free some space on that disk and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the disk is mounted read-only; mount it writable",
    errno.EACCES: "check the owner and mode of the directory",
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


@contextlib.contextmanager
def atomic(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a hidden part-file beside `path`; on success it is made durable and takes the name, else it vanishes.

    Args:
        path: the final name; its directory must exist.
        mode: the file's mode, whatever the umask.

    Raises:
        StoreError: the disk refuses.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with guarded("writing"), named(part, path):
        try:
            handle = os.open(
                part,
                os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
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
def named(part: Path, path: Path) -> Iterator[None]:
    """Let errors name the file that a person knows: a write's own has no name, the part-file's name says nothing."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(part)):
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
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise StoreError(f"reading {path}: larger than {limit} bytes")
    return data
