"""Real wheels: from nginx with a static index, into a site, and out again with pip and uv."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift import digest as digests
from airlift.lock import Lock, LockedEntry
from airlift.manifest import Target
from tests.components import require
from tests.support.chart_servers import nginx
from tests.support.folders import SharedFolder
from tests.support.package_site import PackageSite, carry
from tests.support.real_wheels import NGINX, NGINX_HTML, PROJECTS, real_wheels, static_index
from tests.support.wheel_source import Bench, pins

HERE = Target(python=f"3.{sys.version_info.minor}", platform="linux/amd64", libc="glibc-2.36")
FOREIGN = Target(python="3.12", platform="linux/arm64", libc="musl-1.2")


@pytest.fixture(scope="module")
def upstream(shared_folder: SharedFolder) -> Iterator[str]:
    root = shared_folder("upstream")
    static_index(root / "www", real_wheels())
    with nginx(root / "www", root / "nginx", NGINX) as url:
        yield f"{url}/simple/"


@pytest.fixture(scope="module")
def bench(upstream: str, shared_folder: SharedFolder) -> Bench:
    return Bench(shared_folder("bench"), upstream)


@pytest.fixture(scope="module")
def entry(bench: Bench) -> LockedEntry:
    return bench.resolve(*PROJECTS, targets=[HERE, FOREIGN])


@pytest.fixture(scope="module")
def site(bench: Bench, entry: LockedEntry, shared_folder: SharedFolder) -> PackageSite:
    made = PackageSite(shared_folder("site"))
    carry(entry, bench.source(), made.store, bench.cache)
    made.publish([entry], sequence=1)
    return made


def test_the_lock_has_the_digests_of_the_files_that_pip_downloads(entry: LockedEntry) -> None:
    expected = {path.name: digests.of(path.read_bytes()) for path in real_wheels()}
    found = {blob.origin["file"]: blob.digest for blob in entry.artifacts[0].large if "whl" in blob.media_type
             or blob.media_type.endswith("zip")}  # fmt: skip
    assert found
    for name, digest in found.items():
        assert digest == expected[name]
    by_target = pins(entry)
    assert any("musllinux" in name and "aarch64" in name for name in by_target[str(FOREIGN)])
    assert not any("manylinux" in name for name in by_target[str(FOREIGN)])
    assert len(found) == len({name for names in by_target.values() for name in names})


def test_html_alone_and_no_metadata_give_the_same_lock(entry: LockedEntry, tmp_path: Path) -> None:
    static_index(tmp_path / "www", real_wheels(), with_json=False, with_metadata=False)
    with nginx(tmp_path / "www", tmp_path / "nginx", NGINX_HTML) as url:
        (tmp_path / "b").mkdir()
        other = Bench(tmp_path / "b", f"{url}/simple/", has_cache=False).resolve(*PROJECTS, targets=[HERE, FOREIGN])
    platforms = ("linux/amd64",)
    assert Lock("d", "s", {}, platforms, (other,)).encode() == Lock("d", "s", {}, platforms, (entry,)).encode()


def check(command: list[str], tmp_path: Path) -> None:
    home = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_PYTHON_DOWNLOADS": "never"}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**home, "PIP_CONFIG_FILE": os.devnull},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    code = "import numpy, cryptography.fernet as f, rich, pydantic, click; print(numpy.arange(3).sum(), f.Fernet.generate_key())"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(tmp_path / "t")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("3 ")


def test_pip_installs_what_runs(site: PackageSite, tmp_path: Path) -> None:
    with site.serving() as url:
        command = [sys.executable, "-m", "pip", "install", "-q", "--isolated", "--no-cache-dir", "--index-url"]
        check([*command, f"{url}/simple/", "--target", str(tmp_path / "t"), *PROJECTS], tmp_path)


def test_uv_installs_what_runs(site: PackageSite, tmp_path: Path) -> None:
    with site.serving() as url:
        command = [str(require("uv")), "pip", "install", "--no-cache", "--no-config", "--python", sys.executable]
        target = ["--target", str(tmp_path / "t")]
        check([*command, "--default-index", f"{url}/simple/", *target, *PROJECTS], tmp_path)


def test_pip_finds_the_wheels_of_the_other_target(site: PackageSite, tmp_path: Path, entry: LockedEntry) -> None:
    with site.serving() as url:
        platforms = [word for tag in ("musllinux_1_2_aarch64", "musllinux_1_1_aarch64") for word in ("--platform", tag)]
        command = [sys.executable, "-m", "pip", "download", "-q", "--isolated", "--no-cache-dir", "--index-url",
                   f"{url}/simple/", "--only-binary", ":all:", "--python-version", "3.12", *platforms]  # fmt: skip
        done = subprocess.run(
            [*command, "-d", str(tmp_path), *PROJECTS], capture_output=True, text=True, check=False, timeout=180
        )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("*.whl")) == sorted(pins(entry)[str(FOREIGN)])
