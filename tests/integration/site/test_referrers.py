"""What refers to an image in a registry without the referrers API: found by the tag that stands for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift import oci
from airlift.artifact import Artifact
from airlift.digest import Digest
from airlift.progress import Silent
from airlift.site import repair
from airlift.site.config import load_site
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.http import HttpClient, HttpSettings
from airlift.transport.refusals import delivering
from airlift.transport.registry import RegistryClient, fallback_tag
from tests.support.bundles import NOW
from tests.support.registry import Registry, refuse, running_front, running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

APP = "docker.io/library/app"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


def client_of(host: str) -> RegistryClient:
    return RegistryClient(host, http=HttpClient(HttpSettings(retries=0), Silent()), plain_http=True)


def referrer(cargo: Cargo, image: Artifact, text: bytes) -> Digest:
    return cargo.referrer(APP, image.root, text).digest


def shipped(count: int) -> tuple[Cargo, Artifact, list[Digest]]:
    cargo = Cargo()
    image = cargo.image(f"{APP}:1", b"layer")
    return cargo, image, [referrer(cargo, image, b"word %d" % number) for number in range(count)]


def test_all_referrers_of_an_image_are_listed_under_its_tag_and_twice_is_once(
    registry: Registry, tmp_path: Path
) -> None:
    cargo, image, made = shipped(6)
    drop = ship(cargo, tmp_path / "drop.airlift")
    client = client_of(registry.host)
    for name in ("site", "other"):
        take(make_site(tmp_path / name, registry=RegistryConfig(url=registry.url)), drop)
        found = client.referrers(APP, image.root.digest)
        assert sorted(item.digest for item in found) == sorted(made)
        assert {item.artifact_type for item in found} == {"application/vnd.example.v1"}
        assert {item.annotations["said"] for item in found} == {f"word {number}" for number in range(6)}
    assert sorted(client.tags(APP)) == sorted(["1", fallback_tag(image.root.digest)])


def test_entries_of_others_stay(registry: Registry, tmp_path: Path) -> None:
    cargo, image, made = shipped(1)
    client = client_of(registry.host)
    tag = fallback_tag(image.root.digest)
    theirs = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % oci.INDEX.encode()
    client.push_manifest(APP, "theirs", theirs, oci.INDEX)
    index = {"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [oci.describe(theirs, oci.INDEX).to_json()]}
    client.push_manifest(APP, tag, json.dumps({**index, "annotations": {"kept": "yes"}}).encode(), oci.INDEX)
    take(make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url)), ship(cargo, tmp_path / "d.airlift"))
    found = client.manifest(APP, tag)
    assert [item.digest for item in found.manifests] == [oci.describe(theirs, oci.INDEX).digest, *made]
    assert found.annotations == {"kept": "yes"}


def test_a_registry_that_lists_referrers_itself_gets_no_tag(registry: Registry, tmp_path: Path) -> None:
    cargo, _, _ = shipped(2)
    with running_front(registry) as front:
        empty = b'{"schemaVersion":2,"mediaType":"%s","manifests":[]}' % oci.INDEX.encode()
        front.faults.append(refuse(200, empty, {"Content-Type": oci.INDEX}, match="/referrers/"))
        take(make_site(tmp_path / "site", registry=RegistryConfig(url=front.url)), ship(cargo, tmp_path / "d.airlift"))
    assert client_of(registry.host).tags(APP) == ("1",)


def test_a_list_that_was_taken_away_is_found_and_made_again(registry: Registry, tmp_path: Path) -> None:
    cargo, image, made = shipped(2)
    site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
    take(site, ship(cargo, tmp_path / "d.airlift"))
    client = client_of(registry.host)
    index = client.manifest(APP, fallback_tag(image.root.digest)).descriptor
    assert repair.check(site, progress=Silent(), http=HttpSettings()) == []
    with delivering(client.registry):
        client.http.exchange("DELETE", client.url(f"/v2/{APP}/manifests/{index.digest}"), limit=1000, plain_http=True)
    found = repair.check(site, progress=Silent(), http=HttpSettings())
    assert sorted(item.problem for item in found) == [f"not listed as a referrer of {image.root.digest}"] * 2
    left = repair.repair(site, found, None, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings())
    assert left == []
    assert sorted(item.digest for item in client.referrers(APP, image.root.digest)) == sorted(made)


def test_a_site_that_gets_a_registry_later_fills_it_from_its_store(registry: Registry, tmp_path: Path) -> None:
    root = make_site(tmp_path / "site").root
    cargo = Cargo()
    old = cargo.image(f"{APP}:1", b"old" * 3_000_000)
    take(load_site(root), ship(cargo, tmp_path / "1.airlift"))
    cargo = Cargo()
    new = cargo.image(f"{APP}:1", b"new" * 3_000_000)
    cargo.file("tool", b"a tool")
    take(load_site(root), ship(cargo, tmp_path / "2.airlift", sequence=2))
    with (root / "site.yaml").open("a") as stream:
        stream.write(f"registry: {{url: '{registry.url}'}}\n")
    site = load_site(root)
    found = repair.check(site, progress=Silent(), http=HttpSettings())
    assert found[0].problem == "the repository is gone: none of its 5 objects is there"
    left = repair.repair(site, found, None, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings())
    assert left == []
    client = client_of(registry.host)
    assert client.manifest(APP, "1").descriptor.digest == new.root.digest
    assert client.manifest(APP, old.root.digest).descriptor.digest == old.root.digest
