"""A wheel source that sees an index on loopback and nothing of the machine's own pip configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airlift.connected.source import Settings
from airlift.connected.sources.wheels import WheelSource
from airlift.manifest import Python, Target
from airlift.store import Store
from airlift.transport.http import HttpSettings
from tests.support.listener import Listener

GLIBC = Target(python="3.12", platform="linux/amd64", libc="glibc-2.28")
MUSL = Target(python="3.11", platform="linux/arm64", libc="musl-1.2")


@dataclass
class Bench:
    """A connected machine: directory, cache, pip configuration."""

    root: Path
    url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    has_cache: bool = True

    def __post_init__(self) -> None:
        self.listener = Listener()
        self.cache = Store(self.root / "cache").create() if self.has_cache else None
        home = self.root / "home"
        home.mkdir(exist_ok=True)
        own = {"PATH": os.environ["PATH"], "HOME": str(home), "PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": self.url}
        self.settings = Settings(
            self.root,
            self.root / "work",
            self.cache,
            ("linux/amd64",),
            HttpSettings(retries=0, timeout_s=10),
            environment={**own, **self.environment},
            progress=self.listener,
        )

    def source(self) -> WheelSource:
        return WheelSource(self.settings)

    def resolve(self, *packages: str, targets: list[Target] | None = None, **request: Any) -> Any:
        made = Python(name="web", packages=list(packages), targets=targets or [GLIBC], **request)
        return self.source().resolve(made, None)


def pins(entry: Any) -> dict[str, list[str]]:
    """Return file names by target."""
    names = {}
    for blob in entry.artifacts[0].small:
        if blob.text and "org.opencontainers.image.title" in blob.text:
            names[blob.digest] = blob.text.split('"org.opencontainers.image.title":"')[1].split('"')[0]
    return {
        item["target"]: [names[digest] for digest in item["wheels"]]
        for item in entry.artifacts[0].artifact.facts["targets"]
    }
