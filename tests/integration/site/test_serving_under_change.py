"""Readers of a served site while drops are activated in turn: no failed answer, and no page whose file is another's."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from pathlib import Path

import requests

from airlift import digest as digests
from airlift.progress import Silent
from airlift.site import drops, retention
from airlift.site.journal import Journal
from airlift.site.listing import Held, Listing, Name, Service
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, make_site, ship, take
from tests.support.sites import drop, publish


def test_no_answer_fails_or_mixes_two_drops_while_they_are_activated_in_turn(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    shown = []
    for number in (1, 2):
        names, held = [], []
        for project in ("a", "b"):
            digest = site.store.put_bytes(f"{project}{number}".encode())
            file = f"{project}-{number}-py3-none-any.whl"
            value = {"digest": digest, "filename": file, "version": str(number), "size": 2, "metadata": digest}
            names.append(Name(Service.SIMPLE, project, value))
            facts = {"filename": file, "metadata": digest}
            held.append(Held(Service.SIMPLE, project, digest, 2, "application/zip", facts=facts))
        shown.append(publish(site.journal_path, [Listing(tuple(names), tuple(held))], drop(number)))
    stop, wrong, seen = threading.Event(), list[str](), set[str]()

    def read(url: str, project: str) -> None:
        session = requests.Session()
        headers = {"Accept": "application/vnd.pypi.simple.v1+json"}
        while not stop.is_set():
            page = session.get(f"{url}/simple/{project}/", headers=headers, timeout=60)
            files = page.json()["files"] if page.ok else []
            if len(files) != 1:
                wrong.append(f"{page.status_code} {files}")
                return
            file = session.get(f"{url}/simple/{project}/{files[0]['url']}", timeout=60)
            if not file.ok or digests.hex_of(digests.of(file.content)) != files[0]["hashes"]["sha256"]:
                wrong.append(f"{file.status_code} {files[0]['url']}")
                return
            seen.add(file.text)

    with serving(site.root) as url:
        readers = [threading.Thread(target=read, args=(url, project)) for project in "abab"]
        for reader in readers:
            reader.start()
        for turn in itertools.count():
            # On a busy machine it takes longer until every answer was seen.
            if turn >= 400 and (len(seen) == 4 or wrong or not any(map(threading.Thread.is_alive, readers))):
                break
            with Journal(site.journal_path) as journal, journal.transaction():
                journal.activate(shown[turn % 2])
        stop.set()
        for reader in readers:
            reader.join(60)
    assert wrong == []
    assert seen == {"a1", "a2", "b1", "b2"}


def test_no_answer_fails_or_mixes_while_drops_are_imported_taken_back_and_pruned(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    app = "docker.io/library/app"
    layers, bundles = {}, []
    for number in range(1, 7):
        cargo = Cargo()
        layer = bytes([number]) * 200_000
        item = cargo.image(f"{app}:1", layer)
        layers[item.root.digest] = digests.of(layer)
        bundles.append(ship(cargo, tmp_path / f"{number}.airlift", sequence=number))
    take(site, bundles[0])
    stop = threading.Event()
    failures: list[str] = []
    answers = Counter[str]()

    def read(url: str) -> None:
        with requests.Session() as session:
            while not stop.is_set():
                manifest = session.get(f"{url}/v2/{app}/manifests/1", timeout=30)
                digest = manifest.headers.get("Docker-Content-Digest", "")
                if manifest.status_code != 200 or digests.of(manifest.content) != digest:
                    failures.append(f"tag: {manifest.status_code} {digest}")
                    return
                layer = manifest.json()["layers"][0]["digest"]
                blob = session.get(f"{url}/v2/{app}/blobs/{layer}", timeout=30)
                if layers[digest] != layer or blob.status_code != 200 or digests.of(blob.content) != layer:
                    failures.append(f"blob of {digest}: {blob.status_code}")
                    return
                answers[digest] += 1

    with serving(site.root) as url:
        readers = [threading.Thread(target=read, args=(url,)) for _ in range(3)]
        for reader in readers:
            reader.start()
        for bundle in bundles[1:]:
            take(site, bundle)
            drops.rollback(site, None)
            drops.activate(site, drops.list_drops(site)[-1].release)
            # What was seen a moment ago is still being fetched, so the drop before the active one stays.
            retention.execute(site, retention.plan(site, 2), Silent())
        stop.set()
        for reader in readers:
            reader.join(60)
    assert failures == []
    assert len(answers) > 1
    assert [item.sequence for item in drops.list_drops(site)] == [5, 6]
