"""A site that was really damaged: what `airlift check` finds, and what `--repair` mends."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift import canonical
from airlift.digest import of as digest_of
from airlift.errors import DeliveryError, UsageError
from airlift.progress import Silent
from airlift.site import drops, repair
from airlift.site.config import Site
from airlift.site.inspection import Finding, Place
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.settings import HttpSettings
from tests.support.bundles import NOW
from tests.support.cli import airlift
from tests.support.registry import Registry, refuse, running_front, running_registry
from tests.support.site_bundles import SBOM, Cargo, make_site, ship, take

APP = "docker.io/library/app"
BIG = hashlib.shake_256(b"big").digest(5 * 1024 * 1024)
"""Larger than what a site with a registry keeps in its store."""


def month(number: int) -> Cargo:
    cargo = Cargo()
    cargo.image(f"{APP}:1", b"layer %d" % number, BIG)
    cargo.file("tool", b"tool of month %d" % number)
    return cargo


def bundle(folder: Path, number: int) -> Path:
    return ship(month(number), folder / f"{number}.airlift", sequence=number)


def check(site: Site, *, deep: bool = False) -> list[Finding]:
    return repair.check(site, progress=Silent(), http=HttpSettings(), is_deep=deep)


def mend(site: Site, with_bundle: Path | None = None) -> list[Finding]:
    return repair.repair(
        site, check(site), with_bundle, now=NOW, passphrase=b"", progress=Silent(), http=HttpSettings()
    )


def said(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(item.place.value, item.subject, item.problem) for item in findings]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    for number in (1, 2):
        take(made, bundle(tmp_path, number))
    return made


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def filled(tmp_path: Path, registry: Registry) -> Site:
    made = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
    for number in (1, 2):
        take(made, bundle(tmp_path, number))
    return made


def test_a_site_that_is_whole_is_clean(site: Site, tmp_path: Path) -> None:
    assert check(site) == []
    ran = airlift("check", "--site", site.root, "--json", home=tmp_path)
    assert (ran.code, ran.json) == (0, {"clean": True, "findings": []})


def test_a_bundle_that_is_none_is_refused_before_anything(site: Site, tmp_path: Path) -> None:
    ran = airlift("check", "--site", site.root, "--repair", tmp_path / "NOSUCH", home=tmp_path)
    assert (ran.code, ran.out, "NOSUCH: no such file" in ran.err) == (2, "", True)
    text = tmp_path / "text.airlift"
    text.write_bytes(b"no bundle")
    ran = airlift("check", "--site", site.root, "--repair", text, home=tmp_path)
    assert (ran.code, ran.out, str(text) in ran.err) == (13, "", True), ran.err


def test_flipped_missing_and_emptied_blobs_are_found_and_mended_from_their_bundles(site: Site, tmp_path: Path) -> None:
    flipped, gone, emptied = digest_of(b"tool of month 1"), digest_of(b"tool of month 2"), digest_of(BIG)
    path = site.store.path(flipped)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    wrong = digest_of(path.read_bytes())
    site.store.path(gone).unlink()
    site.store.path(emptied).write_bytes(b"")
    assert sorted(said(check(site))) == sorted(
        [
            ("store", flipped, f"damaged: its bytes have the digest {wrong}"),
            ("store", gone, "missing"),
            ("store", emptied, f"damaged: 0 bytes, expected {len(BIG)}"),
        ]
    )
    ran = airlift("check", "--site", site.root, home=tmp_path)
    assert (ran.code, "3 findings" in ran.out, "do: airlift check --site DIR --repair BUNDLE" in ran.out) == (
        12,
        True,
        True,
    )
    active = [drop.release for drop in drops.list_drops(site) if drop.active]
    # The older bundle is too old to be imported, but not to mend its own drop.
    assert said(mend(site, tmp_path / "1.airlift")) == [("store", gone, "missing")]
    assert mend(site, tmp_path / "2.airlift") == []
    assert [drop.release for drop in drops.list_drops(site) if drop.active] == active
    assert airlift("check", "--site", site.root, home=tmp_path).code == 0


def test_a_damaged_manifest_is_found_and_mended(site: Site, tmp_path: Path) -> None:
    digest = month(2).artifacts[0].root.digest
    path = site.store.path(digest)
    path.write_bytes(path.read_bytes().replace(b"2", b"3", 1))
    assert [(item.place.value, item.subject) for item in check(site)] == [("store", digest)]
    assert mend(site, tmp_path / "2.airlift") == []


def test_a_missing_file_of_a_drop_is_found_and_mended(site: Site, tmp_path: Path) -> None:
    release = drops.find(site, "stable/2").release
    (site.drops_dir / release / "airlift.json").unlink()
    assert said(check(site)) == [("drops", f"drops/{release}/airlift.json", "missing")]
    assert mend(site, tmp_path / "2.airlift") == []


def test_every_changed_or_missing_file_of_a_drop_is_found_and_mended(site: Site, tmp_path: Path) -> None:
    release = drops.find(site, "stable/2").release
    folder = site.drops_dir / release
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(whole) == ["airlift.json", "attest.json", "index.json", "sbom.cdx.json"]

    envelope = json.loads(whole["airlift.json"])
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    signature[-1] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    (folder / "airlift.json").write_bytes(canonical.encode(envelope))
    (folder / "sbom.cdx.json").write_bytes(SBOM.replace(b"1.6", b"1.5"))
    (folder / "index.json").unlink()
    assert [(item[1].rpartition("/")[2], item[2].partition(" (key")[0]) for item in said(check(site))] == [
        ("airlift.json", "damaged: the signature of ann"),
        ("index.json", "missing"),
        ("sbom.cdx.json", f"damaged: its digest is not {digest_of(SBOM)}"),
    ]
    ran = airlift("check", "--site", site.root, "--repair", tmp_path / "2.airlift", home=tmp_path)
    assert (ran.code, f"mended   drops: drops/{release}/sbom.cdx.json" in ran.out) == (0, True), ran.err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole

    for name in whole:
        (folder / name).unlink()
    # Which files attest had is known to the list alone.
    assert [item[2] for item in said(check(site))] == ["missing"] * 3
    (folder / "attest.json").write_bytes(whole["attest.json"] + b" ")
    assert [item[1].rpartition("/")[2] for item in said(check(site)) if item[2].startswith("damaged")] == [
        "attest.json"
    ]
    assert mend(site, tmp_path / "2.airlift") == []
    (folder / "sbom.cdx.json").unlink()
    assert said(check(site)) == [("drops", f"drops/{release}/sbom.cdx.json", "missing")]


def test_a_bundle_that_the_site_does_not_have_mends_nothing(site: Site, tmp_path: Path) -> None:
    site.store.path(digest_of(b"tool of month 1")).unlink()
    with pytest.raises(UsageError, match="which is no complete drop of"):
        mend(site, bundle(tmp_path, 3))
    ran = airlift("check", "--site", site.root, "--repair", tmp_path / "3.airlift", home=tmp_path)
    assert (ran.code, ran.out.count(": missing")) == (2, 1)
    assert len(drops.list_drops(site)) == 2


def blob_file(registry: Registry, digest: str) -> Path:
    name = digest[7:]
    return registry.root / "data/docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


def repository(registry: Registry) -> Path:
    return registry.root / "data/docker/registry/v2/repositories" / APP


def put_tag(registry: Registry, tag: str, digest: str) -> None:
    base = f"{registry.url}/v2/{APP}/manifests/"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(base + digest, headers=accept)) as answer:
        data, kind = answer.read(), answer.headers["Content-Type"]
    put = urllib.request.Request(base + tag, data=data, method="PUT", headers={"Content-Type": kind})
    urllib.request.urlopen(put).close()


def test_a_filled_registry_is_clean(filled: Site) -> None:
    assert check(filled) == []
    assert check(filled, deep=True) == []


def test_what_is_damaged_is_told_although_the_registry_is_down(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url))
        take(site, bundle(tmp_path, 1))
    once = HttpSettings(retries=0)
    (down,) = repair.check(site, progress=Silent(), http=once)
    assert (down.place, down.subject) == (Place.REGISTRY, registry.host)
    assert down.problem.startswith("could not be compared: ")
    assert "onnection refused" in down.problem
    gone = digest_of(b"tool of month 1")
    site.store.path(gone).unlink()
    found = repair.check(site, progress=Silent(), http=once)
    assert said(found) == [("store", gone, "missing"), *said([down])]
    with_bundle = tmp_path / "1.airlift"
    assert repair.repair(site, found, with_bundle, now=NOW, passphrase=b"", progress=Silent(), http=once) == found
    ran = airlift("check", "--site", site.root, home=tmp_path)
    assert (ran.code, f"store    {gone}: missing" in ran.out, "2 findings" in ran.out) == (12, True, True)


def test_a_moved_tag_is_found_and_moved_back(filled: Site, registry: Registry, tmp_path: Path) -> None:
    old, new = (month(number).artifacts[0].root.digest for number in (1, 2))
    put_tag(registry, "1", old)
    assert said(check(filled)) == [
        ("registry", f"{registry.host}/{APP}:1", f"the tag was moved to {old}, expected {new}")
    ]
    assert airlift("check", "--site", filled.root, home=tmp_path).code == 17
    ran = airlift("check", "--site", filled.root, "--repair", "--json", home=tmp_path)
    assert (ran.code, ran.json["clean"], len(ran.json["mended"])) == (0, True, 1)
    assert check(filled) == []


def test_a_deleted_repository_is_found_and_filled_again(filled: Site, registry: Registry, tmp_path: Path) -> None:
    shutil.rmtree(repository(registry))
    blob_file(registry, digest_of(BIG)).unlink()
    found = said(check(filled))
    assert found[0] == ("registry", f"{registry.host}/{APP}", "the repository is gone: none of its 6 objects is there")
    assert ("registry", f"{registry.host}/{APP}:1", found[-1][2]) == found[-1]
    # What is large is in the registry alone, so that the store mends the rest only.
    left = said(mend(filled))
    assert ("registry", f"{registry.host}/{APP}@{digest_of(BIG)}", "missing") in left
    assert mend(filled, tmp_path / "2.airlift") == []
    assert mend(filled, tmp_path / "1.airlift") == []
    assert check(filled, deep=True) == []


def test_the_bundle_is_asked_for_where_the_store_does_not_have_what_the_registry_lost(
    filled: Site, registry: Registry, tmp_path: Path
) -> None:
    named = f"{registry.host}/{APP}"
    repair_with = "airlift check --site DIR --repair BUNDLE with the bundle of {}: the store does not have all of it"
    shutil.rmtree(repository(registry))
    blob_file(registry, digest_of(BIG)).unlink()
    assert check(filled)[0].remedy == repair_with.format("stable/1 and stable/2")
    for left in (check(filled), mend(filled)):
        remedies = {item.subject: item.remedy for item in left}
        assert remedies[f"{named}@{digest_of(BIG)}"] == repair_with.format("stable/1 or stable/2")
        assert remedies[f"{named}@{month(1).artifacts[0].root.digest}"] == repair_with.format("stable/1")
        assert remedies[f"{named}:1"] == repair_with.format("stable/2")
    ran = airlift("check", "--site", filled.root, "--repair", home=tmp_path)
    assert (ran.code, repair_with.format("stable/2") in ran.out, "from the store" in ran.out) == (17, True, False)
    for number in (1, 2):
        mend(filled, tmp_path / f"{number}.airlift")
    assert check(filled) == []
    # What the store has is mended from it.
    layer = digest_of(b"layer 2")
    assert filled.store.has(layer)
    blob_file(registry, layer).unlink()
    (found,) = check(filled)
    assert found.remedy == "airlift check --site DIR --repair, from the store"


def test_what_the_registry_has_damaged_and_nobody_sent_again_asks_for_the_bundle(
    filled: Site, registry: Registry
) -> None:
    blob_file(registry, digest_of(BIG)).write_bytes(b"")
    (left,) = mend(filled)
    assert left.remedy.startswith("airlift check --site DIR --repair BUNDLE with the bundle of stable/1 or stable/2")


def test_a_blob_of_zero_bytes_in_the_registry_is_found(filled: Site, registry: Registry, tmp_path: Path) -> None:
    digest = digest_of(BIG)
    blob_file(registry, digest).write_bytes(b"")
    assert said(check(filled)) == [
        (
            "registry",
            f"{registry.host}/{APP}@{digest}",
            f"damaged: the registry says it has it and holds 0 bytes, expected {len(BIG)}",
        )
    ]
    # This registry takes a blob that it believes to have without a look at its file.
    (left,) = mend(filled, tmp_path / "2.airlift")
    assert left.remedy.startswith("the registry keeps its damaged file under this digest")
    blob_file(registry, digest).unlink()
    assert mend(filled, tmp_path / "2.airlift") == []
    assert mend(filled, tmp_path / "1.airlift") == []
    assert check(filled, deep=True) == []


def test_a_flipped_byte_in_the_registry_is_found_when_everything_is_read(filled: Site, registry: Registry) -> None:
    path = blob_file(registry, digest_of(BIG))
    path.write_bytes(bytes([BIG[0] ^ 1]) + BIG[1:])
    assert check(filled) == []
    (found,) = check(filled, deep=True)
    assert found.problem.startswith(f"damaged: expected {digest_of(BIG)}, got sha256:")


@pytest.mark.parametrize("match", ["/v2/docker.io/library/app/", "/manifests/sha256:"])
def test_nothing_is_deleted_in_a_registry_that_gives_nothing_of_a_repository(
    registry: Registry, tmp_path: Path, match: str
) -> None:
    once = HttpSettings(retries=0)
    with running_front(registry) as front:
        site = make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))
        made = Cargo()
        first, second = made.image_manifest(b"one"), made.image_manifest(b"two")
        made.index(f"{APP}:1", first, second)
        take(site, ship(made, tmp_path / "bundle"))
        outage = match.startswith("/v2/")
        # Else what is damaged is one manifest, of which docker-registry says no more than that it fails.
        front.faults.append(refuse(500, match=match if outage else match + first.digest[7:], method="GET"))
        if outage:
            with pytest.raises(DeliveryError, match="nothing else of the repository can be read; nothing was deleted"):
                repair.repair(site, [], None, now=NOW, passphrase=b"", progress=Silent(), http=once)
        else:
            repair.repair(site, [], None, now=NOW, passphrase=b"", progress=Silent(), http=once)
        deleted = [str(item).rpartition("/")[2] for item in front.asked if item.method == "DELETE"]
        assert deleted == ([] if outage else [first.digest])
