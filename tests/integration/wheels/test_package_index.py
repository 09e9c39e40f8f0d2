"""The site's package index under pip, uv and plain requests."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from airlift.manifest import Target
from tests.components import require
from tests.support.folders import SharedFolder
from tests.support.indexes import FakeIndex, make_sdist, running_index
from tests.support.package_site import PackageSite, carry
from tests.support.wheel_source import GLIBC, MUSL, Bench

HERE = Target(python=f"3.{sys.version_info.minor}", platform="linux/amd64", libc="glibc-2.28")
V1_JSON = "application/vnd.pypi.simple.v1+json"
TORCH = "acme_torch-2.1.0+cpu-py3-none-any.whl"


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeIndex]:
    with running_index() as index:
        index.wheel("acme.plug_in", "1.0", requires=["acme-torch>=2"], python=">=3.9")
        index.wheel("acme_torch", "2.1.0+cpu", payload=hashlib.shake_256(b"t").digest(300_000))
        index.wheel("old", "1.0", said={"yanked": "broken <here>"})
        index.add("only", "only-1.0.tar.gz", make_sdist("only", "1.0"))
        yield index


@pytest.fixture(scope="module")
def site(shared_folder: SharedFolder, upstream: FakeIndex) -> PackageSite:
    bench = Bench(shared_folder("connected"), upstream.url)
    entry = bench.resolve("Acme_Plug-In", "old==1.0", "only", targets=[HERE, GLIBC, MUSL], allow_sdist=True)
    made = PackageSite(shared_folder("site"))
    carry(entry, bench.source(), made.store, bench.cache)
    made.publish([entry], sequence=1)
    return made


@pytest.fixture(scope="module")
def url(site: PackageSite) -> Iterator[str]:
    with site.serving() as base:
        yield base


def get(url: str, accept: str | None = V1_JSON, **more: object) -> requests.Response:
    headers = {"Accept": accept} if accept else {}
    return requests.get(url, headers=headers, allow_redirects=False, timeout=10, **more)  # type: ignore[arg-type]


def wheel_url(base: str, project: str) -> str:
    page = get(f"{base}/simple/{project}/").json()
    return f"{base}/simple/{project}/{page['files'][0]['url']}"


def test_the_list_of_projects_is_there_in_both_forms(url: str) -> None:
    answer = get(f"{url}/simple/")
    assert answer.headers["Content-Type"] == V1_JSON
    assert [item["name"] for item in answer.json()["projects"]] == ["acme-plug-in", "acme-torch", "old", "only"]
    page = get(f"{url}/simple/", accept="text/html")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert '<a href="acme-torch/">acme-torch</a>' in page.text


def test_pages_vary_have_an_etag_and_are_not_sent_twice(url: str) -> None:
    first = get(f"{url}/simple/acme-torch/")
    assert first.headers["Vary"] == "Accept"
    again = requests.get(
        f"{url}/simple/acme-torch/", headers={"Accept": V1_JSON, "If-None-Match": first.headers["ETag"]}, timeout=10
    )
    assert (again.status_code, again.content) == (304, b"")
    other = get(f"{url}/simple/acme-torch/", accept="text/html")
    assert other.headers["ETag"] != first.headers["ETag"]
    head = requests.head(f"{url}/simple/acme-torch/", headers={"Accept": V1_JSON}, timeout=10)
    assert head.headers["Content-Length"] == str(len(first.content))
    assert head.content == b""


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/simple", "/simple/"),
        ("/simple/acme-torch", "/simple/acme-torch/"),
        ("/simple/Acme_Torch", "/simple/acme-torch/"),
        ("/simple/acme.torch/", "/simple/acme-torch/"),
        ("/simple/ACME--torch/", "/simple/acme-torch/"),
    ],
)
def test_other_spellings_are_sent_to_the_one_page(url: str, path: str, location: str) -> None:
    answer = get(url + path)
    assert answer.status_code == 301
    assert requests.compat.urljoin(url + path, answer.headers["Location"]) == url + location


@pytest.mark.parametrize("accept", ["image/png", "application/json", "*/*;q=0"])
def test_a_form_that_does_not_exist_is_406(url: str, accept: str) -> None:
    answer = get(f"{url}/simple/", accept=accept)
    assert answer.status_code == 406
    assert V1_JSON in answer.text


def test_what_is_not_there_is_404(url: str) -> None:
    zeros, torch = "0" * 64, wheel_url(url, "acme-torch")
    for path in (
        f"{url}/simple/nothing/",
        f"{url}/simple/acme-torch/{zeros}/{TORCH}",
        f"{url}/simple/acme-torch/nohex/{TORCH}",
        torch.replace("/simple/acme-torch/", "/simple/old/"),
        torch.rpartition("/")[0] + "/other-1.0-py3-none-any.whl",
        torch + ".asc",
        f"{url}/simple/..%2f..%2fstate.db/",
        f"{url}/simple/x%0d%0aSet-Cookie:%20a=b",
        f"{url}/simple/.hidden/",
    ):
        assert get(path).status_code == 404, path
    assert requests.post(f"{url}/simple/", timeout=10).status_code == 405


def test_requires_python_and_yanked_are_on_both_pages(url: str) -> None:
    assert get(f"{url}/simple/acme-plug-in/").json()["files"][0]["requires-python"] == ">=3.9"
    assert 'data-requires-python="&gt;=3.9"' in get(f"{url}/simple/acme-plug-in/", accept=None).text
    assert get(f"{url}/simple/old/").json()["files"][0]["yanked"] == "broken <here>"
    assert 'data-yanked="broken &lt;here&gt;"' in get(f"{url}/simple/old/", accept=None).text


def test_a_plus_is_served_plain_and_quoted(url: str, upstream: FakeIndex) -> None:
    quoted = wheel_url(url, "acme-torch")
    assert quoted.endswith("/acme_torch-2.1.0%2Bcpu-py3-none-any.whl")
    data = upstream.files["acme-torch"][0].data
    for address in (quoted, quoted.replace("%2B", "+")):
        assert get(address).content == data
        assert b"Name: acme_torch" in get(address + ".metadata").content


def test_files_know_ranges_head_and_etags(url: str, upstream: FakeIndex) -> None:
    address, data = wheel_url(url, "acme-torch"), upstream.files["acme-torch"][0].data
    part = requests.get(address, headers={"Range": "bytes=10-19"}, timeout=10)
    assert (part.status_code, part.content) == (206, data[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(data)}"
    head = requests.head(address, timeout=10)
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(data)))
    same = requests.get(address, headers={"If-None-Match": head.headers["ETag"]}, timeout=10)
    assert same.status_code == 304


def test_files_are_served_under_every_spelling_of_their_project(url: str, upstream: FakeIndex) -> None:
    address = wheel_url(url, "acme-torch")
    for spelling in ("acme_torch", "Acme.Torch", "ACME--torch"):
        other = address.replace("/simple/acme-torch/", f"/simple/{spelling}/")
        assert get(other).content == upstream.files["acme-torch"][0].data
        assert get(other + ".metadata").content == get(address + ".metadata").content
        assert requests.head(other + ".metadata", timeout=10).status_code == 200


def run(*command: object, **environment: str) -> str:
    kept = {"PATH": os.environ["PATH"], "HOME": environment.pop("home"), **environment}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, env=kept, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_pip_installs_from_behind_a_prefix(site: PackageSite, tmp_path: Path) -> None:
    with site.serving("/behind/a/prefix") as base:
        said = run(
            sys.executable, "-m", "pip", "install", "-v", "--isolated", "--no-cache-dir", "--disable-pip-version-check",
            "--index-url", f"{base}/simple/", "--target", tmp_path / "t", "Acme.Plug-In", "only",
            PIP_CONFIG_FILE=os.devnull, home=str(tmp_path),
        )  # fmt: skip
    assert ".whl.metadata" in said
    names = {path.name for path in (tmp_path / "t").iterdir()}
    assert {"acme_plug_in", "acme_torch", "acme_torch-2.1.0+cpu.dist-info", "only.py"} <= names


def test_uv_installs_from_behind_a_prefix(site: PackageSite, tmp_path: Path) -> None:
    uv = require("uv")
    with site.serving("/behind/a/prefix") as base:
        run(
            uv, "pip", "install", "--no-cache", "--no-config", "--python", sys.executable, "--default-index",
            f"{base}/simple/", "--target", tmp_path / "t", "acme--plug.in", "only",
            UV_PYTHON_DOWNLOADS="never", home=str(tmp_path),
        )  # fmt: skip
    assert {"acme_plug_in", "acme_torch", "only.py"} <= {path.name for path in (tmp_path / "t").iterdir()}


def test_two_sets_with_one_file_show_it_once(tmp_path: Path, upstream: FakeIndex) -> None:
    bench = Bench(tmp_path, upstream.url)
    entries = [bench.resolve("acme-torch", targets=[target]) for target in (GLIBC, MUSL)]
    made = PackageSite(tmp_path / "site")
    for entry in entries:
        carry(entry, bench.source(), made.store, bench.cache)
    made.publish(entries, sequence=1)
    with made.serving() as base:
        assert len(json.loads(get(f"{base}/simple/acme-torch/").text)["files"]) == 1
