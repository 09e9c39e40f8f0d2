"""Images in an OCI image layout beside the manifest: a directory, or an uncompressed tar of one (oci-archive)."""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from airlift import digest as digests
from airlift import fs, limits, oci
from airlift.digest import Digest
from airlift.errors import IntegrityError, ResolveError
from airlift.oci import Descriptor, Manifest


class _Files(Protocol):
    def size(self, name: str) -> int | None:
        """Return a file's size, or None when there is none of that name."""

    def chunks(self, name: str, start: int) -> Iterator[bytes]:
        """Yield a file from `start`."""


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def size(self, name: str) -> int | None:
        path = self._root / name
        with fs.guarded("reading"):
            return path.stat().st_size if path.is_file() else None

    def chunks(self, name: str, start: int) -> Iterator[bytes]:
        with fs.guarded("reading"), (self._root / name).open("rb") as stream:
            stream.seek(start)
            yield from _pieces(stream)


class _Archive:
    """A tar: where each member starts is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: dict[str, tuple[int, int]] = {}
        try:
            with fs.guarded("reading"), tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.isreg():
                        self._members[member.name.removeprefix("./")] = (member.offset_data, member.size)
                    if len(self._members) > limits.ARCHIVE_MEMBERS:
                        raise IntegrityError(
                            str(path), expected=f"at most {limits.ARCHIVE_MEMBERS} members", actual="more"
                        )
        except tarfile.TarError as error:
            raise ResolveError(
                f"{path.name}: not an uncompressed tar of an OCI layout: {error}",
                hint="make one with `skopeo copy ... oci-archive:FILE`, or give a layout directory",
            ) from None

    def size(self, name: str) -> int | None:
        found = self._members.get(name)
        return None if found is None else found[1]

    def chunks(self, name: str, start: int) -> Iterator[bytes]:
        offset, size = self._members[name]
        with fs.guarded("reading"), self._path.open("rb") as stream:
            stream.seek(offset + start)
            yield from _pieces(stream, size - start)


def _pieces(stream: BinaryIO, left: int = limits.BLOB) -> Iterator[bytes]:
    while left > 0 and (chunk := stream.read(min(left, limits.CHUNK))):
        left -= len(chunk)
        yield chunk


class Layout:
    """A layout on disk.

    Args:
        path: the directory or tar.
        shown: what the manifest calls it, for messages.
    """

    def __init__(self, path: Path, shown: str) -> None:
        self.shown = shown
        if not path.exists():
            raise ResolveError(
                f"{shown}: there is no such file or directory", hint="paths are relative to the manifest"
            )
        self._files: _Files = _Folder(path) if path.is_dir() else _Archive(path)
        self._lock = threading.Lock()
        self._entries: tuple[Descriptor, ...] | None = None
        self._named: dict[str, dict[Digest, Descriptor]] | None = None
        self._referrers: dict[Digest, list[Descriptor]] | None = None

    def read(self, name: str, limit: int, missing: str) -> bytes:
        """Return a small file.

        Raises:
            ResolveError: it is not there; `missing` says what that means.
            IntegrityError: it is larger than `limit`.
        """
        size = self._files.size(name)
        if size is None:
            raise ResolveError(f"{self.shown}: {missing}")
        if size > limit:
            raise IntegrityError(f"{self.shown}, {name}", expected=f"at most {limit} bytes", actual=f"{size} bytes")
        return b"".join(self._files.chunks(name, 0))

    def has(self, blob: Descriptor) -> bool:
        """Say whether a blob is here, judged by its name.

        Raises:
            IntegrityError: it is, in another size.
        """
        size = self._files.size(_place(blob.digest))
        if size is not None and size != blob.size:
            raise IntegrityError(f"{self.shown}, {blob.digest}", expected=f"{blob.size} bytes", actual=f"{size} bytes")
        return size is not None

    def blob(self, blob: Descriptor) -> bytes:
        """Return a small blob, verified."""
        limit = min(blob.size, limits.SMALL_BLOB)
        data = self.read(_place(blob.digest), limit, f"{blob.digest} is not in the layout")
        return digests.check(data, blob.digest, subject=f"{self.shown}, {blob.digest}")

    def chunks(self, digest: Digest, start: int) -> Iterator[bytes]:
        """Yield a blob from `start`.

        Raises:
            ResolveError: it is not there.
        """
        if self._files.size(_place(digest)) is None:
            raise ResolveError(
                f"{self.shown}: {digest} is not in the layout any more", hint="run airlift resolve again"
            )
        return self._files.chunks(_place(digest), start)

    def entries(self) -> tuple[Descriptor, ...]:
        """Return what ``index.json`` lists.

        Raises:
            ResolveError: this is no layout.
            IntegrityError: its index is malformed.
        """
        with self._lock:
            return self._listed()

    def _listed(self) -> tuple[Descriptor, ...]:
        if self._entries is None:
            mark = self.read("oci-layout", limits.SMALL_BLOB, "no file oci-layout, so not an OCI image layout")
            if not _is_mark(mark):
                raise IntegrityError(f"{self.shown}, oci-layout", expected="version 1", actual=repr(mark[:60]))
            data = self.read("index.json", limits.INDEX_DOCUMENT, "no index.json, so not an OCI image layout")
            index = oci.parse_manifest(
                data,
                subject=f"{self.shown}, index.json",
                media_type=oci.INDEX,
                limit=limits.INDEX_DOCUMENT,
            )
            self._entries = index.manifests
        return self._entries

    def named(self, name: str) -> tuple[Descriptor, ...]:
        """Return what answers to a name, tag or ``@sha256:...``, each content once.

        Raises:
            ResolveError, IntegrityError: see `entries`.
        """
        with self._lock:
            if self._named is None:
                self._named = {}
                for item in self._listed():
                    for answer in _names(item):
                        self._named.setdefault(answer, {})[item.digest] = item
            return tuple(self._named.get(name, {}).values())

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """Return what is listed and says that it refers to a digest. All that is listed is read, once.

        Raises:
            ResolveError, IntegrityError: see `entries`; or a manifest is malformed.
        """
        with self._lock:
            if self._referrers is None:
                found: dict[Digest, list[Descriptor]] = {}
                for item in self._listed():
                    if item.media_type in oci.INDEX_TYPES | oci.MANIFEST_TYPES and self.has(item):
                        subject = self.manifest(item, f"{self.shown}, {item.digest}").subject
                        if subject is not None:
                            found.setdefault(subject.digest, []).append(item)
                self._referrers = found
            return tuple(self._referrers.get(digest, ()))

    def manifest(self, descriptor: Descriptor, subject: str) -> Manifest:
        """Return a manifest, verified; `subject` is whose, for messages.

        Raises:
            ResolveError: it is not there.
            IntegrityError: it is malformed.
        """
        return oci.parse_manifest(self.blob(descriptor), subject=subject, media_type=descriptor.media_type)


def _is_mark(data: bytes) -> bool:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and str(value.get("imageLayoutVersion", "")).startswith("1.")


def _place(digest: Digest) -> str:
    return f"blobs/sha256/{digests.hex_of(digest)}"


class LayoutOrigin:
    """One image of a layout (`airlift.connected.image_origin.Origin`).

    Args:
        layout: the layout.
        path: what the lock notes as its path.
        reference: a name, tag or ``@sha256:...`` of ``index.json``, or None where it lists one image only.
    """

    def __init__(self, layout: Layout, path: str, reference: str | None) -> None:
        self._layout = layout
        self._path = path
        self._reference = reference

    @property
    def name(self) -> str:
        """What the manifest calls it."""
        return f"oci-layout:{self._path}" + (f":{self._reference}" if self._reference else "")

    def root(self) -> Manifest:
        """See `Origin`."""
        entries = self._layout.entries()
        listed = entries if self._reference is None else self._layout.named(self._reference)
        found = {item.digest: item for item in listed}
        if len(found) != 1:
            known = sorted({name for item in entries for name in _names(item)[:1]})
            what = "lists no such image" if not found else f"lists {len(found)} images that answer"
            raise ResolveError(
                f"{self.name}: its index.json {what}; there is {', '.join(known) or 'nothing'}",
                hint="write oci-layout:PATH:NAME with a name of that list",
            )
        return self.manifest(next(iter(found.values())))

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """See `Origin`."""
        subject = f"{self.name}, {descriptor.digest}"
        if not self._layout.has(descriptor):
            platform = f" ({descriptor.platform})" if descriptor.platform else ""
            raise ResolveError(
                f"{self.name}: {descriptor.digest}{platform}, which its index names, is not in the layout"
            )
        return self._layout.manifest(descriptor, subject)

    def small(self, descriptor: Descriptor) -> bytes:
        """See `Origin`."""
        self._layout.has(descriptor)
        return self._layout.blob(descriptor)

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...]:
        """See `Origin`: what the layout lists with that subject."""
        return self._layout.referrers(digest)

    def tagged(self, tag: str) -> Descriptor | None:
        """See `Origin`."""
        return next(iter(self._layout.named(tag)), None)

    def found_at(self, blob: Descriptor) -> Mapping[str, str]:
        """See `Origin`."""
        if not self._layout.has(blob):
            raise ResolveError(f"{self.name}: {blob.digest} ({blob.media_type}) is not in the layout")
        return {"path": self._path}


def _names(item: Descriptor) -> list[str]:
    """Return everything an entry answers to."""
    names = [item.annotations[key] for key in (oci.REF_NAME, oci.IMAGE_NAME) if item.annotations.get(key)]
    tags = [tail for name in names if (tail := name.rpartition(":")[2]) and "/" not in tail]
    return list(dict.fromkeys([*names, *tags, f"@{item.digest}"]))
