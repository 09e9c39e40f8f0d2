"""What K3s does with the files of a node that its containerd is to know: registries.yaml and the tarballs of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from airlift.site.deploy.registries import PATH as REGISTRIES
from airlift.site.deploy.tarball import FOLDER
from tests.support.containerd import Containerd


@dataclass
class Agent:
    """Brings files to a containerd.

    Attributes:
        root: what stands for the node's ``/``.
    """

    root: Path
    runtime: Containerd
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def start(self) -> None:
        """Read registries.yaml, which happens at a start only; every tarball is read again after it."""
        self._seen.clear()
        self.runtime.forget_hosts()
        place = self.root / REGISTRIES
        if place.exists():
            for host, mirror in (yaml.safe_load(place.read_text()) or {}).get("mirrors", {}).items():
                (endpoint,) = mirror["endpoint"]
                self.runtime.hosts(host, endpoint, override_path=True)

    def import_images(self) -> list[str]:
        """Import what is new, by name and size; return what was said about those that cannot be."""
        said = []
        found = [path for path in (self.root / FOLDER).rglob("*.tar") if path.is_file()]
        for path in sorted(found, key=lambda item: item.stat().st_mtime_ns):
            key = (str(path), path.stat().st_size)
            if key not in self._seen:
                self._seen.add(key)
                try:
                    self.runtime.import_images(path)
                except AssertionError as error:
                    said.append(f"{path}: {error}")
        return said
