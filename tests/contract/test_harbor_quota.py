"""A quota of a Harbor: only what is new in a project counts, and no import is refused that has room."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.errors import DeliveryError
from airlift.site.config import Site
from tests.support.harbor import ROBOT, Harbor
from tests.support.harbor_sites import APP, BIG, bundle, when, writes
from tests.support.harbor_state import Project
from tests.support.harbor_web import nginx_page
from tests.support.registry import Fault, FrontHandler, refuse
from tests.support.site_bundles import Cargo, ship, take

SMALL = 20_000


def nearly_full(harbor: Harbor, site: Site, folder: Path) -> Project:
    """A project that has a drop, and room for little else."""
    take(site, bundle(folder))
    project = harbor.projects["docker.io"]
    project.hard = project.used + SMALL
    return project


def test_a_layer_that_another_repository_of_the_drop_has_needs_no_room(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    nearly_full(harbor, site, tmp_path)
    made = Cargo()
    # The new repository comes first.
    made.image("docker.io/library/aaa:1", BIG)
    made.image(f"{APP}:1", BIG)
    assert take(site, ship(made, tmp_path / "second", sequence=2)).drop.active


def test_a_layer_that_a_repository_of_an_earlier_drop_has_is_counted_already(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    project = nearly_full(harbor, site, tmp_path)
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


@pytest.mark.parametrize("what", ["502", "cut"])
@pytest.mark.parametrize("is_seen", ["in /quotas", "in the summary"])
def test_a_quota_refusal_that_the_proxy_swallows_is_told_and_not_tried_again(
    harbor: Harbor, site: Site, tmp_path: Path, what: str, is_seen: str
) -> None:
    def swallow(handler: FrontHandler) -> None:
        # Core answers before it reads the body; nginx is still writing that, and what it cannot read is a 502.
        handler.close_connection = True
        if what == "502":
            page = {"Content-Type": "text/html", "Connection": "close"}
            handler.answer(502, nginx_page("502 Bad Gateway"), page)
            handler.wfile.flush()
        else:
            handler.rfile.read(100_000)
            handler.connection.close()

    if is_seen == "in the summary":
        harbor.accounts[ROBOT].lose("quota:list")
        harbor.accounts[ROBOT].gain("quota:read")
    else:
        harbor.faults.append(refuse(403, b"{}", match="/summary"))
    layer = f"digest={digest_of(BIG)}".replace(":", "%3A")
    project = harbor.project("docker.io")
    when(harbor, lambda: setattr(project, "hard", 1000), match="/blobs/uploads/", method="POST")
    harbor.faults.append(Fault(swallow, match=layer, method="PUT"))
    shipped = bundle(tmp_path)
    with pytest.raises(DeliveryError) as caught:
        take(site, shipped)
    assert f"the quota of docker.io has 1000 bytes left, {len(BIG)} are needed" in caught.value.message
    assert caught.value.hint == "the project's quota is used up; raise it, or prune and collect garbage"
    assert not caught.value.temporary
    assert len([line for line in writes(harbor) if layer in line]) == 1
    project.hard = -1
    harbor.faults.clear()
    assert take(site, shipped).drop.active


@pytest.mark.parametrize("is_full", [True, False])
def test_a_quota_that_the_proxy_swallows_and_nobody_shows_is_told_by_an_upload_in_two_steps(
    harbor: Harbor, site: Site, tmp_path: Path, is_full: bool
) -> None:
    def swallow(handler: FrontHandler) -> bool:
        if handler.headers.get("Content-Length") == "0":
            return False
        handler.body()
        handler.answer(502, nginx_page("502 Bad Gateway"), {"Content-Type": "text/html"})
        return True

    harbor.accounts[ROBOT].lose("quota:list")
    layer = f"digest={digest_of(BIG)}".replace(":", "%3A")
    project = harbor.project("docker.io")
    if is_full:
        when(harbor, lambda: setattr(project, "hard", 1000), match="/blobs/uploads/", method="POST")
    harbor.faults.append(Fault(swallow, match=layer, method="PUT"))
    shipped = bundle(tmp_path)
    if not is_full:
        assert take(site, shipped).drop.active
        return
    with pytest.raises(DeliveryError, match="will exceed the configured upper limit") as caught:
        take(site, shipped)
    assert caught.value.hint == "the project's quota is used up; raise it, or prune and collect garbage"
    assert not caught.value.temporary
    assert len([line for line in writes(harbor) if layer in line]) == 2
    assert len([line for line in writes(harbor) if line.startswith("PATCH")]) == 1
    project.hard = -1
    harbor.faults.clear()
    assert take(site, shipped).drop.active


def test_a_robot_of_one_project_finds_its_quota_before_the_first_byte(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    harbor.accounts[ROBOT].lose("quota:list")
    harbor.accounts[ROBOT].gain("quota:read")
    harbor.project("docker.io", hard=1000)
    with pytest.raises(DeliveryError, match=r"the quota of docker\.io has 1000 bytes left"):
        take(site, bundle(tmp_path))
    assert writes(harbor) == []


def test_of_what_a_full_project_has_no_more_is_asked_than_what_makes_room(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    project = nearly_full(harbor, site, tmp_path)
    made = Cargo()
    for number in range(40):
        made.image(f"{APP}:{number}", BIG, b"small of %d" % number)
    shipped = ship(made, tmp_path / "second", sequence=2)
    project.hard = project.used + 40 * SMALL
    harbor.asked.clear()
    assert take(site, shipped).drop.active
    begun = next(number for number, item in enumerate(harbor.asked) if item.method == "POST")
    heads = [item for item in harbor.asked[:begun] if item.method == "HEAD" and "sha256:" in item.path]
    # The layer alone makes room; its neighbours were asked for with it, 120 others not.
    assert 1 <= len(heads) <= 40
