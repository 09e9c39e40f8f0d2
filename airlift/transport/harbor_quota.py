"""What a project of a Harbor is to get, and what its quota says."""

from __future__ import annotations

from dataclasses import dataclass, field

from airlift.digest import Digest


@dataclass(slots=True)
class Piece:
    """A blob or manifest that is to be in a project, which counts it once.

    Attributes:
        size: in bytes.
        is_manifest: which of the two.
        repositories: those that are to have it.
    """

    size: int
    is_manifest: bool
    repositories: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Wanted:
    """What is to be sent to one project.

    Attributes:
        pieces: by digest.
        tags: ``(repository, tag)`` and the digest it is to have.
    """

    pieces: dict[Digest, Piece] = field(default_factory=dict)
    tags: dict[tuple[str, str], Digest] = field(default_factory=dict)


def sides(quota: object) -> tuple[int, int]:
    """Return limit and use of a quota as the API gives it; no limit when it gives none."""
    sides = [quota.get(side) for side in ("hard", "used")] if isinstance(quota, dict) else []
    values = [side.get("storage") for side in sides if isinstance(side, dict)]
    hard, used = values if len(values) == 2 else (None, None)  # noqa: PLR2004 - the two sides
    return (hard, used) if isinstance(hard, int) and isinstance(used, int) else (-1, 0)
