"""A quota of a Harbor: only what is new in a project counts, and no import is refused that has room."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlift.errors import DeliveryError
from airlift.site.config import Site
from tests.support.harbor import Harbor
from tests.support.harbor_sites import APP, BIG, bundle
from tests.support.site_bundles import Cargo, ship, take

SMALL = 20_000


def test_a_layer_that_another_repository_of_the_drop_has_needs_no_room(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    take(site, bundle(tmp_path))
    project = harbor.projects["docker.io"]
    project.hard = project.used + SMALL
    made = Cargo()
    # The new repository comes first.
    made.image("docker.io/library/aaa:1", BIG)
    made.image(f"{APP}:1", BIG)
    assert take(site, ship(made, tmp_path / "second", sequence=2)).drop.active


def test_a_layer_that_a_repository_of_an_earlier_drop_has_is_counted_already(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    take(site, bundle(tmp_path))
    project = harbor.projects["docker.io"]
    project.hard = project.used + SMALL
    made = Cargo()
    made.image("docker.io/library/aaa:1", BIG)
    assert take(site, ship(made, tmp_path / "second", sequence=2)).drop.active
    assert project.used <= project.hard


def test_the_same_content_fits_into_a_quota_that_is_used_up(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    take(site, bundle(tmp_path))
    project = harbor.projects["docker.io"]
    project.hard = project.used
    assert take(site, bundle(tmp_path, sequence=2)).drop.active
    with pytest.raises(DeliveryError, match=r"the quota of docker.io has 0 bytes left, \d+ are needed"):
        take(site, bundle(tmp_path, BIG[::-1], sequence=3))
