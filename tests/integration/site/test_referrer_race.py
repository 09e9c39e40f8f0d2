"""Two sites that fill one repository of a registry whose lists of referrers are written by whoever comes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from airlift import oci
from airlift.digest import Digest
from airlift.progress import Silent
from airlift.site import repair, retention
from airlift.site.config import Site, load_site
from airlift.site.site_yaml import RegistryConfig
from airlift.transport.http import HttpSettings
from airlift.transport.registry import fallback_tag
from tests.integration.site.test_referrers import APP, client_of, referrer
from tests.support.listener import Listener
from tests.support.registry import Fault, Front, FrontHandler, Registry, running_front, running_registry
from tests.support.site_bundles import Cargo, make_site, ship, take

ROUNDS = 4
EACH = 12


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with running_registry(tmp_path / "registry") as running:
        yield running


def drop(path: Path, words: list[bytes], sequence: int = 1) -> tuple[Path, Digest, list[Digest]]:
    """A drop with the one image, and these words said about it."""
    cargo = Cargo()
    image = cargo.image(f"{APP}:1", b"layer")
    said = [referrer(cargo, image, word) for word in words]
    return ship(cargo, path, sequence=sequence), image.root.digest, said


def listed(registry: Registry, image: Digest) -> list[Digest]:
    return sorted(item.digest for item in client_of(registry.host).referrers(APP, image))


def import_all(root: Path, bundles: list[Path], together: Barrier) -> None:
    """What one of the two does."""
    site = load_site(root)
    for bundle in bundles:
        together.wait(60)
        take(site, bundle)


def test_two_sites_at_once_lose_no_entry_of_each_other(registry: Registry, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(2)
    wanted: list[Digest] = []
    processes = []
    for name in ("one", "two"):
        site = make_site(tmp_path / name, registry=RegistryConfig(url=registry.url))
        bundles = []
        for number in range(1, ROUNDS + 1):
            words = [f"{name} says {number}.{word}".encode() for word in range(EACH)]
            bundle, image, said = drop(tmp_path / f"{name}.{number}", words, number)
            bundles.append(bundle)
            wanted += said
        processes.append(spawn.Process(target=import_all, args=(site.root, bundles, together)))
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0]
    assert listed(registry, image) == sorted(wanted)


def overtake(front: Front, registry: Registry, image: Digest, times: int = 10**9) -> None:
    """Let somebody who has read the list before put it as it was, each time right after it was written."""
    client = client_of(registry.host)
    tag = fallback_tag(image)
    old = client.manifest(APP, tag).data

    def act(handler: FrontHandler) -> None:
        handler.pass_on()
        client.push_manifest(APP, tag, old, oci.INDEX)

    front.faults.append(Fault(act, match=f"/manifests/{tag}", method="PUT", times=times))


def site_behind(front: Front, tmp_path: Path) -> Site:
    return make_site(tmp_path / "site", registry=RegistryConfig(url=front.url))


@pytest.mark.parametrize("times", [1, 3])
def test_an_entry_that_was_overtaken_is_listed_again_beside_the_others(
    registry: Registry, tmp_path: Path, times: int
) -> None:
    theirs, image, first = drop(tmp_path / "theirs", [b"theirs"])
    take(make_site(tmp_path / "other", registry=RegistryConfig(url=registry.url)), theirs)
    ours, _, second = drop(tmp_path / "ours", [b"ours", b"ours too"])
    listener = Listener()
    with running_front(registry) as front:
        overtake(front, registry, image, times)
        take(site_behind(front, tmp_path), ours, progress=listener)
    assert listed(registry, image) == sorted(first + second)
    assert listener.warnings == []


def test_entries_that_are_overtaken_every_time_are_said_and_mended_by_check(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airlift.transport.referrers._ROUNDS", 2)
    theirs, image, first = drop(tmp_path / "theirs", [b"theirs"])
    take(make_site(tmp_path / "other", registry=RegistryConfig(url=registry.url)), theirs)
    ours, _, second = drop(tmp_path / "ours", [b"ours"])
    listener = Listener()
    with running_front(registry) as front:
        overtake(front, registry, image)
        site = site_behind(front, tmp_path)
        assert not take(site, ours, progress=listener).was_here
        (warning,) = listener.warnings
        assert warning == (
            f"{front.host}/{APP}:{fallback_tag(image)}: another site writes this list of referrers all the while, and "
            "what this drop adds is not in it; run airlift check --site DIR --repair when the other is done"
        )
        front.faults.clear()
        found = repair.check(site, progress=Silent(), http=HttpSettings())
        assert [item.problem for item in found] == [f"not listed as a referrer of {image}"]
        assert repair.repair(site, found, None, now=None, passphrase=b"", progress=Silent(), http=HttpSettings()) == []
    assert listed(registry, image) == sorted(first + second)


def test_what_was_pruned_is_taken_out_again_where_somebody_put_it_back(registry: Registry, tmp_path: Path) -> None:
    with running_front(registry) as front:
        site = site_behind(front, tmp_path)
        take(site, drop(tmp_path / "1", [b"old"], 1)[0])
        bundle, image, kept = drop(tmp_path / "2", [b"new"], 2)
        take(site, bundle)
        client = client_of(registry.host)
        before = json.loads(client.manifest(APP, fallback_tag(image)).data)
        entry = next(item for item in before["manifests"] if item["digest"] not in kept)
        # docker-registry takes no list of what it does not have, so the manifest is there again as well.
        manifest = client.manifest(APP, entry["digest"])

        def act(handler: FrontHandler) -> None:
            handler.pass_on()
            client.push_manifest(APP, entry["digest"], manifest.data, manifest.media_type)
            client.push_manifest(APP, fallback_tag(image), json.dumps(before).encode(), oci.INDEX)

        front.faults.append(Fault(act, match=f"/manifests/{fallback_tag(image)}", method="PUT", times=1))
        listener = Listener()
        retention.execute(site, retention.plan(site, 1), listener)
    assert listed(registry, image) == kept
    assert listener.warnings == []


def test_an_entry_whose_manifest_somebody_deleted_does_not_keep_others_out(registry: Registry, tmp_path: Path) -> None:
    theirs, image, first = drop(tmp_path / "theirs", [b"gone", b"stays"])
    take(make_site(tmp_path / "other", registry=RegistryConfig(url=registry.url)), theirs)
    client_of(registry.host).delete_manifest(APP, first[0])
    assert listed(registry, image) == sorted(first)
    ours, _, second = drop(tmp_path / "ours", [b"ours"])
    take(make_site(tmp_path / "site", registry=RegistryConfig(url=registry.url)), ours)
    assert listed(registry, image) == sorted([first[1], *second])
