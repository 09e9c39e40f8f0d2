"""Tarballs of images in a node's folder, put there by somebody else than `airlift deploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airlift.artifact import Artifact
from airlift.site.deploy.blobs import StoreBlobs
from airlift.site.deploy.images import Images
from airlift.site.deploy.tarball import ImageTar
from tests.support.drops import AMD64, Drops


def write_tarball(place: Path, drops: Drops, artifact: Artifact) -> None:
    """Write an image into a tarball, which appears whole."""
    source = StoreBlobs(drops.store)
    on_node = Images([drops.config()], source).on_node(artifact, AMD64)
    part = place.with_suffix(".part")
    with part.open("wb") as stream:
        ImageTar([on_node], source).write(_Sink(stream))
    part.rename(place)


class _Sink:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += self._stream.write(data)
