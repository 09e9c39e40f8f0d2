"""The registry as clients ask for it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from airlift import oci
from airlift.artifact import Artifact, Kind
from airlift.digest import of as digest_of
from tests.support.folders import SharedFolder
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, compact, make_site, ship, take

LAYER = bytes(range(256)) * 4096
SIGNATURE = "application/vnd.example.signature.v1"


@dataclass
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["errors"][0]["code"])


@dataclass
class Served:
    url: str
    app: Artifact
    other: Artifact
    signature: Artifact

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers=names)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers, error.read())


@pytest.fixture(scope="module")
def served(shared_folder: SharedFolder) -> Iterator[Served]:
    folder = shared_folder("registry")
    cargo = Cargo()
    app = cargo.image("docker.io/library/app:1", LAYER)
    cargo.add(Kind.IMAGE, "docker.io/library/app:2", app.root)
    cargo.add(Kind.IMAGE, "docker.io/library/app:3", app.root)
    other = cargo.image("registry.example.com:5000/team/app:1", b"other")
    body = {
        "schemaVersion": 2,
        "mediaType": oci.MANIFEST,
        "artifactType": SIGNATURE,
        "config": cargo.put(b"{}", oci.EMPTY).to_json(),
        "layers": [cargo.put(b"signed", "text/plain", large=True).to_json()],
        "subject": oci.Descriptor(oci.MANIFEST, app.root.digest, app.root.size).to_json(),
        "annotations": {"who": "ann"},
    }
    root = cargo.put(compact(body), oci.MANIFEST)
    signature = cargo.add(Kind.IMAGE, f"docker.io/library/app@{root.digest}", root)
    cargo.add(Kind.IMAGE, "ghcr.io/org/app:1", cargo.image_manifest(b"ghcr"))
    site = make_site(folder / "site")
    take(site, ship(cargo, folder / "bundle"))
    with serving(site.root) as url:
        yield Served(url, app, other, signature)


def test_it_says_that_it_is_a_registry(served: Served) -> None:
    for path in ("/v2/", "/v2"):
        answer = served.ask(path)
        assert (answer.status, answer.headers["Docker-Distribution-Api-Version"]) == (200, "registry/2.0")


@pytest.mark.parametrize(
    "path",
    [
        "/v2/docker.io/library/app/manifests/1",
        "/v2/library/app/manifests/1",
        "/v2/app/manifests/1",
        "/v2/library/app/manifests/1?ns=docker.io",
        "/v2/library/app/manifests/1?ns=registry-1.docker.io",
        "/v2/docker.io/library/app/manifests/1?ns=docker.io",
    ],
)
def test_docker_io_is_found_under_every_name_that_clients_use(served: Served, path: str) -> None:
    answer = served.ask(path)
    assert answer.status == 200
    assert digest_of(answer.body) == served.app.root.digest
    assert answer.headers["Docker-Content-Digest"] == served.app.root.digest
    assert answer.headers["Content-Type"] == oci.MANIFEST


@pytest.mark.parametrize(
    "path",
    [
        "/v2/registry.example.com_5000/team/app/manifests/1",
        "/v2/team/app/manifests/1?ns=registry.example.com%3A5000",
        "/v2/registry.example.com_5000/team/app/manifests/1?ns=registry.example.com:5000",
    ],
)
def test_a_registry_with_a_port_is_found(served: Served, path: str) -> None:
    answer = served.ask(path)
    assert (answer.status, digest_of(answer.body)) == (200, served.other.root.digest)


def test_a_namespace_is_repeated_in_the_answer(served: Served) -> None:
    answer = served.ask("/v2/team/app/manifests/1?ns=registry.example.com%3A5000", "HEAD")
    assert answer.headers["OCI-Namespace"] == "registry.example.com:5000"
    odd = served.ask("/v2/library/app/manifests/1?ns=docker.io%0d%0aX-Evil:1")
    assert odd.headers["X-Evil"] is None


def test_a_repository_of_one_registry_is_not_found_in_another(served: Served) -> None:
    assert served.ask("/v2/team/app/manifests/1?ns=ghcr.io").code == "NAME_UNKNOWN"
    assert served.ask("/v2/library/app/manifests/1?ns=ghcr.io").status == 404
    assert served.ask(f"/v2/ghcr.io/org/app/blobs/{digest_of(LAYER)}").code == "BLOB_UNKNOWN"


def test_head_has_the_headers_of_get(served: Served) -> None:
    for path in ("/v2/library/app/manifests/1", f"/v2/library/app/blobs/{digest_of(LAYER)}", "/v2/app/tags/list"):
        head, get = served.ask(path, "HEAD"), served.ask(path)
        assert (head.status, head.body) == (200, b"")
        for name in ("Content-Length", "Content-Type", "Docker-Content-Digest", "ETag", "Accept-Ranges"):
            assert head.headers[name] == get.headers[name], name


def test_a_manifest_is_found_by_digest_and_no_blob_is_one(served: Served) -> None:
    assert served.ask(f"/v2/library/app/manifests/{served.app.root.digest}").status == 200
    assert served.ask(f"/v2/library/app/manifests/{digest_of(LAYER)}").code == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=1000-", 206, 1000, len(LAYER)),
        ("bytes=-7", 206, len(LAYER) - 7, len(LAYER)),
        (f"bytes=10-{len(LAYER) * 2}", 206, 10, len(LAYER)),
        ("bytes=0-0", 206, 0, 1),
        ("bytes=0-1,5-6", 200, 0, len(LAYER)),
        ("bytes=9-3", 200, 0, len(LAYER)),
        ("rows=0-1", 200, 0, len(LAYER)),
    ],
)
def test_ranges(served: Served, asked: str, status: int, start: int, end: int) -> None:
    answer = served.ask(f"/v2/library/app/blobs/{digest_of(LAYER)}", Range=asked)
    assert (answer.status, answer.body == LAYER[start:end]) == (status, True)
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(LAYER)}"


def test_a_range_behind_the_end_does_not_exist(served: Served) -> None:
    answer = served.ask(f"/v2/library/app/blobs/{digest_of(LAYER)}", Range=f"bytes={len(LAYER)}-")
    assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{len(LAYER)}")


def test_a_range_counts_only_while_the_content_is_the_same(served: Served) -> None:
    path = f"/v2/library/app/blobs/{digest_of(LAYER)}"
    etag = served.ask(path, "HEAD").headers["ETag"]
    assert served.ask(path, Range="bytes=0-9", If_Range=etag).status == 206
    assert served.ask(path, Range="bytes=0-9", If_Range='"other"').status == 200
    assert served.ask(path, If_None_Match=etag).status == 304
    assert served.ask(path, If_None_Match='"other"').status == 200


def test_blobs_are_never_compressed(served: Served) -> None:
    answer = served.ask(f"/v2/library/app/blobs/{digest_of(LAYER)}", Accept_Encoding="zstd,gzip,deflate")
    assert answer.headers["Content-Encoding"] is None
    assert answer.body == LAYER


def test_tags_are_sorted_and_paged(served: Served) -> None:
    assert served.ask("/v2/library/app/tags/list").json == {"name": "library/app", "tags": ["1", "2", "3"]}
    page = served.ask("/v2/docker.io/library/app/tags/list?n=2")
    assert page.json["tags"] == ["1", "2"]
    link = page.headers["Link"]
    assert link == '</v2/docker.io/library/app/tags/list?n=2&last=2>; rel="next"'
    rest = served.ask(link.partition(">")[0][1:])
    assert (rest.json["tags"], rest.headers["Link"]) == (["3"], None)
    assert served.ask("/v2/library/app/tags/list?n=0").json["tags"] == []
    assert served.ask("/v2/library/app/tags/list?n=-1").status == 400
    assert served.ask("/v2/library/app/tags/list?last=zzz").json["tags"] == []


def test_repositories_are_listed(served: Served) -> None:
    assert served.ask("/v2/_catalog").json["repositories"] == [
        "docker.io/library/app",
        "ghcr.io/org/app",
        "registry.example.com_5000/team/app",
    ]


def test_referrers_are_listed_and_filtered(served: Served) -> None:
    path = f"/v2/library/app/referrers/{served.app.root.digest}"
    answer = served.ask(path)
    assert answer.headers["Content-Type"] == oci.INDEX
    assert answer.json["manifests"] == [
        {
            "mediaType": oci.MANIFEST,
            "digest": served.signature.root.digest,
            "size": served.signature.root.size,
            "artifactType": SIGNATURE,
            "annotations": {"who": "ann"},
        }
    ]
    filtered = served.ask(f"{path}?artifactType={SIGNATURE}")
    assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
    assert len(filtered.json["manifests"]) == 1
    assert served.ask(f"{path}?artifactType=text/plain").json["manifests"] == []


def test_what_nothing_refers_to_has_an_empty_list(served: Served) -> None:
    for name in ("library/app", "no/such/repository"):
        answer = served.ask(f"/v2/{name}/referrers/{digest_of(b'nothing')}")
        assert (answer.status, answer.json["manifests"]) == (200, [])
    assert served.ask("/v2/library/app/referrers/sha256:1").code == "DIGEST_INVALID"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/library/none/manifests/1", 404, "NAME_UNKNOWN"),
        ("/v2/library/app/manifests/none", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/library/app/manifests/{digest_of(b'none')}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/library/app/manifests/a%20b", 400, "MANIFEST_INVALID"),
        (f"/v2/library/app/blobs/{digest_of(b'none')}", 404, "BLOB_UNKNOWN"),
        ("/v2/library/app/blobs/sha512:0", 400, "DIGEST_INVALID"),
        ("/v2/li$brary/app/manifests/1", 400, "NAME_INVALID"),
        ("/v2/library/app/other", 404, "NOT_FOUND"),
        ("/v2/..%2f..%2fetc/passwd/manifests/1", 400, "NAME_INVALID"),
    ],
)
def test_what_is_not_there_or_wrong(served: Served, path: str, status: int, code: str) -> None:
    answer = served.ask(path)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_changed(served: Served, method: str) -> None:
    for path in ("/v2/library/app/blobs/uploads/", "/v2/library/app/manifests/1", "/v2/"):
        answer = served.ask(path, method)
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")


def test_the_other_places_answer_too(served: Served) -> None:
    assert served.ask("/healthz").json["status"] == "ok"
    assert "v2/" in served.ask("/").json["airlift"]
    assert served.ask("/nothing").status == 404
    assert served.ask("/files/").status == 200


def test_a_blob_that_lost_its_end_is_an_error_and_not_half_an_answer(tmp_path: Path) -> None:
    cargo = Cargo()
    cargo.image("docker.io/library/app:1", LAYER)
    site = make_site(tmp_path / "site")
    take(site, ship(cargo, tmp_path / "bundle"))
    place = site.store.path(digest_of(LAYER))
    place.write_bytes(LAYER[:-1])
    with serving(site.root) as url:
        served = Served(url, *[cargo.artifacts[0]] * 3)
        answer = served.ask(f"/v2/docker.io/library/app/blobs/{digest_of(LAYER)}")
        place.unlink()
        gone = served.ask(f"/v2/docker.io/library/app/blobs/{digest_of(LAYER)}")
    for one in (answer, gone):
        assert (one.status, one.json) == (500, {"error": "the site cannot read its own content; see its log"})
