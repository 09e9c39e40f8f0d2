"""The half of the registry client that a site uses, against docker-registry and skopeo."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift import digest as digests
from airlift import oci
from airlift.errors import DeliveryError, IntegrityError
from airlift.oci import Descriptor
from airlift.transport.blobs import PROBE
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient, HttpSettings
from airlift.transport.registry import RegistryClient
from airlift.transport.upload import BlobUpload
from tests.support.images import Box, skopeo
from tests.support.registry import Fault, FrontHandler, Registry, refuse, running_front, running_registry


@pytest.fixture(params=[False, True], ids=["plain", "tls+login"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry", secure=request.param) as running:
        yield running


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


def client_of(registry: Registry) -> RegistryClient:
    login = Credentials(registry.username, registry.password) if registry.username else None
    return RegistryClient(registry.host, http=http_of(registry.ca), credentials=login)


def http_of(ca: Path | None = None) -> HttpClient:
    return HttpClient(HttpSettings(ca_bundle=ca), sleep=lambda _: None)


def push(client: RegistryClient, box: Box, repository: str, item: Descriptor, reference: str) -> None:
    manifest = oci.parse_manifest(box.bytes(item.digest), subject=reference, media_type=item.media_type)
    for child in manifest.manifests:
        push(client, box, repository, child, child.digest)
    for blob in (manifest.config, *manifest.layers):
        if blob is not None:
            with client.blob_upload(repository, blob.digest, blob.size) as upload:
                for chunk in box.store.chunks(blob.digest, blob.size):
                    upload.write(chunk)
                upload.commit()
    client.push_manifest(repository, reference, manifest.data, item.media_type)


def feed(upload: BlobUpload, data: bytes) -> None:
    upload.write(data)
    upload.commit()


def test_skopeo_copies_what_we_push_with_the_same_digests(registry: Registry, tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    image = box.image(platform="linux/amd64")
    index = box.index("1", [image, box.image(platform="linux/arm64/v8", text="arm"), box.attestation(image)])
    docker = box.multi("2", docker=True)
    client = client_of(registry)
    for item, tag in ((index, "1"), (docker, "2")):
        push(client, box, "a/b/app", item, tag)
        skopeo(
            "copy", "--all", "--preserve-digests", *registry.skopeo("src"),
            f"docker://{registry.host}/a/b/app:{tag}", f"dir:{tmp_path}/out{tag}",
        )  # fmt: skip
        copied = (tmp_path / f"out{tag}" / "manifest.json").read_bytes()
        assert digests.of(copied) == item.digest
    assert sorted(client.tags("a/b/app")) == ["1", "2"]


def test_what_is_there_is_not_sent_again(plain: Registry) -> None:
    client = client_of(plain)
    data = os.urandom(3_000_000)
    digest = digests.of(data)
    assert client.push_blob("a/b", digest, len(data), lambda: [data]) is True
    assert client.push_blob("a/b", digest, len(data), lambda: [data]) is False
    assert client.mount("c/d", digest, "a/b") is True
    assert client.has_blob("c/d", digest)
    assert client.mount("c/d", digests.of(b"absent"), "a/b") is False
    assert len([line for line in plain.log if line.startswith("PUT")]) == 1


def test_an_empty_blob_and_an_empty_config_are_taken(plain: Registry) -> None:
    client = client_of(plain)
    for data in (b"", b"{}"):
        with client.blob_upload("a/b", digests.of(data), len(data)) as upload:
            upload.write(data)
            upload.commit()
        assert client.has_blob("a/b", digests.of(data))


def test_a_manifest_is_put_once(plain: Registry, tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    item = box.image("1")
    client = client_of(plain)
    push(client, box, "a/b", item, "1")
    assert client.push_manifest("a/b", "1", box.bytes(item.digest), item.media_type) is False
    assert client.push_manifest("a/b", item.digest, box.bytes(item.digest), item.media_type) is False
    assert len([line for line in plain.log if line.startswith("PUT /v2/a/b/manifests")]) == 1
    with pytest.raises(IntegrityError, match=f"expected {item.digest}, got sha256:"):
        client.push_manifest("a/b", item.digest, b"{}", item.media_type)


def test_bytes_that_are_missing_or_too_many_are_refused_here(plain: Registry) -> None:
    client = client_of(plain)
    digest = digests.of(b"abc")
    with (
        pytest.raises(IntegrityError, match="expected 3 bytes, got 2 bytes"),
        client.blob_upload("a/b", digest, 3) as upload,
    ):
        feed(upload, b"ab")
    with (
        pytest.raises(IntegrityError, match="expected 3 bytes, got more"),
        client.blob_upload("a/b", digest, 3) as upload,
    ):
        feed(upload, b"abcd")
    assert not client.has_blob("a/b", digest)


def test_leaving_without_commit_gives_the_upload_up(plain: Registry) -> None:
    client = client_of(plain)
    data = os.urandom(9_000_000)
    with client.blob_upload("a/b", digests.of(data), len(data)) as upload:
        upload.write(data[:8_000_000])
    with contextlib.suppress(RuntimeError), client.blob_upload("a/b", digests.of(data), len(data)) as upload:
        upload.write(data)
        raise RuntimeError
    assert not client.has_blob("a/b", digests.of(data))


def test_a_wrong_digest_is_refused_in_the_registry_s_words(plain: Registry) -> None:
    client = client_of(plain)
    with pytest.raises(DeliveryError, match="answered 400 Bad Request: DIGEST_INVALID"):
        client.push_blob("a/b", digests.of(b"x"), 3, lambda: [b"abc"])


def test_a_registry_that_compares_digests_is_known_by_a_wrong_one_and_keeps_no_content(registry: Registry) -> None:
    client = client_of(registry)
    assert client.compares_digests("a/b")
    before = len(registry.log)
    assert client.compares_digests("c/d")
    assert len(registry.log) == before
    assert not client.has_blob("a/b", digests.of(PROBE))
    # docker-registry writes the state of its hash once more when it has ended the upload.
    assert [path.parts[-3:] for path in (registry.root / "data").rglob("*") if path.is_file()] == [
        ("hashstates", "sha256", "0")
    ]


@pytest.mark.parametrize("status", [201, 202, 400, 403, 503])
def test_a_registry_that_takes_a_wrong_digest_or_says_nothing_clear_is_not_relied_on_and_asked_once(
    plain: Registry, status: int
) -> None:
    with running_front(plain) as front:
        front.compares = refuse(status, b"no", times=1)
        client = RegistryClient(front.host, http=http_of())
        assert not client.compares_digests("a/b")
        assert not client.compares_digests("c/d")
        assert client.push_blob("a/b", digests.of(b"abc"), 3, lambda: [b"abc"])


def test_a_mount_that_does_not_work_leaves_no_upload_open(plain: Registry) -> None:
    client = client_of(plain)
    with client.blob_upload("c/d", digests.of(b"abc"), 3) as upload:
        feed(upload, b"abc")
    assert not client.mount("a/b", digests.of(b"another"), "c/d")
    assert [(line.split()[0], line.split()[-1]) for line in plain.log][-2:] == [("POST", "202"), ("DELETE", "204")]
    # Of an upload that has ended docker-registry leaves nothing, or the state of its hash.
    assert not list((plain.root / "data").rglob("_uploads/*/startedat"))
    assert client.mount("a/b", digests.of(b"abc"), "c/d")


def test_a_registry_that_begins_no_upload_is_not_relied_on(plain: Registry) -> None:
    with running_front(plain) as front:
        front.faults.append(refuse(500, b"", match="/blobs/uploads/"))
        assert not RegistryClient(front.host, http=http_of()).compares_digests("a/b")
        assert [item.method for item in front.asked if item.path != "/v2/"] == ["POST"]


def test_a_registry_that_is_silent_when_it_is_asked_whether_it_compares_gets_blobs_all_the_same(
    plain: Registry,
) -> None:
    gone = threading.Event()
    with running_front(plain) as front:
        front.compares = Fault(lambda _: gone.wait(60) and None)
        client = RegistryClient(front.host, http=HttpClient(HttpSettings(timeout_s=1)))
        assert not client.compares_digests("a/b")
        gone.set()
        assert client.push_blob("a/b", digests.of(b"abc"), 3, lambda: [b"abc"])


def test_a_reused_buffer_is_not_sent_twice(plain: Registry) -> None:
    client = client_of(plain)
    data = os.urandom(10_000_000)
    buffer = bytearray(1_000_000)
    with client.blob_upload("a/b", digests.of(data), len(data)) as upload:
        for start in range(0, len(data), len(buffer)):
            buffer[:] = data[start : start + len(buffer)]
            upload.write(memoryview(buffer))
        upload.commit()
    assert client.has_blob("a/b", digests.of(data))


READ_ONLY = (
    b'{"errors":[{"code":"DENIED","message":"The system is in read only mode. Any modification is prohibited."}]}'
)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_read_only_registry_is_refused_in_its_own_words(plain: Registry, method: str) -> None:
    with running_front(plain) as front:
        front.faults.append(refuse(403, READ_ONLY, method=method))
        client = RegistryClient(front.host, http=http_of())
        data = os.urandom(20_000_000)
        with pytest.raises(DeliveryError, match="DENIED The system is in read only mode") as caught:
            client.push_blob("a/b", digests.of(data), len(data), lambda: [data])
        assert caught.value.mirror == front.host
        assert caught.value.hint == "the registry is read-only; let its administrator end that"
        front.faults.clear()
        assert client.push_blob("a/b", digests.of(data), len(data), lambda: [data])


@pytest.mark.parametrize(
    "change",
    [
        lambda location, front, behind: location.replace(front, "").replace(behind, "").replace("http://", ""),
        lambda location, front, behind: location.replace(front, front.partition(":")[0]),
        lambda location, front, behind: location.replace("http://", "https://"),
        lambda location, front, behind: location.replace("http://" + front, ""),
    ],
    ids=["relative", "lost port", "lost scheme", "path"],
)
def test_a_strange_location_is_followed(plain: Registry, change: object) -> None:
    def odd(handler: FrontHandler) -> None:
        status, headers, data = handler.ask_behind()
        assert "Location" in headers
        headers["Location"] = change(headers["Location"], front.host, plain.host)  # type: ignore[operator]
        handler.answer(status, data, headers)

    with running_front(plain) as front:
        front.faults.append(Fault(odd, method="POST"))
        client = RegistryClient(front.host, http=http_of())
        assert client.push_blob("a/b", digests.of(b"abc"), 3, lambda: [b"abc"])
        assert [item.path for item in front.asked if item.method == "POST"] == ["/v2/a/b/blobs/uploads/"]


def test_a_lost_answer_is_looked_up(plain: Registry) -> None:
    def lose(handler: FrontHandler) -> None:
        handler.ask_behind()
        handler.close_connection = True

    with running_front(plain) as front:
        front.faults.append(Fault(lose, method="PUT", match="/blobs/", times=1))
        client = RegistryClient(front.host, http=http_of())
        with client.blob_upload("a/b", digests.of(b"abc"), 3) as upload:
            upload.write(b"abc")
            upload.commit()
        assert len([item for item in front.asked if item.method == "PUT"]) == 1


def test_a_cut_push_begins_again(plain: Registry) -> None:
    def drop(handler: FrontHandler) -> None:
        handler.rfile.read(1000)
        handler.close_connection = True

    data = os.urandom(5_000_000)
    with running_front(plain) as front:
        front.faults.append(Fault(drop, method="PUT", times=2))
        client = RegistryClient(front.host, http=http_of())
        assert client.push_blob("a/b", digests.of(data), len(data), lambda: [data])
    assert hashlib.sha256(data).hexdigest() in (plain.root / "log").read_text()


def test_an_immutable_tag_with_the_same_digest_is_no_error(plain: Registry, tmp_path: Path) -> None:
    box = Box(tmp_path / "box")
    item = box.image("1")
    push(client_of(plain), box, "a/b", item, item.digest)

    def immutable(handler: FrontHandler) -> None:
        # The first answer was lost: it is there, and the registry refuses the repeated PUT.
        handler.ask_behind()
        handler.answer(412, b'{"errors":[{"code":"PRECONDITION","message":"configured as immutable"}]}')

    with running_front(plain) as front:
        client = RegistryClient(front.host, http=http_of())
        front.faults.append(Fault(immutable, method="PUT", match="/manifests/1"))
        assert client.push_manifest("a/b", "1", box.bytes(item.digest), item.media_type) is True
        other = box.image("2", text="other")
        push(client, box, "a/b", other, other.digest)
        front.faults[:] = [
            refuse(412, b'{"errors":[{"code":"PRECONDITION","message":"configured as immutable"}]}', method="PUT")
        ]
        with pytest.raises(DeliveryError, match="PRECONDITION configured as immutable") as caught:
            client.push_manifest("a/b", "1", box.bytes(other.digest), other.media_type)
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("the tag is immutable and holds other content")


def test_nothing_is_sent_with_a_cookie(plain: Registry) -> None:
    def with_cookie(handler: FrontHandler) -> None:
        status, headers, data = handler.ask_behind()
        handler.answer(status, data, {**headers, "Set-Cookie": "sid=1; Path=/"})

    with running_front(plain) as front:
        front.faults.append(Fault(with_cookie))
        client = RegistryClient(front.host, http=http_of())
        client.push_blob("a/b", digests.of(b"abc"), 3, lambda: [b"abc"])
        assert {item.cookie for item in front.asked} == {None}


def test_a_registry_that_is_gone_is_a_delivery_error() -> None:
    client = RegistryClient("127.0.0.1:1", http=HttpClient(HttpSettings(retries=0)))
    with pytest.raises(DeliveryError, match="connection refused"):
        client.push_blob("a/b", digests.of(b"abc"), 3, lambda: [b"abc"])
