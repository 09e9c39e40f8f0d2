"""Air-gap tarballs: OCI layouts that K3s imports from ``agent/images`` (and `ctr images import` from anywhere).

* The same image gives the same bytes everywhere; the file is named by the digest of its bytes and never replaced.
* The image's own index is kept, so that the running digest is the one that was shipped; of the platforms only the
  node's is there (K3s imports with all platforms and skips what is missing).
* Each entry of ``index.json`` has one full ``host/path:tag`` in ``io.containerd.image.name``: one bad name makes K3s
  mark the whole file as failed, and none makes it skip the image without a word.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from airlift import canonical, digest, fs, limits, oci
from airlift.digest import Digest, Verifier
from airlift.errors import DeployError, IntegrityError
from airlift.oci import Descriptor
from airlift.site.deploy.blobs import BlobSource, copy_checked
from airlift.site.deploy.files import Action, Measure, PlannedFile, Sink, locate
from airlift.site.deploy.images import NodeImage

FOLDER: Final = PurePosixPath("var/lib/rancher/k3s/agent/images")
LAST: Final = "zz-"
"""Sorts after every other file: the kubelet starts only when the last file is in."""
TINY: Final = 16 * limits.MIB

_BLOCK: Final = tarfile.BLOCKSIZE
_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    size: int
    digest: Digest
    write: Callable[[Sink], None]

    @property
    def header(self) -> bytes:
        info = tarfile.TarInfo(self.name)
        info.size = self.size
        info.mode = _MODE
        # GNU's form writes sizes of 8 GiB and more in base 256, which Go's reader takes; all below is plain ustar.
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")

    @property
    def padding(self) -> bytes:
        return bytes(-self.size % _BLOCK)


class ImageTar:
    """The tarball of one image under one or more tags of one repository."""

    def __init__(self, images: Sequence[NodeImage], source: BlobSource) -> None:
        """Lay it out.

        Args:
            images: the same content under different names.
            source: where its blobs are.

        Raises:
            DeployError: a name has no tag.
        """
        self.names = tuple(sorted(_tarball_name(image) for image in images))
        first = images[0]
        index = canonical.encode(
            {
                "schemaVersion": 2,
                "mediaType": oci.INDEX,
                "manifests": [_entry(first.artifact.root, name).to_json() for name in self.names],
            }
        )

        def blob(descriptor: Descriptor) -> _Member:
            return _Member(
                f"blobs/sha256/{digest.hex_of(descriptor.digest)}",
                descriptor.size,
                descriptor.digest,
                lambda sink: copy_checked(source, first.artifact, descriptor, sink),
            )

        self._members = (
            _document("oci-layout", oci.LAYOUT_FILE),
            _document("index.json", index),
            *(blob(item) for item in first.blobs),
        )

    @property
    def size(self) -> int:
        """Size of the whole file."""
        return sum(_BLOCK + item.size + len(item.padding) for item in self._members) + 2 * _BLOCK

    def write(self, sink: Sink) -> None:
        """Write it; every blob is checked on its way.

        Raises:
            IntegrityError: a blob is damaged.
            StoreError, DeliveryError: a blob cannot be read.
        """
        for item in self._members:
            sink.write(item.header)
            item.write(sink)
            sink.write(item.padding)
        sink.write(bytes(2 * _BLOCK))

    def find(self, root: Path, prefix: str) -> PlannedFile | None:
        """Return the file of an earlier run that is exactly this tarball, read and checked, or None.

        Raises:
            DeployError: a symbolic link leads out of the root.
            StoreError: the disk cannot be read.
        """
        folder = locate(root, FOLDER / "x").parent
        for path in sorted(folder.glob(f"{prefix}{'[0-9a-f]' * 64}.tar")):
            with fs.guarded("reading"):
                if path.stat().st_size != self.size or path.stat().st_mode & 0o7777 != _MODE:
                    continue
                with path.open("rb") as stream:
                    found = self._compare(stream)
            if found is not None and f"{prefix}{digest.hex_of(found)}.tar" == path.name:
                return PlannedFile(FOLDER / path.name, _MODE, self.size, found, Action.UNCHANGED, self.write)
        return None

    def _compare(self, stream: BinaryIO) -> Digest | None:
        measure = Measure()
        try:
            for item in self._members:
                verifier = Verifier(item.digest, item.size)
                if _take(stream, _BLOCK, measure) != item.header:
                    return None
                for chunk in _chunks(stream, item.size):
                    measure.write(chunk)
                    verifier.update(chunk)
                verifier.finish()
                if _take(stream, len(item.padding), measure) != item.padding:
                    return None
        except IntegrityError:
            return None
        return measure.digest if _take(stream, 2 * _BLOCK, measure) == bytes(2 * _BLOCK) else None


def _take(stream: BinaryIO, size: int, measure: Measure) -> bytes:
    data = stream.read(size)
    measure.write(data)
    return data


def _chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (chunk := stream.read(min(size, limits.CHUNK))):
        size -= len(chunk)
        yield chunk


def _document(name: str, data: bytes) -> _Member:
    return _Member(name, len(data), digest.of(data), lambda sink: sink.write(data))


def _tarball_name(image: NodeImage) -> str:
    name = image.reference
    if name.tag is None or name.digest is not None:
        raise DeployError(
            f"k3s.preload: {name} has no tag, and K3s skips an image in a tarball that has none",
            hint="the release engineer has to give the image a tag; workloads may still name it by digest",
        )
    return str(name)


def _entry(root: Descriptor, name: str) -> Descriptor:
    annotations = {oci.IMAGE_NAME: name, oci.REF_NAME: name}
    return Descriptor(root.media_type, root.digest, root.size, annotations, root.platform, root.artifact_type)


def plan_tarballs(
    root: Path, preload: Sequence[NodeImage], others: Sequence[NodeImage], source: BlobSource
) -> tuple[PlannedFile, ...]:
    """Return the plans for the tarballs of these images; one of the smallest gets a name that sorts last.

    Args:
        root: what stands for ``/`` of the node.
        preload: the images that the manifest lists.
        others: images that the node will need anyway, in case all of `preload` are big.
        source: where blobs are.

    Raises:
        DeployError: a name has no tag, or a file is in the way.
        IntegrityError: a blob is damaged.
        StoreError, DeliveryError: something cannot be read.
    """
    if not preload:
        return ()
    last = min(preload, key=_by_size)
    if last.size > TINY:
        last = min([*preload, *(image for image in others if image.reference.tag)], key=_by_size)
    groups: dict[tuple[str, Digest], list[NodeImage]] = {}
    for image in {str(item.reference): item for item in [*preload, last]}.values():
        groups.setdefault((image.reference.name, image.artifact.root.digest), []).append(image)
    plans = []
    for group in groups.values():
        prefix = LAST if any(image.reference == last.reference for image in group) else ""
        plans.append(_plan(root, ImageTar(group, source), prefix))
    # The one that sorts last is written last, too: a running K3s imports in the order in which files appear.
    return tuple(sorted(plans, key=lambda item: item.path.name))


def _by_size(image: NodeImage) -> tuple[int, str]:
    return image.size, str(image.reference)


def _plan(root: Path, tar: ImageTar, prefix: str) -> PlannedFile:
    found = tar.find(root, prefix)
    if found is not None:
        return found
    measure = Measure()
    tar.write(measure)
    path = FOLDER / f"{prefix}{digest.hex_of(measure.digest)}.tar"
    place = locate(root, path)
    if place.exists() or place.is_symlink():
        # K3s does not notice a replacement of the same size, so a file is never replaced under its name.
        raise DeployError(
            f"{place} exists already with other content", hint="it is damaged: remove it and run the same command again"
        )
    return PlannedFile(path, _MODE, measure.written, measure.digest, Action.CREATE, tar.write)


def kept(root: Path, plans: Sequence[PlannedFile]) -> tuple[PurePosixPath, ...]:
    """Return the tarballs of ours that an earlier drop brought and this one does not: they stay, images pinned.

    Raises:
        StoreError: the disk cannot be read.
    """
    now = {item.path for item in plans}
    folder = locate(root, FOLDER / "x").parent
    found = [*folder.glob(f"{'[0-9a-f]' * 64}.tar"), *folder.glob(f"{LAST}{'[0-9a-f]' * 64}.tar")]
    return tuple(path for path in sorted(FOLDER / item.name for item in found) if path not in now)
