"""`airlift open`: the plain OCI layout of a bundle, as one archive or as a directory.

Nothing takes its final name before every frame, every digest and the attest part were found right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from airlift import fs
from airlift.bundle import layout
from airlift.bundle.reader import Opened, PayloadMember
from airlift.digest import Digest
from airlift.errors import UsageError
from airlift.progress import Progress


def extract(opened: Opened, output: Path, progress: Progress) -> Digest:
    """Write the payload and return the content-id.

    Args:
        opened: an unlocked bundle, nothing of it read yet.
        output: ``*.tar`` for an oci-archive, else a directory that does not exist yet.
        progress: hears of the bytes.

    Raises:
        UsageError: the output exists.
        IntegrityError: a frame or digest is wrong.
        BundleError: the payload is malformed.
        StoreError: the disk refuses.
    """
    if output.exists() and (output.is_dir() or output.suffix != ".tar"):
        raise UsageError(f"{output} exists", hint="choose a new name, or remove it")
    if output.suffix == ".tar":
        _archive(opened, output, progress)
    else:
        _directory(opened, output, progress)
    return opened.content_id


def _archive(opened: Opened, output: Path, progress: Progress) -> None:
    with fs.atomic(output) as stream:
        for member in opened.payload():
            stream.write(layout.header(member.name, member.size))
            for chunk in _reported(member, progress):
                stream.write(chunk)
            stream.write(bytes(layout.padding(member.size)))
        stream.write(bytes(2 * layout.BLOCK))
        opened.attest()


def _directory(opened: Opened, output: Path, progress: Progress) -> None:
    with fs.whole_directory(output, "writing") as part:
        for folder in (part / "blobs", part / "blobs" / "sha256"):
            fs.make_folder(folder)
        for member in opened.payload():
            with (part / member.name).open("xb") as stream:
                for chunk in _reported(member, progress):
                    stream.write(chunk)
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)
                os.fsync(stream.fileno())
        opened.attest()


def _reported(member: PayloadMember, progress: Progress) -> Iterator[bytes | memoryview]:
    for chunk in member.chunks:
        progress.advance(len(chunk))
        yield chunk
