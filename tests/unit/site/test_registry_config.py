"""Where site.yaml lets an image go in a registry."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from airlift.site.site_yaml import IndexConfig, RegistryConfig, SiteConfig

PATH = "docker.io/library/deep/redis"


@pytest.mark.parametrize(
    ("options", "repository", "registry"),
    [
        ({}, "docker.io/library/deep/redis", "docker.io"),
        ({"project": "mirror"}, "mirror/docker.io/library/deep/redis", "mirror/docker.io"),
        ({"depth": 2}, "docker.io/library/deep-redis", "docker.io"),
        ({"depth": 1, "project": "mirror"}, "mirror/docker.io/library-deep-redis", "mirror/docker.io"),
        ({"mapping": "all/{repository}"}, "all/library/deep/redis", "all"),
        ({"url": "http://h/a/b", "mapping": "x/{registry}/{repository}"}, f"a/b/x/{PATH}", "a/b/x/docker.io"),
    ],
)
def test_mapping_project_and_depth_say_where_an_image_goes(
    options: dict[str, Any], repository: str, registry: str
) -> None:
    config = RegistryConfig(**{"url": "http://h", **options})
    assert (config.repository(PATH), config.repository("docker.io")) == (repository, registry)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": "{registry}"}, "ends with {repository}"),
        ({"mapping": "{tag}/{repository}"}, "ends with {repository}"),
        ({"mapping": "../{registry}/{repository}"}, "ends with {repository}"),
        ({"depth": 0}, "greater than or equal to 1"),
        ({"project": "Upper"}, "should match pattern"),
        ({"kind": "harbor"}, "kind: harbor needs username and password_file"),
        ({"url": "http://h/Mirror"}, "expected lower-case letters, digits and . _ - in the path"),
        ({"ca": "~/ca.pem"}, "~ stands for no directory here: write the whole path in place of '~/ca.pem'"),
        ({"password_file": "~ops/password"}, "~ stands for no directory here"),
    ],
)
def test_a_registry_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RegistryConfig(**{"url": "http://h", **options})


def test_capital_letters_in_a_host_are_the_small_ones_and_a_path_keeps_its_own() -> None:
    config = RegistryConfig(url="HTTPS://Registry.Example:5000/mirror/")
    assert (config.url, config.host) == ("https://registry.example:5000/mirror", "registry.example:5000")
    index = IndexConfig(upload="HTTP://Devpi.Example/Ops/site/", index="http://devpi.example/Ops/site/+simple/")
    assert index.upload == "http://devpi.example/Ops/site/"
    assert SiteConfig(url="HTTP://[FD00::1]:8080").url == "http://[fd00::1]:8080"


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "h"),
        ({"url": "https://H:5000/mirror/"}, "h:5000/mirror"),
        ({"project": "all"}, "h/all"),
        ({"mapping": "all/{repository}", "depth": 2}, "h/all/{repository} (depth 2)"),
        ({"mapping": "x/{registry}/{repository}"}, "h/x"),
    ],
)
def test_a_place_is_told_shortly(options: dict[str, Any], place: str) -> None:
    assert RegistryConfig(**{"url": "http://h", **options}).place == place


def test_a_name_that_begins_with_a_tilde_can_be_written() -> None:
    assert SiteConfig(url="http://h", identity="./~key").identity == "./~key"
