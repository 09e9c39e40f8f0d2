"""What sources are given in tests, and a sink that keeps what they bring."""

from __future__ import annotations

from pathlib import Path

from airlift.connected.source import Settings
from airlift.progress import Silent
from airlift.store import Store
from airlift.transport.http import HttpSettings


class Talk(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)

    def warn(self, message: str) -> None:
        self.said.append(message)


class Taken:
    """A sink in memory."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    @property
    def written(self) -> int:
        return len(self.data)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data


def settings(folder: Path, *, cached: bool = True, environment: dict[str, str] | None = None) -> Settings:
    """Return settings whose manifest, work files and cache lie under `folder`."""
    work = folder / "work"
    work.mkdir(exist_ok=True)
    return Settings(
        base=folder,
        work=work,
        cache=Store(folder / "cache").create() if cached else None,
        platforms=("linux/amd64",),
        http=HttpSettings(retries=3),
        environment=environment or {},
        progress=Talk(),
    )
