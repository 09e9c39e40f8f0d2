"""What every package index has to do that a site shows its wheels in: the embedded one, the static tree, and devpi."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.compat import urljoin

from airlift.errors import DeliveryError, IntegrityError
from airlift.site import drops
from airlift.site.site_yaml import IndexConfig
from tests.components import require
from tests.support import mirrors
from tests.support.devpi import PASSWORD, USER, Devpi
from tests.support.indexes import make_wheel, metadata_of, wheel_name
from tests.support.mirrors import BACKENDS, Mirror
from tests.support.site_bundles import Cargo, make_site, ship

JSON = "application/vnd.pypi.simple.v1+json"
PROJECTS = ("acme-app", "acme-base", "acme-more", "acme-torch")


@dataclass
class Index:
    """A package index, as clients name it.

    Attributes:
        mirror: the site, and where it shows its wheels.
        url: what pip reads.
        replaces: whether a file name can get another content.
    """

    mirror: Mirror
    url: str
    replaces: bool = True

    def files(self, project: str) -> dict[str, dict[str, Any]]:
        """What the page of a project says of each file; its url is complete."""
        page = requests.get(f"{self.url}{project}/", headers={"Accept": JSON}, timeout=30)
        if page.status_code == 404:
            return {}
        page.raise_for_status()
        return {item["filename"]: {**item, "url": urljoin(page.url, item["url"])} for item in page.json()["files"]}

    def install(self, client: str, *words: str) -> Path:
        """Install into a new directory; a client's cache is the same for all of a test."""
        folder = self.mirror.folder
        target = folder / f"installed{len(list(folder.glob('installed*')))}"
        home = {"HOME": str(folder), "PIP_CONFIG_FILE": os.devnull, "UV_PYTHON_DOWNLOADS": "never"}
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--index-url", self.url]
        uv = [require("uv"), "pip", "install", "-q", "--no-config", "--python", sys.executable]
        command = [*pip, "--cache-dir", folder / "pip"] if client == "pip" else [*uv, "--default-index", self.url]
        if client == "uv":
            command += ["--cache-dir", folder / "uv"]
        done = subprocess.run(
            [*map(str, command), "--target", str(target), *words],
            env={"PATH": os.environ["PATH"], **home}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return target

    def seen(self, *words: str) -> set[tuple[str, bytes]]:
        """Versions and content of acme-app that the clients install."""
        found = set()
        for client in ("pip", "uv"):
            target = self.install(client, *(words or ("acme-app",)))
            (info,) = target.glob("acme_app-*.dist-info")
            found.add((info.name.split("-")[1].removesuffix(".dist"), (target / "acme_app" / "data.bin").read_bytes()))
        return found


@contextlib.contextmanager
def _devpi(folder: Path, devpi: Devpi) -> Iterator[Index]:
    (folder / "password").write_text(PASSWORD)
    account = {"username": USER, "password_file": str(folder / "password")}
    config = IndexConfig(upload=devpi.upload, index=devpi.index, **account)
    site = make_site(folder / "site", python=config, channels=mirrors.CHANNELS)
    try:
        yield Index(Mirror(site, devpi.index, folder, loses_names=False), devpi.index, replaces=False)
    finally:
        for project in PROJECTS:
            if devpi.files(project):
                devpi.remove(project)


@pytest.fixture(params=[*BACKENDS, "devpi"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Index]:
    if request.param == "devpi":
        # Asked for here, so that a run without it skips nothing else.
        with _devpi(tmp_path, request.getfixturevalue("devpi_server")) as made:
            yield made
        return
    with BACKENDS[request.param](tmp_path) as mirror:
        yield Index(mirror, f"{mirror.url}/simple/")


def wheel(project: str, version: str, payload: bytes = b"", **more: Any) -> tuple[str, tuple[bytes, bytes]]:
    """A wheel's file name, its bytes and its METADATA."""
    name = project.replace("-", "_")
    data = make_wheel(name, version, payload=payload, **more)
    return wheel_name(name, version), (data, metadata_of(name, version, **more))


def cargo(*wheels: tuple[str, tuple[bytes, bytes]], channel: str = "stable", name: str = "web") -> Cargo:
    made = Cargo(channel)
    made.wheels(name, dict(wheels))
    return made


def app(payload: bytes, version: str = "1.0", **more: Any) -> tuple[str, tuple[bytes, bytes]]:
    return wheel("acme-app", version, payload, **more)


def sha(item: tuple[str, tuple[bytes, bytes]]) -> str:
    return hashlib.sha256(item[1][0]).hexdigest()


def locked(folder: Path, pins: Mapping[str, str]) -> tuple[str, ...]:
    """The words that install exactly these files: requirement to hash."""
    file = folder / "requirements.txt"
    file.write_text("".join(f"{pin} --hash=sha256:{digest}\n" for pin, digest in pins.items()))
    return ("--require-hashes", "-r", str(file))


def test_pip_and_uv_install_a_set_with_what_it_needs(index: Index) -> None:
    index.mirror.take(
        cargo(
            app(b"first", requires=["acme-base>=2", "acme-torch"], python=">=3.8"),
            wheel("acme-base", "2.0"),
            wheel("acme-torch", "2.1.0+cpu", bytes(300_000)),
        )
    )
    names = {"acme_app-1.0.dist-info", "acme_base-2.0.dist-info", "acme_torch-2.1.0+cpu.dist-info"}
    for client in ("pip", "uv"):
        assert {path.name for path in index.install(client, "Acme.App").glob("*.dist-info")} == names
    assert index.seen() == {("1.0", b"first")}


def test_what_is_locked_by_hash_is_installed_by_hash(index: Index, tmp_path: Path) -> None:
    first, base = app(b"first", requires=["acme-base"]), wheel("acme-base", "2.0")
    index.mirror.take(cargo(first, base))
    words = locked(tmp_path, {"acme-app==1.0": sha(first), "acme-base==2.0": sha(base)})
    assert index.seen(*words) == {("1.0", b"first")}


def test_the_page_says_digests_metadata_and_python_as_they_are(index: Index) -> None:
    first = app(b"first", python=">=3.8")
    index.mirror.take(cargo(first))
    (file,) = index.files("acme-app").values()
    assert (file["filename"], file["hashes"]["sha256"]) == (first[0], sha(first))
    assert file["requires-python"] == ">=3.8"
    data, metadata = first[1]
    assert requests.get(file["url"], timeout=30).content == data
    if index.replaces:
        # devpi's pages name no METADATA, and it answers no ranges.
        assert requests.get(f"{file['url']}.metadata", timeout=30).content == metadata
        assert file["core-metadata"]["sha256"] == hashlib.sha256(metadata).hexdigest()
        part = requests.get(file["url"], headers={"Range": "bytes=10-19"}, timeout=30)
        assert (part.status_code, part.content) == (206, data[10:20])
    page = requests.get(f"{index.url}acme-app/", headers={"Accept": "text/html"}, timeout=30)
    assert page.headers["Content-Type"].startswith("text/html")
    assert f"#sha256={sha(first)}" in page.text
    assert requests.get(f"{index.url}none/", timeout=30).status_code == 404


def test_a_client_takes_no_version_that_its_python_cannot_run(index: Index) -> None:
    index.mirror.take(cargo(app(b"old"), app(b"new", "2.0", python=">=4")))
    assert index.seen() == {("1.0", b"old")}


def test_a_later_version_is_seen_and_going_back_shows_the_first_again(index: Index) -> None:
    first, second = app(b"first"), app(b"second", "2.0")
    index.mirror.take(cargo(first))
    assert index.seen() == {("1.0", b"first")}
    address = index.files("acme-app")[first[0]]["url"]
    index.mirror.take(cargo(second))
    assert index.seen() == {("2.0", b"second")}
    later = index.files("acme-app")[second[0]]["url"]
    index.mirror.roll_back()
    # An index that takes uploads knows no generations: there, who wants the first says so.
    words = () if index.mirror.loses_names else ("acme-app==1.0",)
    assert index.seen(*words) == {("1.0", b"first")}
    index.mirror.activate("stable/2")
    assert index.seen() == {("2.0", b"second")}
    # Addresses that a client has written down lead to the same bytes whichever drop is active.
    for place, item, version in ((address, first, "1.0"), (later, second, "2.0")):
        assert requests.get(place, timeout=30).content == item[1][0]
        pinned = f"acme-app @ {place.partition('#')[0]}#sha256={sha(item)}"
        assert {seen for seen, _ in index.seen(pinned)} == {version}


def test_a_file_name_with_another_content_gives_the_new_bytes_or_is_refused(index: Index, tmp_path: Path) -> None:
    first, second = app(b"first"), app(b"other")
    assert first[0] == second[0]
    index.mirror.take(cargo(first))
    assert index.seen() == {("1.0", b"first")}
    address = index.files("acme-app")[first[0]]["url"]
    if not index.replaces:
        with pytest.raises(DeliveryError, match=f"acme_app-1.0-py3-none-any.whl is sha256:{sha(first)} there"):
            index.mirror.take(cargo(second))
        assert [drop.sequence for drop in drops.list_drops(index.mirror.site) if drop.active] == [1]
        assert index.seen() == {("1.0", b"first")}
        return
    for active, change in (
        (second, lambda: index.mirror.take(cargo(second))),
        (first, index.mirror.roll_back),
        (second, lambda: index.mirror.activate("stable/2")),
    ):
        change()
        content = {sha(first): b"first", sha(second): b"other"}[sha(active)]
        assert index.seen() == {("1.0", content)}
        assert index.seen(*locked(tmp_path, {"acme-app==1.0": sha(active)})) == {("1.0", content)}
        assert requests.get(address, timeout=30).content == first[1][0]


def test_a_project_that_only_the_later_drop_has_goes_with_it(index: Index) -> None:
    first, more = app(b"first"), wheel("acme-more", "1.0")
    index.mirror.take(cargo(first))
    index.mirror.take(cargo(first, more))
    assert set(index.files("acme-more")) == {more[0]}
    address = index.files("acme-more")[more[0]]["url"]
    index.mirror.roll_back()
    assert set(index.files("acme-more")) == (set() if index.mirror.loses_names else {more[0]})
    assert requests.get(address, timeout=30).content == more[1][0]


def test_wheels_of_two_channels_stand_side_by_side(index: Index) -> None:
    index.mirror.take(cargo(app(b"stable")))
    index.mirror.take(cargo(app(b"edge", "1.1"), channel="edge", name="edge"))
    assert index.seen() == {("1.1", b"edge")}
    assert index.seen("acme-app==1.0") == {("1.0", b"stable")}


def test_importing_a_drop_again_changes_nothing(index: Index) -> None:
    index.mirror.take(cargo(app(b"first")))
    before = index.files("acme-app")
    assert index.mirror.import_again(index.mirror.bundle(1)).was_here
    assert index.files("acme-app") == before


def test_a_pruned_drops_wheel_is_gone_where_the_index_is_ours_and_a_kept_ones_stays(index: Index) -> None:
    wheels = [app(b"%d" % number, f"{number}.0") for number in (1, 2, 3)]
    addresses = []
    for item in wheels:
        index.mirror.take(cargo(item))
        addresses.append(index.files("acme-app")[item[0]]["url"])
    assert index.mirror.prune(keep=2) == 1
    found = [requests.get(address, timeout=30).status_code for address in addresses]
    assert found == [404 if index.mirror.loses_names else 200, 200, 200]
    assert index.seen() == {("3.0", b"3")}


def test_nothing_is_seen_of_a_bundle_that_turns_out_wrong(index: Index) -> None:
    index.mirror.take(cargo(app(b"first")))
    wrong = cargo(app(b"second", "2.0"), wheel("acme-more", "1.0"))
    wrong.file("tool", bytes(10_000_000))
    bundle = ship(wrong, index.mirror.bundle(2), sequence=2)
    data = bytearray(bundle.read_bytes())
    data[-2 * 1024 * 1024] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(IntegrityError):
        index.mirror.import_again(bundle)
    assert index.seen() == {("1.0", b"first")}
    assert index.files("acme-more") == {}
