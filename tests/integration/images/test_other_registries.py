"""What registries of other makers are known to answer: an import works with it, or ends with what to do.

Each answer is one that users of skopeo, oras, crane or containerd reported; a docker-registry behind a front gives it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.artifact import Kind
from airlift.errors import DeliveryError
from airlift.progress import Silent
from airlift.site.config import Site
from airlift.site.importer import import_bundle
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.refusals import NO_REPOSITORY, TYPE
from airlift.transport.settings import HttpSettings
from tests.support.bundles import NOW
from tests.support.registry import Fault, Front, FrontHandler, refuse, running_front, running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

APP = "docker.io/library/app"
BIG = bytes(range(256)) * 20_000
IMMUTABLE = "the tag is immutable there; take it away at the registry, or ship the content under a new tag"


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with running_registry(tmp_path / "registry") as behind, running_front(behind) as front:
        yield front


@pytest.fixture
def site(front: Front, tmp_path: Path) -> Site:
    return make_site(tmp_path / "site", registry=RegistryConfig(url=f"{front.url}/group"))


def bundle(folder: Path) -> Path:
    made = Cargo()
    made.image(f"{APP}:1", BIG)
    return ship(made, folder / "bundle")


def document(code: str, message: str, detail: object = None) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": detail}]}).encode()


def import_once(site: Site, shipped: Path) -> None:
    import_bundle(site, shipped, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings(retries=0))


@pytest.mark.parametrize(
    ("maker", "match", "method", "status", "body", "said", "hint"),
    [
        (
            "ECR, whose repositories somebody has to make",
            "/blobs/uploads/",
            "POST",
            404,
            document("NAME_UNKNOWN", "The repository with name 'group/x' does not exist in the registry with id '1'"),
            "NAME_UNKNOWN The repository with name 'group/x' does not exist",
            NO_REPOSITORY,
        ),
        (
            "Gitea, where nobody has this name",
            "/blobs/uploads/",
            "POST",
            404,
            b"Not found.\n",
            "answered 404 Not Found: Not found.",
            NO_REPOSITORY,
        ),
        (
            "Nexus and Artifactory, at an address that is not their registry's",
            "/v2/",
            "POST",
            404,
            b"<html><body>Not Found</body></html>",
            "answered 404 Not Found",
            NO_REPOSITORY,
        ),
        (
            "ECR, with immutable tags",
            "/manifests/1",
            "PUT",
            400,
            document(
                "TAG_INVALID",
                "The image tag '1' already exists and cannot be overwritten because the tag is immutable.",
            ),
            "the tag is immutable",
            IMMUTABLE,
        ),
        (
            "Nexus, whose policy disables redeployment",
            "/manifests/1",
            "PUT",
            400,
            document("UNKNOWN", "Repository does not allow updating assets: docker-hosted"),
            "does not allow updating assets",
            IMMUTABLE,
        ),
        (
            "Quay, which takes artifacts that it was told of",
            "/manifests/sha256:",
            "PUT",
            400,
            document("MANIFEST_INVALID", "manifest invalid", {"message": "config of unknown type"}),
            "MANIFEST_INVALID manifest invalid (config of unknown type)",
            TYPE,
        ),
        (
            "zot, which takes no manifests of Docker's",
            "/manifests/sha256:",
            "PUT",
            415,
            document("MANIFEST_INVALID", "manifest invalid", {"mediaType": "application/vnd.docker"}),
            "answered 415 Unsupported Media Type",
            TYPE,
        ),
        (
            "Quay and GitLab, where the account may not write",
            "/blobs/uploads/",
            "POST",
            401,
            document("UNAUTHORIZED", "access to the requested resource is not authorized"),
            "access to the requested resource is not authorized",
            (
                "give the registry's username and password_file in site.yaml, or mend them: a password may have changed, or"
                " the account may not write there"
            ),
        ),
        (
            "several docker-registries behind one address without a common secret",
            "digest=",
            "PUT",
            404,
            document("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry"),
            "BLOB_UPLOAD_UNKNOWN",
            (
                "the registry lost the upload; where several of them answer at one address, they need one storage and one"
                " http.secret"
            ),
        ),
        (
            "a proxy that takes no large requests",
            "digest=",
            "PUT",
            413,
            b"<html><head><title>413 Request Entity Too Large</title></head></html>",
            "answered 413",
            "a proxy in front of the registry limits the size of requests",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value and "," in value else "",
)
def test_a_refusal_says_what_to_do(
    front: Front, site: Site, tmp_path: Path, maker: str, match: str, method: str, status: int, body: bytes, said: str, hint: str
) -> None:  # fmt: skip
    del maker
    front.compares = refuse(400, document("DIGEST_INVALID", "no"), times=1)
    front.faults.append(refuse(status, body, match=match, method=method))
    shipped = bundle(tmp_path)
    with pytest.raises(DeliveryError) as caught:
        import_once(site, shipped)
    assert said in caught.value.message
    assert caught.value.hint == hint
    front.faults.clear()
    assert take(site, shipped).drop.active


@pytest.mark.parametrize("status", [400, 404, 405, 501])
def test_a_registry_that_knows_no_mount_gets_the_layer_twice(
    front: Front, site: Site, tmp_path: Path, status: int
) -> None:
    front.faults.append(refuse(status, document("UNSUPPORTED", "no"), match="mount="))
    made = Cargo()
    made.image(f"{APP}:1", BIG)
    made.image("quay.io/team/app:1", BIG)
    assert take(site, ship(made, tmp_path / "bundle")).drop.active
    assert front.paths("mount=")


def test_an_upload_that_another_of_several_registries_does_not_know_is_begun_anew(
    front: Front, site: Site, tmp_path: Path
) -> None:
    lost = document("BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
    front.faults.append(refuse(404, lost, match="digest=", method="PUT", times=2))
    assert take(site, bundle(tmp_path)).drop.active


def test_what_refers_to_an_image_comes_after_it_whatever_its_place_in_the_drop(
    front: Front, site: Site, tmp_path: Path
) -> None:
    made = Cargo()
    image = made.image_manifest(BIG)
    bill = made.referrer(APP, image, b"a bill")
    about_it = made.referrer(APP, bill, b"a signature of the bill")
    made.artifacts.reverse()
    made.add(Kind.IMAGE, f"{APP}:1", image)
    came: list[str] = []
    wanted = [image.digest, bill.digest, about_it.digest]

    def note(handler: FrontHandler) -> bool:
        handler.pass_on()
        came.append(handler.path.rpartition("/")[2])
        return True

    front.faults.append(Fault(note, match="/manifests/sha256:", method="PUT"))
    assert take(site, ship(made, tmp_path / "bundle")).drop.active
    assert came == wanted
