"""Reading JSON that a cluster gave: any part of it may be missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def at(value: object, *path: str) -> Any:
    """Return what stands at a path of keys, or None where there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def listed(value: object, *path: str) -> list[Any]:
    """Return the list that stands at a path of keys; an empty one where there is none."""
    found = at(value, *path)
    return found if isinstance(found, list) else []
