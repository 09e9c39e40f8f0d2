from __future__ import annotations

import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlift.bundle import assembly, frames, opened, reader, writer
from airlift.bundle.writer import BundleWriter
from airlift.errors import AirliftError
from airlift.trust import signing
from tests.support.bundles import SITE, Recipe, accept, craft, members, plan, release, trust

pytestmark = pytest.mark.property

BLOBS = st.lists(st.binary(max_size=3000), max_size=12, unique=True)
QUICK = settings(max_examples=40, deadline=None)


@QUICK
@given(
    blobs=BLOBS,
    frame_size=st.sampled_from([600, 1024, 4096]),
    threads=st.integers(1, 5),
    seed=st.integers(0, 2**32),
    encrypted=st.booleans(),
)
def test_any_content_comes_back_however_it_is_cut_and_written(
    blobs: list[bytes], frame_size: int, threads: int, seed: int, *, encrypted: bool
) -> None:
    """With tiny frames, so that borders fall everywhere."""
    content = members(blobs)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        for module in (assembly, frames, writer, signing, reader, opened):
            patch.setattr(module, "FRAME_SIZE", frame_size)
        path = Path(folder) / "x"
        with BundleWriter(path, plan(content), encrypted=encrypted) as made:

            def one(name: str) -> None:
                rng = random.Random(f"{seed}{name}")
                data = content[name]
                with made.member(name) as into:
                    while into.written < len(data):
                        into.write(data[into.written : into.written + rng.randint(1, 700)])

            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(one, content))
            Recipe(encrypted=encrypted).finish(made)
            assert set(made.seal_counts) == {1}
        found = accept(path, trust(allow_plain=True), SITE if encrypted else None)
        assert found["content"] == content


@QUICK
@given(st.binary(max_size=4000))
def test_no_payload_makes_the_reader_fail_in_another_way_than_ours(archive: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        craft(path, archive + b"\0")
        with pytest.raises(AirliftError):
            accept(path, trust(allow_plain=True), None)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600), st.integers(0, 2**63))
def test_no_envelope_makes_the_parser_fail_in_another_way_than_ours(noise: bytes, seed: int) -> None:
    rng = random.Random(seed)
    good = bytearray(signing.sign(release().body, [Recipe().signers[0]]))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(good))
        good[at : at + rng.randint(0, 9)] = noise[: rng.randint(0, 9)]
    for data in (noise, bytes(good)):
        try:
            signing.parse_release(signing.parse_envelope(data).body)
        except AirliftError:
            continue
