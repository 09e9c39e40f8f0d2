"""What is asked of a Harbor before the first byte, and what is said when it refuses later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.errors import DeliveryError, PartialDeliveryError
from airlift.site import drops
from airlift.site.config import RegistryConfig, Site
from tests.support.harbor import Harbor, immutable, running_harbor
from tests.support.registry import refuse, running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

BIG = bytes(range(256)) * 20_000
APP = "docker.io/library/app"


@pytest.fixture
def harbor(tmp_path: Path) -> Iterator[Harbor]:
    with running_registry(tmp_path / "registry") as behind, running_harbor(behind) as harbor:
        yield harbor


@pytest.fixture
def site(harbor: Harbor, tmp_path: Path) -> Site:
    return site_of(harbor, tmp_path)


def site_of(harbor: Harbor, folder: Path, *, password: str = "s3cret", storage_limit: int = -1) -> Site:
    (folder / "password").write_text(f"{password}\n")
    config = RegistryConfig(
        url=harbor.url,
        kind="harbor",
        username="robot$import",
        password_file=str(folder / "password"),
        public=True,
        storage_limit=storage_limit,
    )
    return make_site(folder / "site", registry=config)


def bundle(folder: Path, layer: bytes = BIG, tag: str = "1", sequence: int = 1) -> Path:
    made = Cargo()
    made.image(f"{APP}:{tag}", layer)
    return ship(made, folder / f"bundle{sequence}", sequence=sequence)


def writes(harbor: Harbor) -> list[str]:
    return [str(item) for item in harbor.asked if item.method not in ("GET", "HEAD")]


def test_a_missing_project_is_made_and_no_cookie_or_token_is_used(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    take(site, bundle(tmp_path))
    assert harbor.projects["docker.io"].metadata == {"public": "true"}
    assert {item.cookie for item in harbor.asked} == {None}
    assert not harbor.paths("/service/token")
    assert all((item.authorization or "").startswith("Basic ") for item in harbor.asked)


@pytest.mark.parametrize(
    ("state", "message", "hint"),
    [
        ("read-only", "the registry is in read-only mode", "read-only mode"),
        ("password", "the login of robot$import is refused", "disabled, expired"),
        ("expired", "the login of robot$import is refused", "disabled, expired"),
        ("proxy", "docker.io is a proxy-cache project, which takes no push", "another project"),
        ("quota", "the quota of docker.io has 1000 bytes left", "raise the project's quota"),
    ],
)
def test_a_harbor_that_would_refuse_later_is_found_before_the_first_write(
    harbor: Harbor, tmp_path: Path, state: str, message: str, hint: str
) -> None:
    site = site_of(harbor, tmp_path, password="wrong" if state == "password" else "s3cret")
    harbor.read_only = state == "read-only"
    harbor.accounts["robot$import"].is_on = state != "expired"
    if state in ("proxy", "quota"):
        harbor.project("docker.io", hard=1000, registry_id=7 if state == "proxy" else None)
    with pytest.raises(DeliveryError) as caught:
        take(site, bundle(tmp_path))
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert writes(harbor) == []


def test_an_immutable_tag_with_other_content_is_found_before_the_first_write(
    harbor: Harbor, site: Site, tmp_path: Path
) -> None:
    shipped = bundle(tmp_path)
    take(site, shipped)
    harbor.projects["docker.io"].rules.append(immutable("*"))
    assert take(site, shipped).was_here
    before = len(writes(harbor))
    with pytest.raises(DeliveryError, match=f"{APP}:1 is immutable and is sha256:"):
        take(site, bundle(tmp_path, BIG[::-1], sequence=2))
    assert len(writes(harbor)) == before
    take(site, bundle(tmp_path, BIG[::-1], tag="2", sequence=3))


def test_a_limit_for_new_projects_that_is_too_small_is_found_before_one_is_made(harbor: Harbor, tmp_path: Path) -> None:
    site = site_of(harbor, tmp_path, storage_limit=1000)
    with pytest.raises(DeliveryError, match=r"the quota of docker\.io has 1000 bytes left"):
        take(site, bundle(tmp_path))
    assert "docker.io" not in harbor.projects


def test_an_account_that_may_not_make_a_project_is_told_which(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    shipped = bundle(tmp_path)
    harbor.accounts["robot$import"].may_create = False
    with pytest.raises(DeliveryError, match=r"may not make the project docker\.io"):
        take(site, shipped)
    harbor.project("docker.io")
    assert take(site, shipped).drop.active


@pytest.mark.parametrize(
    ("state", "hint"),
    [
        ("push", "the account lacks the right to push there; or a robot has expired"),
        ("quota", "the project's quota is used up; raise it, or prune and collect garbage"),
    ],
)
def test_a_refusal_at_the_upload_says_why_and_a_re_run_goes_on(
    harbor: Harbor, site: Site, tmp_path: Path, state: str, hint: str
) -> None:
    shipped = bundle(tmp_path)
    account = harbor.accounts["robot$import"]
    account.may_list_quota = False
    project = harbor.project("docker.io", hard=len(BIG) + 10 if state == "quota" else -1)
    account.may_push = state != "push"
    with pytest.raises(DeliveryError) as caught:
        take(site, shipped)
    assert caught.value.hint == hint
    assert not [line for line in writes(harbor) if "/manifests/1" in line]
    assert not any(drop.active for drop in drops.list_drops(site))
    account.may_push, project.hard = True, -1
    assert take(site, shipped).drop.active
    assert digest_of(BIG) in project.blobs


def test_a_project_that_vanishes_is_not_called_a_wrong_password(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    harbor.faults.append(
        refuse(
            401,
            b'{"errors":[{"code":"UNAUTHORIZED","message":"project docker.io not found"}]}',
            {"Www-Authenticate": ""},
            match="/manifests/1",
            method="PUT",
        )
    )
    with pytest.raises(PartialDeliveryError) as caught:
        take(site, bundle(tmp_path))
    assert caught.value.hint == "the project is missing at the registry, or was removed meanwhile"


def test_pressure_makes_it_go_one_by_one_and_arrive(harbor: Harbor, site: Site, tmp_path: Path) -> None:
    # More refusals than one request makes attempts.
    harbor.faults.append(refuse(429, headers={"Retry-After": "0"}, match="/manifests/sha256:", method="PUT", times=7))
    assert take(site, bundle(tmp_path)).drop.active
