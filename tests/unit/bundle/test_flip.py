"""Every byte that matters, changed: the bundle is refused before anything of it is used.

Exempt are another recipient's stanza and an unknown signer's signature: a courier can spoil them, and what comes out for
this site is the same as before.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.bundle import layout
from airlift.bundle.reader import BundleReader
from airlift.errors import AirliftError
from airlift.trust import recipients
from airlift.trust.signing import parse_envelope
from tests.support.bundles import ANN, BOB, EVE, OTHER_SITE, SITE, Recipe, accept, trust
from tests.support.folders import SharedFolder

SITE_TRUST = trust("ann", "bob", threshold=2)


class Flipped:
    """A bundle of which one byte at a time is another."""

    def __init__(self, path: Path) -> None:
        Recipe(signers=[ANN, BOB, EVE], recipients=[SITE.recipient, OTHER_SITE.recipient]).write(path)
        self.path = path
        self.good = path.read_bytes()
        self.result = accept(path, SITE_TRUST)
        with BundleReader(path) as reader:
            self.container = layout.Container.of(reader.release, digest_size=32)
            self.envelope = reader.envelope
            self.stanzas = recipients.encode(reader.stanzas)
        assert parse_envelope(self.envelope)
        self._handle = os.open(path, os.O_RDWR)

    def refuses(self, offset: int) -> bool:
        """Tell whether the bundle is refused with this byte changed; if not, all of it has to be as before."""
        byte = self.good[offset]
        os.pwrite(self._handle, bytes([byte ^ (1 << offset % 8)]), offset)
        try:
            result = accept(self.path, SITE_TRUST)
        except AirliftError:
            return True
        finally:
            os.pwrite(self._handle, bytes([byte]), offset)
        assert result["content"] == self.result["content"]
        assert result["release"] == self.result["release"]
        return False

    def close(self) -> None:
        os.close(self._handle)
        assert self.path.read_bytes() == self.good

    def slot_content(self, name: str) -> range:
        start = self.container.offset_of(name)
        size = len(self.good[start : start + layout.SLOTS[name]].rstrip(b" "))
        return range(start, start + size)

    def exempt(self) -> set[int]:
        found: set[int] = set()
        for name, content, key_id in (
            (layout.ENVELOPE, self.envelope, EVE.key_id),
            (layout.KEYS, self.stanzas, OTHER_SITE.key_id),
        ):
            at = content.index(key_id.encode())
            first, last = content.rindex(b"{", 0, at), content.index(b"}", at)
            start = self.container.offset_of(name)
            found |= set(range(start + first, start + last + 1))
        return found


@pytest.fixture(scope="module")
def flipped(shared_folder: SharedFolder) -> Iterator[Flipped]:
    bundle = Flipped(shared_folder("flip") / "drop.airlift")
    yield bundle
    bundle.close()


def test_every_byte_of_headers_and_padding_between_members(flipped: Flipped) -> None:
    accepted = [
        offset
        for start, data in flipped.container.fixed()
        for offset in range(start, start + len(data))
        if not flipped.refuses(offset)
    ]
    assert accepted == []


@pytest.mark.slow
@pytest.mark.parametrize("name", list(layout.SLOTS))
def test_every_byte_of_what_a_slot_holds(flipped: Flipped, name: str) -> None:
    exempt = flipped.exempt()
    content = flipped.slot_content(name)
    accepted = {offset for offset in content if not flipped.refuses(offset)}
    assert accepted - exempt == set()
    # The exemption is used: otherwise it would hide that the test no longer reaches these bytes.
    assert bool(accepted) == (name in (layout.ENVELOPE, layout.KEYS))


def test_two_thousand_bytes_of_slot_padding(flipped: Flipped) -> None:
    rng = random.Random(1)
    places = [
        offset
        for name, size in layout.SLOTS.items()
        for offset in range(flipped.slot_content(name).stop, flipped.container.offset_of(name) + size)
    ]
    assert [offset for offset in rng.sample(places, 2000) if not flipped.refuses(offset)] == []


@pytest.mark.parametrize("name", [layout.TREE, layout.ATTEST])
def test_every_byte_of_tree_and_some_of_attest(flipped: Flipped, name: str) -> None:
    rng = random.Random(2)
    start, size = flipped.container.offset_of(name), flipped.container.size_of(name)
    places = rng.sample(range(start, start + size), min(size, 200))
    assert [offset for offset in places if not flipped.refuses(offset)] == []


def test_five_hundred_bytes_of_payload(flipped: Flipped) -> None:
    rng = random.Random(3)
    start, size = flipped.container.offset_of(layout.PAYLOAD), flipped.container.size_of(layout.PAYLOAD)
    assert size > 500
    places = rng.sample(range(start, start + size), 500)
    assert [offset for offset in places if not flipped.refuses(offset)] == []


def test_the_file_is_covered_without_a_gap(flipped: Flipped) -> None:
    covered = bytearray(flipped.container.size)
    for start, data in flipped.container.fixed():
        covered[start : start + len(data)] = b"\1" * len(data)
    for name in (*layout.SLOTS, layout.TREE, layout.PAYLOAD, layout.ATTEST):
        start, size = flipped.container.offset_of(name), flipped.container.size_of(name)
        assert not any(covered[start : start + size])
        covered[start : start + size] = b"\1" * size
    assert all(covered)
    assert len(flipped.good) == flipped.container.size
    assert hashlib.sha256(flipped.good).digest() == hashlib.sha256(flipped.path.read_bytes()).digest()
