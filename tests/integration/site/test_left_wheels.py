"""Wheels that an external package index keeps although no active drop, or no kept one, has them: said, and no fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlift.progress import Silent
from airlift.site import drops
from airlift.site.config import Site
from airlift.site.site_yaml import IndexConfig
from tests.support.cli import airlift, ok
from tests.support.devpi import PASSWORD, USER, Devpi
from tests.support.indexes import make_wheel, metadata_of
from tests.support.registry import Fault, Registry, running_front
from tests.support.site_bundles import Cargo, make_site, ship, take

PROJECTS = ("acme-app", "acme-base", *(f"acme-part{number}" for number in range(12)))


class Warnings(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def devpi(devpi_server: Devpi) -> Iterator[Devpi]:
    yield devpi_server
    for project in PROJECTS:
        if devpi_server.files(project):
            devpi_server.remove(project)


def filename(project: str, version: str) -> str:
    return f"{project.replace('-', '_')}-{version}-py3-none-any.whl"


def cargo(**versions: str) -> Cargo:
    made = Cargo()
    files = {}
    for key, version in versions.items():
        project = f"acme_{key}"
        files[filename(project, version)] = make_wheel(project, version), metadata_of(project, version)
    made.wheels("web", files)
    return made


@pytest.fixture
def site(tmp_path: Path, devpi: Devpi) -> Site:
    """Two months: the app changes, what it needs stays."""
    (tmp_path / "password").write_text(PASSWORD)
    account = {"username": USER, "password_file": str(tmp_path / "password")}
    made = make_site(tmp_path / "site", python=IndexConfig(upload=devpi.upload, index=devpi.index, **account))
    take(made, ship(cargo(app="1.0", base="1.0"), tmp_path / "1.airlift"))
    take(made, ship(cargo(app="2.0", base="1.0"), tmp_path / "2.airlift", sequence=2))
    return made


def run(site: Site, *words: str | Path) -> Any:
    return ok(*words, "--site", site.root, "--json", home=site.root.parent).json


def said(devpi: Devpi, which: str, *files: str) -> str:
    return (
        f"airlift: warning: {devpi.index} still has {len(files)} wheel(s) that {which}, and pip finds them there;"
        f" take them away there if nobody is to install them: {', '.join(files)}\n"
    )


def test_a_rollback_and_a_deactivation_name_the_wheels_that_stay_and_nothing_is_a_fault(
    site: Site, devpi: Devpi, tmp_path: Path
) -> None:
    at = ("--site", site.root)
    ran = ok("drops", "rollback", *at, home=tmp_path)
    assert said(devpi, "stable/1 does not have", filename("acme_app", "2.0")) in ran.err
    ran = ok("drops", "deactivate", *at, "stable", home=tmp_path)
    every = (filename("acme_app", "1.0"), filename("acme_app", "2.0"), filename("acme_base", "1.0"))
    assert said(devpi, "were channel stable's", *every) in ran.err
    assert ok("check", *at, home=tmp_path).out.startswith("clean")
    status = ok("status", *at, home=tmp_path)
    assert "warning" not in status.err
    ok("drops", "activate", *at, "stable/2", home=tmp_path)
    assert ok("check", *at, home=tmp_path).out.startswith("clean")
    # What somebody took away there is not said any more.
    devpi.remove("acme-app")
    heard = Warnings()
    drops.rollback(site, None, progress=heard)
    assert heard.said == []


def test_the_json_of_all_that_moves_names_lists_them(site: Site, tmp_path: Path) -> None:
    third = ship(cargo(app="3.0", base="1.0"), tmp_path / "3.airlift", sequence=3)
    app = [filename("acme_app", f"{number}.0") for number in (1, 2, 3)]
    assert run(site, "import", third)["wheels_left"] == app[:2]
    assert run(site, "drops", "rollback")["wheels_left"] == [app[0], app[2]]
    assert run(site, "drops", "activate", "stable/3")["wheels_left"] == app[:2]
    assert run(site, "drops", "deactivate", "stable")["wheels_left"] == [*app, filename("acme_base", "1.0")]


def test_a_prune_names_the_wheels_that_no_kept_drop_has(site: Site, devpi: Devpi, tmp_path: Path) -> None:
    plan, at = tmp_path / "plan.json", ("--site", site.root)
    ran = ok("drops", "prune", *at, "--keep", "1", "-o", plan, home=tmp_path)
    assert ran.out.endswith("; 1 wheel may stay in the package index\n")
    assert run(site, "drops", "prune", "--keep", "1")["wheels_left"] == [filename("acme_app", "1.0")]
    ran = ok("drops", "prune", *at, "--execute", plan, home=tmp_path)
    assert said(devpi, "no kept drop has any more", filename("acme_app", "1.0")) in ran.err
    assert "package index" not in ran.out
    assert filename("acme_app", "1.0") in devpi.files("acme-app")
    assert ok("check", *at, home=tmp_path).out.startswith("clean")
    # Nothing of it is known any more.
    assert run(site, "drops", "prune", "--execute", plan)["wheels_left"] == []


def test_the_first_ten_are_named(site: Site, tmp_path: Path) -> None:
    parts = {f"part{number}": "1.0" for number in range(12)}
    take(site, ship(cargo(app="2.0", base="1.0", **parts), tmp_path / "3.airlift", sequence=3))
    heard = Warnings()
    left = drops.rollback(site, None, progress=heard).left.wheels
    assert len(left) == 13
    (message,) = heard.said
    assert message.endswith(f"{', '.join(left[:10])} and 3 more")


def test_an_index_that_does_not_tell_ends_nothing(site: Site, devpi: Devpi, tmp_path: Path) -> None:
    """The page of a project that only the later drop has is broken there."""
    with running_front(Registry(devpi.host, tmp_path)) as front:
        take(site, ship(cargo(base="1.0"), tmp_path / "3.airlift", sequence=3))
        text = (site.root / "site.yaml").read_text().replace(devpi.host, front.url.removeprefix("http://"))
        (site.root / "site.yaml").write_text(text)
        broken = Fault(lambda handler: handler.answer(500, b"broken"), method="GET", match="acme-app")
        front.faults.append(broken)
        ran = airlift("drops", "deactivate", "--site", site.root, "stable", home=tmp_path)
    assert ran.code == 0, ran.err
    assert "warning: which wheels that were channel stable's stay in" in ran.err
    assert [drop.active for drop in drops.list_drops(site)] == [False] * 3
