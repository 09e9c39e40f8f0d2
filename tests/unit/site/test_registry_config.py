"""Where site.yaml lets an image go in a registry."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from airlift.site.site_yaml import RegistryConfig

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
    ],
)
def test_a_registry_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RegistryConfig(**{"url": "http://h", **options})
