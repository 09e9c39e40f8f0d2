"""A lock of another airlift, seen by this one's resolver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airlift.connected import resolver
from airlift.errors import ResolveError
from airlift.manifest import Manifest
from tests.support.sources import settings


@pytest.mark.parametrize("request_", [{}, {"entry": {"path": "a", "name": "a", "since": "a later version"}}])
def test_a_request_of_another_version_is_refused_in_words(tmp_path: Path, request_: dict[str, Any]) -> None:
    (tmp_path / "a").write_bytes(b"x")
    asked = Manifest.model_validate(
        {
            "apiVersion": "airlift/v1",
            "kind": "Drop",
            "metadata": {"name": "x"},
            "files": [{"path": "a", "name": "a"}],
        }
    )
    at = settings(tmp_path)
    lock = resolver.resolve(asked, at)
    later = replace(lock, entries=tuple(replace(entry, request=request_) for entry in lock.entries))
    with pytest.raises(ResolveError, match="the lock's entry a was asked for in a way that this airlift does not know"):
        resolver.resolve(asked, at, previous=later)
    with pytest.raises(ResolveError, match="in a way that this airlift does not know"):
        resolver.check(asked, later, at)
