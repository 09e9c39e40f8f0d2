"""What holds for every test."""

from __future__ import annotations

import os

import pytest

from tests import components
from tests.support.devpi import devpi_server
from tests.support.folders import shared_folder

__all__ = ["devpi_server", "shared_folder"]


def pytest_configure(config: pytest.Config) -> None:
    """Let everything that tests start find our own tools."""
    os.environ["PATH"] = components.search_path()


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing reads or writes the developer's own airlift, docker or helm files."""
    home = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "docker"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"):
        monkeypatch.setenv(name, str(home / "helm"))
    for name in ("SOURCE_DATE_EPOCH", "AIRLIFT_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
