"""`airlift push` and `airlift pull`: a finished bundle in a registry, read by stock ORAS clients too."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import oras.client
import pytest

from airlift import digest as digests
from airlift.errors import DeliveryError, FetchError, IntegrityError, UsageError
from airlift.progress import Silent
from airlift.transport import bundles
from airlift.transport.credentials import Credentials
from airlift.transport.http import HttpClient, HttpSettings
from airlift.transport.registry import RegistryClient
from tests.support.folders import SharedFolder
from tests.support.registry import Fault, FrontHandler, Registry, cut, lie, refuse, running_front, running_registry


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls+login"])
def registry(request: pytest.FixtureRequest, shared_folder: SharedFolder) -> Iterator[Registry]:
    with running_registry(shared_folder("registry"), secure=request.param) as running:
        yield running


def client_of(registry: Registry) -> RegistryClient:
    login = Credentials(registry.username, registry.password) if registry.username else None
    http = HttpClient(HttpSettings(ca_bundle=registry.ca), sleep=lambda _: None)
    return RegistryClient(registry.host, http=http, credentials=login)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "drop-7.airlift"
    path.write_bytes(os.urandom(17 * 1024 * 1024 + 5))
    return path


def test_a_bundle_comes_back_byte_for_byte(registry: Registry, bundle: Path, tmp_path: Path) -> None:
    target = bundles.address(f"oci://{registry.host}/drops/vision:7")
    pushed = bundles.push(bundle, target, client_of(registry), Silent())
    pulled = bundles.pull(target, tmp_path / "again.airlift", client_of(registry), Silent())
    assert pushed == pulled
    assert (tmp_path / "again.airlift").read_bytes() == bundle.read_bytes()
    by_digest = bundles.address(f"oci://{registry.host}/drops/vision@{pushed}")
    assert bundles.pull(by_digest, tmp_path / "third.airlift", client_of(registry), Silent()) == pushed


def test_a_second_push_sends_no_content_again(tmp_path: Path, bundle: Path) -> None:
    with running_registry(tmp_path / "r") as registry:
        target = bundles.address(f"oci://{registry.host}/drops/vision:7")
        bundles.push(bundle, target, client_of(registry), Silent())
        before = len([line for line in registry.log if line.startswith("PATCH")])
        bundles.push(bundle, target, client_of(registry), Silent())
        assert len([line for line in registry.log if line.startswith("PATCH")]) == before == 2


def test_stock_oras_pulls_what_was_pushed_and_the_other_way_round(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_registry(tmp_path / "r") as registry:
        target = bundles.address(f"oci://{registry.host}/drops/vision:7")
        bundles.push(bundle, target, client_of(registry), Silent())
        stock = oras.client.OrasClient(insecure=True)
        (tmp_path / "out").mkdir()
        files = stock.pull(target=f"{registry.host}/drops/vision:7", outdir=str(tmp_path / "out"))
        assert Path(files[0]).name == "drop-7.airlift"
        assert Path(files[0]).read_bytes() == bundle.read_bytes()
        stock.push(target=f"{registry.host}/drops/theirs:1", files=[str(bundle)], disable_path_validation=True)
        theirs = bundles.address(f"oci://{registry.host}/drops/theirs:1")
        bundles.pull(theirs, tmp_path / "theirs.airlift", client_of(registry), Silent())
        assert (tmp_path / "theirs.airlift").read_bytes() == bundle.read_bytes()


def test_a_lying_registry_leaves_no_file(tmp_path: Path, bundle: Path) -> None:
    with running_registry(tmp_path / "r") as registry, running_front(registry) as front:
        bundles.push(bundle, bundles.address(f"oci://{registry.host}/d/v:7"), client_of(registry), Silent())
        front.faults.append(lie(lambda data: data[:-1] + bytes([data[-1] ^ 1]), match="/blobs/"))
        out = tmp_path / "out"
        out.mkdir()
        client = RegistryClient(front.host, http=HttpClient(HttpSettings()))
        with pytest.raises(IntegrityError, match="expected sha256:"):
            bundles.pull(bundles.address(f"oci://{front.host}/d/v:7"), out / "x.airlift", client, Silent())
        assert list(out.iterdir()) == []


def test_a_cut_pull_goes_on_where_it_stopped(tmp_path: Path, bundle: Path) -> None:
    with running_registry(tmp_path / "r") as registry, running_front(registry) as front:
        bundles.push(bundle, bundles.address(f"oci://{registry.host}/d/v:7"), client_of(registry), Silent())
        front.faults.append(cut(match="/blobs/", times=1))
        client = RegistryClient(front.host, http=HttpClient(HttpSettings(), sleep=lambda _: None))
        bundles.pull(bundles.address(f"oci://{front.host}/d/v:7"), tmp_path / "x.airlift", client, Silent())
        assert (tmp_path / "x.airlift").read_bytes() == bundle.read_bytes()
        blobs = [item for item in front.asked if "/blobs/" in item.path]
        assert [item.range for item in blobs] == [None, f"bytes={bundle.stat().st_size // 2}-"]


def test_a_broken_piece_begins_the_upload_again(tmp_path: Path, bundle: Path) -> None:
    with running_registry(tmp_path / "r") as registry, running_front(registry) as front:
        front.faults.append(refuse(503, method="PATCH", times=1))
        client = RegistryClient(front.host, http=HttpClient(HttpSettings(), sleep=lambda _: None))
        bundles.push(bundle, bundles.address(f"oci://{front.host}/d/v:7"), client, Silent())
        assert client_of(registry).manifest("d/v", "7").layers[0].digest == digests.of(bundle.read_bytes())


class Counting(Silent):
    """Counts as a bar does."""

    def __init__(self) -> None:
        self.now = self.total = 0

    def start(self, label: str, total: int, *, unit: str = "B") -> None:
        self.now, self.total = 0, total

    def advance(self, amount: int) -> None:
        self.now += amount


def test_an_upload_that_begins_again_is_counted_from_its_beginning(tmp_path: Path, bundle: Path) -> None:
    with running_registry(tmp_path / "r") as registry, running_front(registry) as front:

        def refuse_the_second(handler: FrontHandler) -> bool:
            if len([item for item in front.asked if item.method == "PATCH"]) != 2:
                return False
            handler.body()
            handler.answer(503)
            return True

        front.faults.append(Fault(refuse_the_second, method="PATCH"))
        client = RegistryClient(front.host, http=HttpClient(HttpSettings(), sleep=lambda _: None))
        counted = Counting()
        bundles.push(bundle, bundles.address(f"oci://{front.host}/d/v:7"), client, counted)
        assert len([item for item in front.asked if item.method == "PATCH"]) == 4
        assert counted.now == counted.total == bundle.stat().st_size


def test_a_read_only_registry_is_refused_in_its_own_words(tmp_path: Path, bundle: Path) -> None:
    with running_registry(tmp_path / "r", read_only=True) as registry:
        target = bundles.address(f"oci://{registry.host}/d/v:7")
        with pytest.raises(DeliveryError, match="answered 405 Method Not Allowed: Method not allowed"):
            bundles.push(bundle, target, client_of(registry), Silent())


def test_what_is_no_bundle_is_not_pulled(registry: Registry, tmp_path: Path) -> None:
    client = client_of(registry)
    client.push_blob("x/y", digests.of(b"{}"), 2, lambda: [b"{}"])
    manifest = (
        b'{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":2},"layers":[]}'
        % digests.of(b"{}").encode()
    )
    client.push_manifest("x/y", "1", manifest, "application/vnd.oci.image.manifest.v1+json")
    with pytest.raises(FetchError, match=r"not a bundle but application/vnd\.oci\.image\.config"):
        bundles.pull(bundles.address(f"oci://{registry.host}/x/y:1"), tmp_path / "x", client, Silent())
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["registry.example.com/a:1", "oci://a/b:1", "oci://nothing", "https://x.io/a:1"])
def test_an_address_needs_its_scheme_and_a_host(text: str) -> None:
    with pytest.raises(UsageError, match="expected oci://HOST/REPOSITORY:TAG"):
        bundles.address(text)


def test_an_address_that_is_no_reference_is_a_matter_of_the_command_line() -> None:
    with pytest.raises(UsageError, match="'Bad' is not a repository path") as caught:
        bundles.address("oci://registry.example.com/Bad:1")
    assert caught.value.hint == "write it as oci://HOST/REPOSITORY:TAG"


def test_push_and_pull_keep_memory_bounded(tmp_path: Path) -> None:
    path = tmp_path / "big.airlift"
    with path.open("wb") as stream:
        for _ in range(300):
            stream.write(os.urandom(1024 * 1024))
    with running_registry(tmp_path / "r") as registry:
        target = bundles.address(f"oci://{registry.host}/d/v:7")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        bundles.push(path, target, client_of(registry), Silent())
        bundles.pull(target, tmp_path / "again.airlift", client_of(registry), Silent())
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 120 * 1024
