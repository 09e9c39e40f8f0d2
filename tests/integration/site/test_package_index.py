"""Wheels into a package index that takes uploads: devpi, with pip and uv as its clients."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlift.cli.exit import code_of
from airlift.errors import DeliveryError, PartialDeliveryError
from airlift.progress import Silent
from airlift.site import clients, drops, preflight, repair
from airlift.site.config import Site, load_site
from airlift.site.inspection import Finding, Place
from airlift.site.preflight_findings import Severity
from airlift.site.site_yaml import IndexConfig
from airlift.transport.package_index import form_fields
from airlift.transport.settings import HttpSettings
from tests.components import require
from tests.support.bundles import NOW
from tests.support.devpi import PASSWORD, USER, Devpi
from tests.support.indexes import make_wheel, metadata_of
from tests.support.registry import Fault, FrontHandler, Registry, running_front
from tests.support.site_bundles import Cargo, make_site, ship, take

PLUS = "acme_torch-2.1.0+cpu-py3-none-any.whl"


@pytest.fixture
def devpi(devpi_server: Devpi) -> Iterator[Devpi]:
    yield devpi_server
    for project in ("acme-app", "acme-base", "acme-torch"):
        if devpi_server.files(project):
            devpi_server.remove(project)


def cargo(mark: bytes = b"first") -> Cargo:
    made = Cargo()
    files = {}
    for project, version, requires in (
        ("acme_app", "1.0", ["acme-base>=2"]),
        ("acme_base", "2.0", []),
        ("acme_torch", "2.1.0+cpu", []),
    ):
        payload = mark if project == "acme_app" else b""
        wheel = make_wheel(project, version, requires=requires, python=">=3.8", payload=payload)
        metadata = metadata_of(project, version, requires=requires, python=">=3.8")
        files[f"{project}-{version}-py3-none-any.whl"] = wheel, metadata
    made.wheels("web", files)
    made.file("tool", mark)
    return made


def site_of(folder: Path, devpi: Devpi, *, password: str = PASSWORD, upload: str = "") -> Site:
    (folder / "password").write_text(password + "\n")
    account = {"username": USER, "password_file": str(folder / "password")}
    config = IndexConfig(upload=upload or devpi.upload, index=devpi.index, **account)
    return make_site(folder / "site", python=config)


def posts(devpi: Devpi) -> int:
    return devpi.log.read_text().count("POST /importer/site/")


def check(site: Site) -> list[Finding]:
    return repair.check(site, progress=Silent(), http=HttpSettings(retries=0))


def mend(site: Site) -> list[Finding]:
    return repair.repair(
        site, check(site), None, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings(retries=0)
    )


def installed(command: list[str | Path], target: Path, home: Path, **more: str) -> set[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(home), **more}
    words = [str(word) for word in [*command, "--target", target, "Acme.App", "acme-torch"]]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name for path in target.glob("*.dist-info")}


def test_an_import_fills_the_index_and_pip_and_uv_install_from_it(tmp_path: Path, devpi: Devpi) -> None:
    site = site_of(tmp_path, devpi)
    made = cargo()
    assert take(site, ship(made, tmp_path / "1")).drop.active
    large = {digest.removeprefix("sha256:") for digest in made.large}
    for project in ("acme-app", "acme-base", "acme-torch"):
        assert set(devpi.files(project).values()) <= large
    assert list(devpi.files("acme-torch")) == [PLUS]
    expected = {"acme_app-1.0.dist-info", "acme_base-2.0.dist-info", "acme_torch-2.1.0+cpu.dist-info"}
    pip = tmp_path / ".config" / "pip" / "pip.conf"
    uv = tmp_path / ".config" / "uv" / "uv.toml"
    for file, client in ((pip, "pip"), (uv, "uv")):
        file.parent.mkdir(parents=True)
        file.write_text(clients.client_config(site, client))
        assert devpi.index in file.read_text()
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--disable-pip-version-check"]
    assert installed([*command], tmp_path / "p", tmp_path) == expected
    command_uv = [require("uv"), "pip", "install", "-q", "--no-cache", "--python", sys.executable]
    assert installed([*command_uv], tmp_path / "u", tmp_path, UV_PYTHON_DOWNLOADS="never") == expected
    assert drops.status(site, Silent())["python"] == devpi.index


def test_what_is_there_is_not_uploaded_again(tmp_path: Path, devpi: Devpi) -> None:
    site = site_of(tmp_path, devpi)
    take(site, ship(cargo(), tmp_path / "1"))
    before = posts(devpi)
    # A month later: the same wheels beside another file.
    later = cargo()
    later.file("other", b"other")
    take(site, ship(later, tmp_path / "2", sequence=2))
    drops.rollback(site, None)
    assert posts(devpi) == before


def test_another_content_under_a_wheels_name_is_refused_before_the_first_upload(tmp_path: Path, devpi: Devpi) -> None:
    site = site_of(tmp_path, devpi)
    take(site, ship(cargo(), tmp_path / "1"))
    before = posts(devpi)
    with pytest.raises(
        DeliveryError, match=r"acme_app-1.0-py3-none-any.whl is sha256:.* there, the drop has sha256:"
    ) as e:
        take(site, ship(cargo(b"second"), tmp_path / "2", sequence=2))
    assert e.value.hint is not None
    assert posts(devpi) == before
    assert [drop.sequence for drop in drops.list_drops(site) if drop.active] == [1]
    # Once the file is gone there, the same command goes on.
    devpi.remove("acme-app")
    assert take(site, tmp_path / "2").drop.active


def test_a_refused_login_ends_the_import_before_anything_is_seen_and_the_same_command_goes_on(
    tmp_path: Path, devpi: Devpi
) -> None:
    site = site_of(tmp_path, devpi, password="wrong")
    bundle = ship(cargo(), tmp_path / "1")
    with pytest.raises(PartialDeliveryError, match=r"401 .*0 of 3 wheels were uploaded") as caught:
        take(site, bundle)
    assert caught.value.hint == (
        "give python.username and python.password_file in site.yaml, or mend them: a password may have changed"
    )
    assert code_of(caught.value) == 3
    assert not any(drop.active for drop in drops.list_drops(site))
    (tmp_path / "password").write_text(PASSWORD)
    assert take(load_site(site.root), bundle).drop.active


def test_an_upload_whose_answer_is_lost_counts(tmp_path: Path, devpi: Devpi) -> None:
    def swallow(handler: FrontHandler) -> None:
        assert handler.ask_behind()[0] == 200
        handler.answer(502, b"bad gateway")

    with running_front(Registry(devpi.host, tmp_path)) as front:
        front.faults.append(Fault(swallow, method="POST", times=1))
        site = site_of(tmp_path, devpi, upload=f"{front.url}/importer/site/")
        before = posts(devpi)
        assert take(site, ship(cargo(), tmp_path / "1")).drop.active
    assert posts(devpi) == before + 3


def test_an_index_that_goes_away_half_way_is_filled_by_the_next_run(tmp_path: Path, devpi: Devpi) -> None:
    with running_front(Registry(devpi.host, tmp_path)) as front:
        passed = Fault(FrontHandler.pass_on, method="POST", times=1)
        down = Fault(lambda handler: handler.answer(503, b"down for maintenance"), method="POST")
        front.faults += [passed, down]
        site = site_of(tmp_path, devpi, upload=f"{front.url}/importer/site/")
        bundle = ship(cargo(), tmp_path / "1")
        with pytest.raises(PartialDeliveryError, match=r"503 .*1 of 3 wheels were uploaded"):
            take(site, bundle)
        assert drops.list_drops(site)[0].active is False
        front.faults.clear()
        before = posts(devpi)
        assert take(site, bundle).drop.active
        assert posts(devpi) == before + 2


def test_check_finds_what_is_missing_or_other_and_repair_uploads_again(tmp_path: Path, devpi: Devpi) -> None:
    site = site_of(tmp_path, devpi)
    take(site, ship(cargo(), tmp_path / "1"))
    assert check(site) == []
    devpi.remove("acme-base")
    (found,) = check(site)
    assert (found.place, found.problem) == (Place.INDEX, "missing")
    assert found.subject == f"{devpi.host}/acme-base/acme_base-2.0-py3-none-any.whl"
    assert [(kind, drops) for (kind, _), drops in found.artifacts.items()] == [("wheels", ["stable/1"])]
    assert mend(site) == []
    devpi.remove("acme-app")
    other = make_site(tmp_path / "other", python=site.config.python)
    take(other, ship(cargo(b"other"), tmp_path / "o"))
    (found,) = check(site)
    assert "the drop says sha256:" in found.problem
    assert mend(site) == [found]


def test_preflight_says_whether_the_index_answers(tmp_path: Path, devpi: Devpi) -> None:
    site = site_of(tmp_path, devpi)
    bundle = ship(cargo(), tmp_path / "1")

    def look(at: Site) -> list[tuple[Severity, str]]:
        found = preflight.Flight(at, bundle, NOW, b"", HttpSettings(retries=0), Silent(), lambda: 0.0).run()
        return [(item.severity, item.message) for item in found if item.check == "python"]

    ((severity, message),) = look(site)
    assert (severity, message.partition(";")[0]) == (Severity.OK, f"{devpi.index} answers")
    nobody = IndexConfig(upload="http://127.0.0.1:1/", index="http://127.0.0.1:1/+simple/")
    ((severity, message),) = look(make_site(tmp_path / "other", python=nobody))
    assert severity is Severity.ERROR
    assert "127.0.0.1:1" in message


def test_the_form_repeats_the_metadata() -> None:
    metadata = (
        b"Metadata-Version: 2.1\nName: acme\nVersion: 1.0\nRequires-Dist: a>=1\nRequires-Dist: b\n"
        b"Classifier: Typed\nProject-URL: Home, https://acme.example\nRequires-Python: >=3.8\nAuthor: J\xc3\xb6rg\n\nSome text.\n"
    )
    assert list(form_fields(metadata)) == [
        ("metadata_version", "2.1"),
        ("name", "acme"),
        ("version", "1.0"),
        ("requires_dist", "a>=1"),
        ("requires_dist", "b"),
        ("classifiers", "Typed"),
        ("project_urls", "Home, https://acme.example"),
        ("requires_python", ">=3.8"),
        ("author", "Jörg"),
        ("description", "Some text.\n"),
    ]


@pytest.mark.property
@given(st.binary(max_size=300))
def test_any_metadata_gives_fields_of_text(data: bytes) -> None:
    for name, value in form_fields(data):
        assert "\n" not in name
        value.encode()
