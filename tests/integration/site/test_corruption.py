"""Two thousand random corruptions of a bundle: each is refused before anything is seen, in words and with a code."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from airlift.cli.exit import code_of
from airlift.errors import AirliftError, BundleError, IntegrityError, TrustError
from airlift.site import drops
from airlift.site.catalog import Catalog
from airlift.site.config import Site
from airlift.site.listing import Service
from tests.support.site_bundles import Cargo, make_site, ship, take

COUNT = 2000
Corruption = Callable[[random.Random, bytearray], None]


def flip(rng: random.Random, data: bytearray) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def zero(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data) - 512)
    data[start : start + 512] = bytes(byte ^ 0xFF for byte in data[start : start + 512])


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data)) :]


def lose(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data) - 4096)
    del data[start : start + rng.randrange(1, 4096)]


def add(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.randrange(1, 2048))


CORRUPTIONS: tuple[tuple[Corruption, int], ...] = ((flip, 12), (zero, 3), (cut, 2), (lose, 2), (add, 1))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = make_site(tmp_path / "site")
    first = Cargo()
    first.file("tool", b"the tool of before")
    take(made, ship(first, tmp_path / "1.airlift", sequence=1))
    return made


def seen(site: Site) -> tuple[object, ...]:
    catalog = Catalog(site.journal_path, site.store)
    try:
        names = [(service, catalog.all_names(service)) for service in Service]
    finally:
        catalog.close()
    return (
        names,
        drops.list_drops(site),
        sorted(site.store.digests()),
        sorted(path.name for path in site.drops_dir.iterdir()),
    )


@pytest.mark.slow
def test_every_corruption_is_refused_and_nothing_of_it_is_seen(site: Site, tmp_path: Path) -> None:
    cargo = Cargo()
    cargo.image("docker.io/library/app:1", random.Random(1).randbytes(300_000), b"small")
    cargo.file("tool", b"the tool of afterwards")
    good = ship(cargo, tmp_path / "2.airlift", sequence=2).read_bytes()
    bad = tmp_path / "bad.airlift"
    before = seen(site)
    rng = random.Random(20261125)
    kinds, weights = zip(*CORRUPTIONS, strict=True)
    codes: Counter[int] = Counter()
    for number in range(COUNT):
        data = bytearray(good)
        (corrupt,) = rng.choices(kinds, weights)
        corrupt(rng, data)
        bad.write_bytes(data)
        with pytest.raises(AirliftError) as caught:
            take(site, bad)
        assert isinstance(caught.value, BundleError | IntegrityError | TrustError), (number, caught.value)
        assert str(bad) in caught.value.message
        codes[code_of(caught.value)] += 1
        if number % 100 == 0:
            assert seen(site) == before
    assert seen(site) == before
    assert set(codes) <= {12, 13, 14}
    assert min(codes[12], codes[13]) > 0
    bad.write_bytes(good)
    assert take(site, bad).drop.active
