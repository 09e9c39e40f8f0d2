"""Imports and activations that end at any system call, while clients read all the time: nothing half is seen, no pinned
digest is ever missing, and the same command finishes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from airlift import digest as digests
from airlift import limits, oci
from airlift.site.site_yaml import RegistryConfig
from tests.support.cli import ROOT
from tests.support.killed_imports import IMAGES
from tests.support.registry import running_registry
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, make_site, ship, take

FILES = ("a", "b", "c")
AT_ONCE_S = 0.1
"""Two activations are further apart than this: each is a process of its own."""


@dataclass
class Months:
    """The drops of a trial: the same names, other content each.

    Attributes:
        of: the drop of each digest that is only in one.
        layers: the layers of each manifest.
    """

    of: dict[str, int] = field(default_factory=dict)
    layers: dict[str, list[str]] = field(default_factory=dict)

    def ship(self, number: int, folder: Path) -> Path:
        cargo = Cargo()
        for name in IMAGES:
            # One is too large for the store to keep it until the end.
            size = limits.SMALL_BLOB + 1000 if name == IMAGES[0] and number % 3 == 0 else 100
            layers = [f"{name} of {number}".encode().ljust(size), b"the same"]
            digest = cargo.image(f"docker.io/library/{name}", *layers).root.digest
            self.of[digest] = number
            self.layers[digest] = [digests.of(layer) for layer in layers]
        for name in FILES:
            content = f"{name} of {number}".encode()
            cargo.file(name, content)
            self.of[digests.of(content)] = number
        return ship(cargo, folder / f"{number:04}", sequence=number)


@dataclass
class Reader:
    """A client that reads all the while; a stop ends it."""

    url: str
    prefix: str
    months: Months
    is_ours: bool
    wrong: list[str] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)
    answers: int = 0
    pinned: list[tuple[str, str]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        chance = random.Random(1)
        with requests.Session() as session:
            self.session = session
            while not self.stop.is_set() and not self.wrong:
                name, other = chance.sample(IMAGES, 2)
                start = time.monotonic()
                first = self.tag(name)
                middle = self.listing() if self.is_ours else None
                again = self.tag(name)
                if self.is_ours and first == again and time.monotonic() - start < AT_ONCE_S and middle != first:
                    self.wrong.append(f"{name} of {first}, files of {middle}, {name} of {again}")
                self.tag(other)
                if self.pinned:
                    self.digest(*chance.choice(self.pinned))

    def get(self, path: str) -> requests.Response:
        deadline = time.monotonic() + (0 if self.is_ours else 60)
        while True:
            answer = self.session.get(self.url + path, headers={"Accept": oci.MANIFEST}, timeout=60)
            self.answers += 1
            # docker-registry rewrites the links of a tag, and of the digest that it points at, in place: whoever reads
            # them in that moment gets a 500 from it, and when the writer was killed, until it writes again.
            if answer.status_code != 500 or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        if answer.status_code != 200:
            self.wrong.append(f"{answer.status_code} for {path}")
        return answer

    def tag(self, name: str) -> int | None:
        repository, _, tag = name.partition(":")
        answer = self.get(f"/v2/{self.prefix}docker.io/library/{repository}/manifests/{tag}")
        digest = digests.of(answer.content)
        number = self.months.of.get(digest)
        if number is None or answer.headers.get("Docker-Content-Digest") != digest:
            self.wrong.append(f"{name} is {digest}, of no drop")
            return None
        self.seen.add(number)
        if (repository, digest) not in self.pinned:
            self.pinned.append((repository, digest))
        return number

    def digest(self, repository: str, digest: str) -> None:
        base = f"/v2/{self.prefix}docker.io/library/{repository}"
        if digests.of(self.get(f"{base}/manifests/{digest}").content) != digest:
            self.wrong.append(f"{repository}@{digest} has another content")
        for layer in self.months.layers[digest]:
            if digests.of(self.get(f"{base}/blobs/{layer}").content) != layer:
                self.wrong.append(f"layer {layer} of {repository}@{digest} has another content")

    def listing(self) -> int | None:
        files = self.get("/files/").json()["files"]
        numbers = {self.months.of[f"sha256:{item['sha256']}"] for item in files}
        if len(numbers) != 1 or {item["name"] for item in files} != set(FILES):
            self.wrong.append(f"one answer mixes drops: {numbers}")
        return numbers.pop()


@contextlib.contextmanager
def reading(reader: Reader) -> Iterator[None]:
    thread = threading.Thread(target=reader.run)
    thread.start()
    try:
        yield
    finally:
        reader.stop.set()
        thread.join(120)


def killed(work: Path, kills: int, seed: int, *mode: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_imports", str(work), str(kills), str(seed), *mode],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def prepare(work: Path, kills: int, registry: str | None) -> Months:
    """Two sites with the first drop, and as many bundles as so many kills need."""
    months = Months()
    (work / "bundles").mkdir()
    # Three commands a bundle, of which nearly all are killed.
    bundles = [months.ship(number, work / "bundles") for number in range(1, kills // 3 + kills // 10 + 3)]
    for name in ("whole", "killed"):
        config = RegistryConfig(url=f"{registry}/{name}") if registry else None
        take(make_site(work / name, registry=config), bundles[0])
    return months


@pytest.mark.parametrize(("back_end", "kills"), [("embedded", 200), ("docker-registry", 100)])
def test_after_a_kill_at_any_call_a_second_run_finishes_and_readers_never_notice(
    tmp_path: Path, back_end: str, kills: int
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    with contextlib.ExitStack() as stack:
        registry = None
        if back_end == "docker-registry":
            registry = stack.enter_context(running_registry(tmp_path / "registry")).url
        months = prepare(tmp_path, kills, registry)
        url = registry or stack.enter_context(serving(tmp_path / "killed"))
        reader = Reader(url, "killed/" if registry else "", months, is_ours=registry is None)
        with reading(reader):
            found = killed(tmp_path, kills, seed)
    assert found["problems"] == [], f"seed {seed}"
    assert reader.wrong == [], f"seed {seed}"
    assert sum(found["kills"].values()) >= kills
    assert min(found["kills"].values()) > kills // 5
    assert len(reader.seen) > kills // 6
    assert reader.answers > 10 * kills


@pytest.mark.parametrize("back_end", ["embedded", "docker-registry"])
def test_a_deactivation_that_is_killed_at_any_call_is_done_or_not_and_a_second_run_finishes(
    tmp_path: Path, back_end: str
) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    with contextlib.ExitStack() as stack:
        registry = None
        if back_end == "docker-registry":
            registry = stack.enter_context(running_registry(tmp_path / "registry")).url
        prepare(tmp_path, 0, registry)
        found = killed(tmp_path, 30, seed, "deactivation")
    assert found["problems"] == [], f"seed {seed}"
    assert min(found["kills"].values()) > 5
