"""Folders that the tests of a module share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SharedFolder = Callable[[str], Path]
"""Makes a new folder of this name."""


@pytest.fixture(scope="module")
def shared_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedFolder]:
    """What it makes goes with the last test of the module, unless one of them failed: as tmp_path, for more than one."""
    failed_before = request.session.testsfailed
    made: list[Path] = []

    def make(name: str) -> Path:
        made.append(tmp_path_factory.mktemp(name))
        return made[-1]

    yield make
    if request.session.testsfailed == failed_before:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
