"""What clients are told, where the words of site.yaml are not yet theirs."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import pytest

from airlift.site.clients import client_config
from airlift.site.config import load_site
from airlift.site.site_yaml import RegistryConfig
from tests.support.site_bundles import make_site


def test_a_relative_ca_is_told_as_clients_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = RegistryConfig(url="https://registry.example.com", ca='our "own" ca.pem')
    make_site(tmp_path / "site", registry=registry)
    monkeypatch.chdir(tmp_path)
    site, wanted = load_site(Path("site")), str(tmp_path / "site" / 'our "own" ca.pem')
    hosts = tomllib.loads(client_config(site, "containerd"))
    assert [host["ca"] for host in hosts["host"].values()] == [wanted]
    assert shlex.split(client_config(site, "helm").splitlines()[-1])[-2:] == ["--ca-file", wanted]
