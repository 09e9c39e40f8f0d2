"""What every place has to do that a site shows its files in: the embedded server, and nginx with the static tree."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from requests.compat import urljoin

from airlift.errors import IntegrityError
from tests.components import require
from tests.support.mirrors import BACKENDS, Mirror
from tests.support.site_bundles import Cargo, ship

BINARY = bytes(range(256)) * 2000


@pytest.fixture(params=list(BACKENDS))
def mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mirror]:
    with BACKENDS[request.param](tmp_path) as made:
        yield made


def cargo(channel: str = "stable", **files: bytes) -> Cargo:
    made = Cargo(channel)
    for name, data in files.items():
        made.file(name, data)
    return made


def curl(*words: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([require("curl"), "-sS", "--globoff", *words], capture_output=True, timeout=60, check=False)


def got(mirror: Mirror, path: str, *words: str | Path) -> bytes:
    done = curl("-f", *words, f"{mirror.url}/files/{path}")
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def status(mirror: Mirror, path: str, *words: str) -> int:
    return int(curl("-o", "/dev/null", "-w", "%{http_code}", *words, f"{mirror.url}/files/{path}").stdout)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def listed(mirror: Mirror) -> list[dict[str, object]]:
    return list(json.loads(got(mirror, ""))["files"])


def test_a_file_is_got_by_name_and_by_digest(mirror: Mirror) -> None:
    files = {"k3s": BINARY, "docs/read.me": b"text", "bin/tool_1.0+k3s1": b"plus", "empty": b""}
    mirror.take(cargo(**files))
    for name, data in files.items():
        assert got(mirror, name) == data
        assert got(mirror, f"{sha(data)}/{name}") == data
    assert got(mirror, "bin/tool_1.0%2Bk3s1") == b"plus"


def test_what_is_not_there_is_404(mirror: Mirror) -> None:
    mirror.take(cargo(**{"bin/k3s": BINARY, "other": b"other"}))
    for path in (
        "none",
        "k3s",
        f"{sha(BINARY)}/other",
        f"{'0' * 64}/bin/k3s",
        f"{sha(BINARY)[:-1]}/bin/k3s",
        "bin/",
        f"{sha(BINARY)}/bin/",
        "bin/k3s/more",
        "%2e%2e%2fstate.db",
    ):
        assert status(mirror, path) == 404, path


def test_head_and_ranges_are_answered_and_curl_goes_on(mirror: Mirror, tmp_path: Path) -> None:
    mirror.take(cargo(k3s=BINARY))
    head = got(mirror, "k3s", "--head").decode().lower()
    assert f"content-length: {len(BINARY)}" in head
    assert "content-type: application/octet-stream" in head
    assert got(mirror, "k3s", "-r", "10-99") == BINARY[10:100]
    assert got(mirror, "k3s", "-r", "-5") == BINARY[-5:]
    half = tmp_path / "half"
    half.write_bytes(BINARY[:1234])
    got(mirror, "k3s", "-C", "-", "-o", half)
    assert half.read_bytes() == BINARY


def test_a_page_is_a_file_like_any_other(mirror: Mirror) -> None:
    page = b"<html>" * 1000
    mirror.take(cargo(**{"docs/page.html": page}))
    for path in ("docs/page.html", f"{sha(page)}/docs/page.html"):
        head = got(mirror, path, "--head", "-H", "Accept-Encoding: gzip").decode().lower()
        assert "content-type: application/octet-stream" in head
        assert f"content-length: {len(page)}" in head
        assert "content-encoding" not in head


def test_the_list_has_the_files_of_the_active_drops_and_leads_to_them(mirror: Mirror) -> None:
    assert listed(mirror) == []
    mirror.take(cargo(b=b"b", hidden=b"h"))
    mirror.take(cargo(b=b"b"))
    mirror.take(cargo("edge", **{"a/c": b"c"}))
    assert listed(mirror) == [
        {"name": "a/c", "size": 1, "sha256": sha(b"c"), "url": "a/c"},
        {"name": "b", "size": 1, "sha256": sha(b"b"), "url": "b"},
    ]
    for item in listed(mirror):
        done = curl("-f", urljoin(f"{mirror.url}/files/", str(item["url"])))
        assert sha(done.stdout) == item["sha256"]


def test_a_name_moves_with_the_drop_and_the_digest_stays(mirror: Mirror) -> None:
    first, second = b"of the first", b"of the other"
    mirror.take(cargo(tool=first))
    assert got(mirror, "tool") == first
    assert status(mirror, f"{sha(second)}/tool") == 404
    mirror.take(cargo(tool=second))
    assert got(mirror, "tool") == second
    mirror.roll_back()
    assert got(mirror, "tool") == first
    assert [item["sha256"] for item in listed(mirror)] == [sha(first)]
    mirror.activate("stable/2")
    assert got(mirror, "tool") == second
    for data in (first, second):
        assert got(mirror, f"{sha(data)}/tool") == data


def test_a_client_that_has_the_file_of_before_is_never_told_that_it_is_the_same(mirror: Mirror, tmp_path: Path) -> None:
    mirror.take(cargo(tool=b"first"))
    for data in (b"other", b"again"):
        headers = got(mirror, "tool", "--head").decode().splitlines()
        known = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in headers)}
        asked = [f"If-None-Match: {known['etag']}"] if "etag" in known else []
        asked += [f"If-Modified-Since: {known['last-modified']}"] if "last-modified" in known else []
        mirror.take(cargo(tool=data))
        assert got(mirror, "tool", *(word for line in asked for word in ("-H", line))) == data


def test_a_name_that_only_the_later_drop_has_goes_with_it(mirror: Mirror) -> None:
    mirror.take(cargo(tool=b"t"))
    mirror.take(cargo(tool=b"t", more=b"m"))
    mirror.roll_back()
    assert status(mirror, "more") == 404
    assert got(mirror, f"{sha(b'm')}/more") == b"m"


def test_a_pruned_drops_digest_is_gone_and_a_kept_ones_stays(mirror: Mirror) -> None:
    for data in (b"1", b"2", b"3"):
        mirror.take(cargo(tool=data))
    assert mirror.prune(keep=2) == 1
    assert status(mirror, f"{sha(b'1')}/tool") == 404
    assert got(mirror, f"{sha(b'2')}/tool") == b"2"
    assert got(mirror, "tool") == b"3"


def test_nothing_is_seen_of_a_bundle_that_turns_out_wrong(mirror: Mirror) -> None:
    mirror.take(cargo(tool=b"right"))
    bundle = ship(cargo(tool=BINARY * 20), mirror.bundle(2), sequence=2)
    data = bytearray(bundle.read_bytes())
    data[-2 * 1024 * 1024] ^= 1
    bundle.write_bytes(data)
    with pytest.raises(IntegrityError):
        mirror.import_again(bundle)
    assert got(mirror, "tool") == b"right"
    assert status(mirror, f"{sha(BINARY * 20)}/tool") == 404
