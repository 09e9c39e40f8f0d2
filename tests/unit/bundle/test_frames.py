from __future__ import annotations

import re

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from airlift.bundle import frames
from airlift.errors import BundleError, IntegrityError
from airlift.trust import suites
from airlift.trust.signing import FRAME_SIZE
from tests.components import ROOT

SUITE = suites.get("default")


def _documented(label: str) -> str:
    text = (ROOT / "docs" / "bundle-format.md").read_text()
    found = re.search(rf"^{label}\s+([0-9a-f]{{20,}})$", text, re.MULTILINE)
    assert found is not None, label
    return found[1]


def test_the_key_schedule_is_the_documented_one() -> None:
    key = frames.DataKey(bytes(range(32)), SUITE)
    context = FRAME_SIZE.to_bytes(4, "big")
    assert key.commitment.hex() == _documented("commitment")
    assert key.derive("payload", 32, context).hex() == _documented("payload key")
    assert key.derive("attest", 32, context).hex() == _documented("attest key")


def test_a_frame_and_its_leaf_are_the_documented_ones() -> None:
    key = AESGCM(bytes.fromhex(_documented("payload key")))
    made = key.encrypt(bytes.fromhex(_documented("nonce")), b"airlift", None)
    assert made.hex() == _documented("frame")
    sealer = frames.Sealer(frames.DataKey(bytes(range(32)), SUITE).cipher("payload"), 1)
    assert sealer.seal_into(0, memoryview(b"airlift"), memoryview(bytearray(64))) == made
    assert frames.leaf(SUITE, 0, made).hex() == _documented("leaf 0")


def test_a_nonce_tells_index_and_end() -> None:
    seen = {frames.nonce(index, 5) for index in range(5)}
    assert len(seen) == 5
    assert frames.nonce(4, 5) == bytes(3) + (4).to_bytes(8, "big") + b"\1"
    assert frames.nonce(4, 6) == bytes(3) + (4).to_bytes(8, "big") + b"\0"


@pytest.mark.parametrize("moved", [(1, 3), (0, 1), (2, 3)])
def test_a_frame_opens_at_its_place_only(moved: tuple[int, int]) -> None:
    key = frames.DataKey(bytes(32), SUITE)
    frame = bytes(frames.Sealer(key.cipher("payload"), 3).seal_into(0, memoryview(b"x"), memoryview(bytearray(64))))
    buffer = memoryview(bytearray(64))
    assert frames.Opener(key.cipher("payload"), 3, subject="x").open_into(0, frame, buffer) == b"x"
    index, total = moved
    with pytest.raises(IntegrityError, match=f"frame {index} of x"):
        frames.Opener(key.cipher("payload"), total, subject="x").open_into(index, frame, buffer)
    with pytest.raises(IntegrityError):
        frames.Opener(key.cipher("attest"), 3, subject="x").open_into(0, frame, buffer)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_data_key_has_32_bytes(length: int) -> None:
    with pytest.raises(BundleError, match=f"a data key has 32 bytes, this one {length}"):
        frames.DataKey(bytes(length), SUITE)


def test_a_data_key_does_not_show() -> None:
    assert repr(frames.DataKey(b"secret".ljust(32), SUITE)) == "DataKey(...)"
    assert frames.DataKey.draw(SUITE).secret != frames.DataKey.draw(SUITE).secret


@pytest.mark.parametrize("encrypted", [True, False])
def test_sizes_fit_to_each_other(encrypted: bool) -> None:
    piece = frames.piece_size(encrypted=encrypted)
    for size in (1, piece - 1, piece, piece + 1, 10 * piece):
        stored = frames.stored_size(size, encrypted=encrypted)
        assert frames.archive_size(stored, encrypted=encrypted) == size
        assert -(-stored // FRAME_SIZE) == frames.frame_count(size, encrypted=encrypted)
