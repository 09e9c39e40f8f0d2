"""What a drop shows in the mirrors: names that activation moves, digests that stay while a drop is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from airlift.digest import Digest


class Service(StrEnum):
    """The served protocols, by their place in the URL."""

    OCI = "v2"
    SIMPLE = "simple"
    CHARTS = "charts"
    HUB = "hf"
    FILES = "files"


@dataclass(frozen=True, slots=True)
class Name:
    """A name that clients see while the drop is active.

    Attributes:
        service: where it is seen.
        key: what clients ask for: ``docker.io/library/redis:7.4`` (mirror path, see `Reference.path`), a normalised
            project, a chart's name, a model id, a file's name.
        value: what the service needs to answer, JSON; always with ``digest`` (of what the name points at).
    """

    service: Service
    key: str
    value: Mapping[str, Any]


_PARTS: Final[Mapping[Service, str]] = {Service.SIMPLE: "filename", Service.CHARTS: "version", Service.HUB: "branch"}


def part_of(name: Name) -> str:
    """Return what tells names of one key apart: a project's files, a chart's versions, a model's branches."""
    part = _PARTS.get(name.service)
    return "" if part is None else str(name.value[part])


@dataclass(frozen=True, slots=True)
class Held:
    """Content that is served by digest while the drop is kept, active or not.

    Attributes:
        service: where it is served.
        scope: repository (mirror path), project, chart, model id or file name under which it may be asked for.
        digest, size, media_type: what it is.
        subject: for a referrer, the digest that it refers to, else None.
        facts: what the service needs beside (for a referrer ``artifactType`` and ``annotations``).
    """

    service: Service
    scope: str
    digest: Digest
    size: int
    media_type: str
    subject: Digest | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """All that one artifact shows."""

    names: tuple[Name, ...] = ()
    held: tuple[Held, ...] = ()
