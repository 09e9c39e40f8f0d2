"""With whose account nodes ask the registry that site.yaml names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airlift.errors import StoreError
from airlift.site.config import load_site
from airlift.site.deploy.active import endpoint
from airlift.site.site_yaml import RegistryConfig
from tests.support.deployable import make_site

PULL = {"username": "puller", "password_file": "../../pull-password"}


@pytest.mark.parametrize(
    ("pull", "login"),
    [(None, ("importer", "may push")), (PULL, ("puller", "may pull")), ("anonymous", (None, None))],
)
def test_nodes_pull_with_the_account_that_is_named_for_them(
    tmp_path: Path, pull: Any, login: tuple[str | None, str | None]
) -> None:
    (tmp_path / "password").write_text("may push\n")
    (tmp_path / "pull-password").write_text("may pull\n")
    config = {"url": "http://h", "username": "importer", "password_file": "../../password", "pull": pull}
    made = make_site(tmp_path / "site", registry=RegistryConfig.model_validate(config))
    site = load_site(made.root)
    found = endpoint(site)
    assert (found.username, found.password) == login
    assert site.config.registry is not None
    assert site.password(site.config.registry) == "may push"


def test_a_password_for_nodes_that_is_not_there_is_said(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site", registry=RegistryConfig.model_validate({"url": "http://h", "pull": PULL}))
    with pytest.raises(StoreError, match=r"pull-password.*No such file"):
        endpoint(site)


@pytest.mark.parametrize("pull", ["somebody", {"username": "puller"}, {"password_file": "x"}, {}])
def test_an_account_that_is_not_whole_is_refused(pull: Any) -> None:
    with pytest.raises(ValueError, match="pull"):
        RegistryConfig.model_validate({"url": "http://h", "pull": pull})
