"""A docker-registry that lost its power while it wrote: its links are there, without content, and it answers 500."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.errors import DeliveryError
from airlift.progress import Silent
from airlift.site import repair
from airlift.site.config import Site
from airlift.site.inspection import Finding
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.http import HttpSettings
from airlift.transport.registry import fallback_tag
from tests.integration.site.test_referrers import APP, client_of, shipped
from tests.support.bundles import NOW
from tests.support.harbor_sites import import_once
from tests.support.registry import Registry, refuse, running_front, running_registry
from tests.support.site_bundles import make_site, ship, take

ONCE = HttpSettings(retries=0)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


def tear(registry: Registry, link: str) -> None:
    path = registry.root / "data/docker/registry/v2/repositories" / APP / "_manifests" / link / "link"
    assert path.read_bytes()
    path.write_bytes(b"")


def check(site: Site) -> list[Finding]:
    return repair.check(site, progress=Silent(), http=ONCE)


def test_a_torn_tag_and_a_torn_list_are_found_and_mended(registry: Registry, tmp_path: Path) -> None:
    cargo, image, made = shipped(2)
    site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
    take(site, ship(cargo, tmp_path / "drop.airlift"))
    digest = image.root.digest
    tear(registry, "tags/1/current")
    tear(registry, f"tags/{fallback_tag(digest)}/current")
    found = check(site)
    assert sorted(item.problem for item in found) == [
        *[f"not listed as a referrer of {digest}: the registry answers 500"] * 2,
        f"the tag cannot be read: the registry answers 500, expected {digest}",
    ]
    assert repair.repair(site, found, None, now=NOW, passphrase=b"", progress=Silent(), http=ONCE) == []
    client = client_of(registry.host)
    assert client.manifest(APP, "1").descriptor.digest == digest
    assert sorted(item.digest for item in client.referrers(APP, digest)) == sorted(made)


def test_a_torn_manifest_is_found_and_mended(registry: Registry, tmp_path: Path) -> None:
    cargo, image, _ = shipped(0)
    site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
    take(site, ship(cargo, tmp_path / "drop.airlift"))
    tear(registry, f"revisions/sha256/{image.root.digest[7:]}")
    found = check(site)
    assert "damaged: the registry answers 500" in [item.problem for item in found]
    assert repair.repair(site, found, None, now=NOW, passphrase=b"", progress=Silent(), http=ONCE) == []
    assert client_of(registry.host).manifest(APP, "1").descriptor.digest == image.root.digest


def test_a_torn_link_of_a_blob_is_found_and_mended(registry: Registry, tmp_path: Path) -> None:
    cargo, image, _ = shipped(0)
    big = cargo.image(f"{APP}:2", bytes(200_000))
    site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
    drop = ship(cargo, tmp_path / "drop.airlift")
    take(site, drop)
    for layer in client_of(registry.host).manifest(APP, "2").layers:
        tear(registry, f"../_layers/sha256/{layer.digest[7:]}")
    found = check(site)
    assert [item.problem for item in found] == ["damaged: the registry answers 500"]
    assert repair.repair(site, found, drop, now=NOW, passphrase=b"", progress=Silent(), http=ONCE) == []
    assert client_of(registry.host).manifest(APP, "2").descriptor.digest == big.root.digest != image.root.digest


def test_the_next_import_goes_on_over_torn_links(registry: Registry, tmp_path: Path) -> None:
    cargo, image, made = shipped(1)
    site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
    take(site, ship(cargo, tmp_path / "1.airlift"))
    for link in ("tags/1/current", f"tags/{fallback_tag(image.root.digest)}/current"):
        tear(registry, link)
    cargo, _, more = shipped(2)
    cargo.image(f"{APP}:2", b"another")
    import_once(site, ship(cargo, tmp_path / "2.airlift", sequence=2))
    assert check(site) == []
    found = client_of(registry.host).referrers(APP, image.root.digest)
    assert sorted(item.digest for item in found) == sorted({*made, *more})


def test_a_list_that_a_registry_in_trouble_does_not_give_is_not_written_anew(
    registry: Registry, tmp_path: Path
) -> None:
    cargo, image, _ = shipped(1)
    take(make_site(tmp_path / "other", registry=RegistryConfig(url=registry.url)), ship(cargo, tmp_path / "1.airlift"))
    listed = client_of(registry.host).manifest(APP, fallback_tag(image.root.digest)).data
    cargo, _, _ = shipped(3)
    subject = image.root.digest
    with running_front(registry) as front:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))
        front.faults.append(refuse(500, match=f"/manifests/{fallback_tag(subject)}"))
        front.faults.append(refuse(500, match=f"/manifests/{subject}", method="HEAD"))
        with pytest.raises(DeliveryError, match="500"):
            import_once(site, ship(cargo, tmp_path / "2.airlift"))
    assert client_of(registry.host).manifest(APP, fallback_tag(subject)).data == listed
