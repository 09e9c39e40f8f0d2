"""Images of a docker daemon. The only place that talks to one; the SDK is loaded when the first is asked for.

A daemon forgets the digests of what it pulled, so its images get a manifest here: the daemon's own config, and the
layers exactly as ``docker save`` gives them. The same image gives the same digest everywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import tarfile
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from airlift import digest as digests
from airlift import fs, limits, oci
from airlift.digest import Digest
from airlift.errors import FetchError, IntegrityError, ResolveError
from airlift.oci import Descriptor
from airlift.progress import Progress
from airlift.store import Store

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_LAYER_ZSTD: Final = "application/vnd.oci.image.layer.v1.tar+zstd"
_TIMEOUT_S: Final = 600
_MAX_LINKS: Final = 8


@dataclass(frozen=True, slots=True)
class Part:
    """One blob of a saved image: what it is, and its member of the archive."""

    descriptor: Descriptor
    member: str


class Saved:
    """An image as ``docker save`` wrote it, in a work file without a name. Close it."""

    def __init__(self, name: str, file: IO[bytes]) -> None:
        self.name = name
        self._file = file
        self._closing = weakref.finalize(self, file.close)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                self._members = {member.name.removeprefix("./"): member for member in _bounded(archive, name)}
        except tarfile.TarError as error:
            raise IntegrityError(
                f"docker-daemon:{name}", expected="a tar from docker save", actual=str(error)
            ) from None
        document = self._json("manifest.json", list)
        if len(document) != 1 or not isinstance(document[0], dict):
            raise IntegrityError(
                f"docker-daemon:{name}", expected="one image in manifest.json", actual=str(len(document))
            )
        config, layers = document[0].get("Config"), document[0].get("Layers")
        if not isinstance(config, str) or not isinstance(layers, list):
            raise IntegrityError(f"docker-daemon:{name}", expected="Config and Layers", actual=repr(document)[:100])
        self.config_data = self._small(config)
        self.config = Part(oci.describe(self.config_data, oci.CONFIG), config)
        self.layers: Sequence[Part] = [self._layer(str(layer)) for layer in layers]

    def _json(self, member: str, kind: type) -> Any:
        try:
            value = json.loads(self._small(member))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, kind):
            raise IntegrityError(
                f"docker-daemon:{self.name}, {member}", expected=kind.__name__, actual=repr(value)[:60]
            )
        return value

    def _place(self, name: str) -> tarfile.TarInfo:
        """Return the regular member that a name stands for; older daemons write a layer once and link to it."""
        wanted = name
        for _ in range(_MAX_LINKS):
            found = self._members.get(wanted)
            if found is None or found.isreg():
                break
            folder = posixpath.dirname(wanted) if found.issym() else ""
            wanted = posixpath.normpath(posixpath.join(folder, found.linkname))
        else:
            found = None
        if found is None:
            raise IntegrityError(f"docker-daemon:{self.name}", expected=f"a member {name}", actual="none")
        return found

    def _small(self, name: str) -> bytes:
        if self._place(name).size > limits.SMALL_BLOB:
            raise IntegrityError(
                f"docker-daemon:{self.name}, {name}", expected=f"at most {limits.SMALL_BLOB} bytes", actual="more"
            )
        return b"".join(self.chunks(name))

    def _layer(self, member: str) -> Part:
        size, start = 0, b""
        state = hashlib.sha256()
        for chunk in self.chunks(member):
            start = start or chunk[:4]
            size += len(chunk)
            state.update(chunk)
        digest = digests.from_hex(state.hexdigest())
        kind = oci.LAYER_GZIP if start.startswith(_GZIP) else _LAYER_ZSTD if start.startswith(_ZSTD) else oci.LAYER
        return Part(Descriptor(kind, digest, size), member)

    def chunks(self, name: str, start: int = 0) -> Iterator[bytes]:
        """Yield a member's content from `start`; several threads may do so at once."""
        place = self._place(name)
        at, end = place.offset_data + start, place.offset_data + place.size
        with fs.guarded("reading a work file"):
            while at < end:
                chunk = os.pread(self._file.fileno(), min(limits.CHUNK, end - at), at)
                if not chunk:
                    raise IntegrityError(f"docker-daemon:{self.name}", expected="a whole archive", actual="a cut one")
                at += len(chunk)
                yield chunk

    def put_into(self, store: Store) -> None:
        """Copy config and layers into a store.

        Raises:
            StoreError: the disk refuses.
        """
        store.put_bytes(self.config_data)
        for part in self.layers:
            if not store.has(part.descriptor.digest):
                with store.put(part.descriptor.digest, part.descriptor.size) as writer:
                    for chunk in self.chunks(part.member):
                        writer.write(chunk)

    def find(self, digest: Digest) -> Part | None:
        """Return the part with this digest."""
        return next((part for part in (self.config, *self.layers) if part.descriptor.digest == digest), None)

    def close(self) -> None:
        """Forget the work file, which happens at the latest when the object goes."""
        self._closing()


def _bounded(archive: tarfile.TarFile, name: str) -> Iterator[tarfile.TarInfo]:
    for count, member in enumerate(archive):
        if count > limits.ARCHIVE_MEMBERS:
            raise IntegrityError(f"docker-daemon:{name}", expected=f"{limits.ARCHIVE_MEMBERS} members", actual="more")
        yield member


def save(name: str, *, environment: Mapping[str, str], work: Path, progress: Progress) -> Saved:
    """Return an image of the daemon that the environment names (``DOCKER_HOST``, else its usual socket).

    Args:
        name: ``NAME:TAG`` or an image id.
        environment: the process environment.
        work: directory for the work file.
        progress: told what is going on.

    Raises:
        ResolveError: the daemon has no such image.
        FetchError: there is no daemon, or it fails.
        IntegrityError: what it saves is no image.
        StoreError: the disk refuses.
    """
    import docker  # noqa: PLC0415 - the connected side's extra; most runs need no daemon
    import docker.errors  # noqa: PLC0415

    try:
        client = docker.DockerClient.from_env(environment=dict(environment), timeout=_TIMEOUT_S)
        try:
            image = client.images.get(name)
            progress.note(f"docker-daemon:{name}: saving {str(image.id)[:19]}")
            return Saved(name, _spool(image.save(chunk_size=limits.CHUNK, named=False), work))
        finally:
            client.close()
    except docker.errors.ImageNotFound:
        raise ResolveError(
            f"docker-daemon:{name}: the daemon has no such image", hint="see `docker image ls`, or build it first"
        ) from None
    except docker.errors.DockerException as error:
        raise FetchError(
            f"docker-daemon:{name}: {_line(error)}", hint="is the docker daemon running, and may this user talk to it?"
        ) from None
    except OSError as error:
        # The SDK lets the errors of its HTTP library out, which are OSErrors.
        raise FetchError(f"docker-daemon:{name}: {_line(error)}", temporary=True) from None


def _spool(chunks: Iterator[bytes], work: Path) -> IO[bytes]:
    with fs.guarded("writing a work file into"):
        work.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=work)  # noqa: SIM115 - handed on
    try:
        for chunk in chunks:
            with fs.guarded(f"writing a work file into {work}"):
                file.write(chunk)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
