from __future__ import annotations

import os
from pathlib import Path

import pytest

from airlift import digest
from airlift.errors import IntegrityError, StoreError
from airlift.store import Store

DATA = b"some content"
DIGEST = digest.of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store").create()


def parts(store: Store) -> list[Path]:
    return list((store.root / "ingest").iterdir())


def test_it_is_an_image_layout(store: Store) -> None:
    assert (store.root / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'
    assert store.put_bytes(DATA) == DIGEST
    assert store.path(DIGEST) == store.root / "blobs" / "sha256" / digest.hex_of(DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA
    assert store.path(DIGEST).stat().st_mode & 0o777 == 0o644


def test_creating_again_keeps_what_is_there(store: Store) -> None:
    store.put_bytes(DATA)
    assert Store(store.root).create().read(DIGEST) == DATA


def test_a_blob_comes_in_pieces(store: Store) -> None:
    with store.put(DIGEST, len(DATA)) as writer:
        writer.write(DATA[:4])
        assert (writer.written, store.has(DIGEST)) == (4, False)
        writer.write(memoryview(DATA)[4:])
    assert store.has(DIGEST)
    assert b"".join(store.chunks(DIGEST, len(DATA))) == DATA
    assert b"".join(store.chunks(DIGEST, len(DATA), start=5)) == DATA[5:]
    assert parts(store) == []


def put(store: Store, data: bytes, *, size: int) -> None:
    with store.put(DIGEST, size) as writer:
        writer.write(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA + b"!", f"{DIGEST}: expected 12 bytes, got more"),
        (DATA[:-1], f"{DIGEST}: expected 12 bytes, got 11 bytes"),
        (DATA[::-1], f"{DIGEST}: expected {DIGEST}, got {digest.of(DATA[::-1])}"),
    ],
)
def test_wrong_content_never_gets_a_name(store: Store, data: bytes, message: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        put(store, data, size=len(DATA))
    assert str(caught.value) == message
    assert not store.has(DIGEST)
    assert parts(store) == []


def test_an_interrupted_blob_leaves_nothing(store: Store) -> None:
    def interrupted() -> None:
        with store.put(DIGEST, len(DATA)) as writer:
            writer.write(DATA)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not store.has(DIGEST)
    assert parts(store) == []


def test_two_may_put_the_same_blob_at_once(store: Store) -> None:
    with store.put(DIGEST, len(DATA)) as first, store.put(DIGEST, len(DATA)) as second:
        first.write(DATA)
        second.write(DATA)
    assert store.read(DIGEST) == DATA


def test_what_a_killed_run_left_is_cleared(store: Store) -> None:
    (store.root / "ingest" / "x.1.ab").write_bytes(b"half")
    store.clear_ingest()
    assert parts(store) == []


def test_a_damaged_blob_is_noticed_when_it_is_read(store: Store) -> None:
    store.put_bytes(DATA)
    store.path(DIGEST).write_bytes(DATA[::-1])
    with pytest.raises(IntegrityError):
        store.read(DIGEST)
    with pytest.raises(IntegrityError) as caught:
        store.verify(DIGEST)
    assert caught.value.subject == f"{DIGEST} in {store.root}"


def test_a_damaged_or_missing_blob_is_told_with_the_remedy_of_its_store(store: Store, tmp_path: Path) -> None:
    mended = Store(store.root, remedy="mend it")
    store.put_bytes(DATA)
    store.path(DIGEST).write_bytes(DATA[::-1])
    for act in (mended.read, mended.verify):
        with pytest.raises(IntegrityError) as damaged:
            act(DIGEST)
        assert damaged.value.hint == "mend it"
    store.delete(DIGEST)
    for act in (mended.read, mended.open):
        with pytest.raises(StoreError) as missing:
            act(DIGEST)
        assert missing.value.hint == "mend it"
    # Where no blob is, the disk may not be mounted.
    with pytest.raises(StoreError) as away:
        Store(tmp_path / "away", remedy="mend it").read(DIGEST)
    assert away.value.hint == "see whether the path is right and its disk is mounted"


def test_reading_a_small_blob_is_bounded(store: Store) -> None:
    store.put_bytes(DATA)
    with pytest.raises(StoreError, match=r"larger than 5 bytes$"):
        store.read(DIGEST, limit=5)


def test_a_blob_that_is_not_there_is_said(store: Store) -> None:
    for act in (store.open, store.read, store.size, store.verify):
        with pytest.raises(StoreError, match="No such file or directory"):
            act(DIGEST)
    store.delete(DIGEST)


def test_blobs_are_listed_measured_and_deleted(store: Store) -> None:
    other = store.put_bytes(b"other")
    store.put_bytes(DATA)
    assert list(store.digests()) == sorted([other, DIGEST])
    assert (store.size(DIGEST), store.verify(DIGEST)) == (12, 12)
    store.sync()
    store.delete(DIGEST)
    assert list(store.digests()) == [other]


def test_what_is_no_blob_is_told_apart(store: Store) -> None:
    digest = store.put_bytes(DATA)
    strange = [store.path(digest).with_name(name) for name in ("A" * 64, "foo", f"{'0' * 64}.bak")]
    for path in strange:
        path.write_bytes(b"x")
    assert list(store.digests()) == [digest]
    assert store.strange() == sorted(strange)


def test_a_store_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"a file")
    with pytest.raises(StoreError, match=r"^creating .*store.*: (File exists|Not a directory)$"):
        Store(tmp_path / "store").create()


def test_a_blob_is_durable_before_it_has_its_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _handle: seen.append(store.has(DIGEST)))
    store.put_bytes(DATA)
    assert seen == [False]


def test_clearing_spares_what_is_being_written(store: Store) -> None:
    with store.put(DIGEST, len(DATA)) as writer:
        store.clear_ingest()
        assert len(parts(store)) == 1
        writer.write(DATA)
    assert store.read(DIGEST) == DATA
