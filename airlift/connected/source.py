"""What a source is: where artifacts of one kind come from, on the connected side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from airlift.canonical import JsonObject
from airlift.lock import LockedBlob, LockedEntry
from airlift.progress import Progress, Silent
from airlift.store import Store
from airlift.transport.http import HttpSettings

RequestT_contra = TypeVar("RequestT_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Settings:
    """What sources know of the machine; the command line reads it, the library is given it.

    Attributes:
        base: directory that the manifest's relative paths start from.
        work: directory for work files, on a disk that the user chose (beside the output or in the cache).
        cache: store of what was fetched or made before, or None with ``--no-cache``.
        platforms: the manifest's platforms, ``os/architecture[/variant]``.
        http: certificates, proxies, time-outs.
        docker_config: content of docker's ``config.json`` (auths, credHelpers), {} without one.
        environment: the process environment, for programs that we start (pip's worker, helm, credential helpers).
        progress: listener.
        deployed: what the manifest deploys: a chart's name, and the values files that it gets.
    """

    base: Path
    work: Path
    cache: Store | None
    platforms: tuple[str, ...]
    http: HttpSettings
    docker_config: JsonObject = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = field(default_factory=Silent)
    deployed: tuple[tuple[str, tuple[str, ...]], ...] = ()


class BlobSink(Protocol):
    """Takes the bytes of one blob, in order."""

    @property
    def written(self) -> int:
        """Bytes taken so far; a transfer that was cut goes on from here and never gives a byte twice."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes (any length). The caller may reuse the buffer afterwards."""


class Source(Protocol[RequestT_contra]):
    """Where artifacts of one kind come from. Constructed with `Settings`; used from many threads."""

    def resolve(self, request: RequestT_contra, previous: LockedEntry | None) -> LockedEntry:
        """Pin `request` by digest and size.

        Args:
            request: the manifest's entry.
            previous: what the last lock has for this entry when it is to be moved (``--update``), for what may stay.

        Must not write outside the cache and the work directory. The entry's ``request`` is filled in by the resolver.
        """

    def fetch(self, entry: LockedEntry, blob: LockedBlob, sink: BlobSink) -> None:
        """Stream one blob of an entry into `sink`, from byte ``sink.written`` on.

        Called for blobs without ``text`` only, from several threads at once, each blob by one of them. Must be safe to
        repeat. The sink checks the digest; the source resumes cuts and reports what the other side said.
        """
