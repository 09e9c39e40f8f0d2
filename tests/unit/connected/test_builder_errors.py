"""What a build says when one of many transfers ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlift import digest
from airlift.bundle.output import Output
from airlift.connected import builder, resolver
from airlift.connected.source import Settings
from airlift.errors import IntegrityError, ResolveError, StoreError
from airlift.lock import Lock
from airlift.manifest import Manifest
from airlift.trust import keys
from tests.support.sources import settings

SIZE = 9_000_000
NAMES = ("alpha", "bravo", "charlie", "delta", "echo")


def resolved(at: Settings) -> Lock:
    for name in NAMES:
        (at.base / name).write_bytes(name[:1].encode() * SIZE)
    asked = {
        "apiVersion": "airlift/v1",
        "kind": "Drop",
        "metadata": {"name": "x"},
        "files": [{"path": name, "name": f"{name}.bin"} for name in NAMES],
    }
    return resolver.resolve(Manifest.model_validate(asked), at)


def build(lock: Lock, at: Settings) -> None:
    signer, identity = keys.generate_signer(), keys.generate_identity()
    builder.build(lock, at.base / "x.airlift", at, sequence=1, signers=[signer], recipients=[identity.recipient])


def test_a_changed_file_is_named_once_and_no_other(tmp_path: Path) -> None:
    at = settings(tmp_path, cached=False)
    lock = resolved(at)
    (tmp_path / "charlie").write_bytes(b"c" * (SIZE - 1) + b"?")
    with pytest.raises(IntegrityError) as caught:
        build(lock, at)
    assert caught.value.message.startswith("charlie.bin: blobs/sha256/")
    assert [name for name in NAMES if f"{name}.bin" in caught.value.message] == ["charlie"]


def test_a_local_file_that_changed_or_is_gone_is_named_with_what_to_do(tmp_path: Path) -> None:
    at = settings(tmp_path, cached=False)
    (tmp_path / "here").write_bytes(b"before")
    asked = {
        "apiVersion": "airlift/v1",
        "kind": "Drop",
        "metadata": {"name": "x"},
        # A name that is part of what the message says of the digest.
        "files": [{"path": "here", "name": "blob"}],
    }
    lock = resolver.resolve(Manifest.model_validate(asked), at)
    (tmp_path / "here").write_bytes(b"after!")
    with pytest.raises(IntegrityError, match=r"^blob: blobs/sha256/") as changed:
        build(lock, at)
    (tmp_path / "here").unlink()
    with pytest.raises(ResolveError, match=r"^file blob: .*/here is not a file$") as gone:
        build(lock, at)
    for caught in (changed, gone):
        assert caught.value.hint == "did here change? put it back, or run airlift resolve"
    assert {path.name for path in tmp_path.iterdir()} == {"work"}


def test_a_disk_that_refuses_is_blamed_on_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = settings(tmp_path, cached=False)
    lock = resolved(at)

    def full(self: Output, offset: int, data: object) -> None:
        raise StoreError(f"writing {self.path}: no space at {offset > 0}")

    monkeypatch.setattr(Output, "write", full)
    with pytest.raises(StoreError) as caught:
        build(lock, at)
    assert caught.value.message == f"writing {tmp_path}/x.airlift: no space at True"


def test_only_the_damaged_copy_is_taken_out_of_the_cache(tmp_path: Path) -> None:
    at = settings(tmp_path)
    assert at.cache is not None
    lock = resolved(at)
    build(lock, at)
    held = {name: digest.of(name[:1].encode() * SIZE) for name in NAMES}
    damaged = at.cache.path(held["bravo"])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=r"^bravo\.bin: the cached copy of "):
        build(lock, at)
    assert [name for name in NAMES if not at.cache.has(held[name])] == ["bravo"]
