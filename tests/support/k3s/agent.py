"""What K3s does with the files of a node that its containerd is to know: registries.yaml and the tarballs of images.

Of registries.yaml it makes a hosts.toml for each mirror, with the certificates of the endpoint's host, and puts the
logins into containerd's own configuration, which is read at a start only. As K3s with
``disable-default-registry-endpoint`` it asks nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
        value = (yaml.safe_load(place.read_text()) if place.exists() else None) or {}
        configs: dict[str, Any] = value.get("configs", {})
        for host, mirror in value.get("mirrors", {}).items():
            (endpoint,) = mirror["endpoint"]
            parts = urlsplit(endpoint)
            # K3s finds what it knows of an endpoint by its host and port.
            ca = configs.get(parts.netloc, {}).get("tls", {}).get("ca_file")
            self.runtime.hosts(
                host,
                endpoint,
                override_path=parts.path not in ("", "/", "/v2"),
                ca=None if ca is None else self.root / ca.lstrip("/"),
            )
        self.runtime.log_in({host: config["auth"] for host, config in configs.items() if "auth" in config})

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
