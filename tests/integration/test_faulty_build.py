"""A build whose registry cuts and lies: it ends well or with an error, and never seals a frame twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift import lock as locks
from airlift.bundle.writer import BundleWriter
from airlift.cli.exit import code_of
from airlift.connected import builder, resolver
from airlift.connected.source import Settings
from airlift.errors import FetchError, IntegrityError
from airlift.manifest import Manifest
from airlift.trust import keys
from tests.support.images import Box
from tests.support.registry import Front, cut, lie, refuse, running_front, running_registry
from tests.support.sources import settings

LAYER = 9_000_000


class Counted(BundleWriter):
    """The writer itself, kept for a look at its counts."""

    made: list[Counted] = []

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.made.append(self)


@pytest.fixture(scope="module")
def layers() -> list[bytes]:
    return [os.urandom(LAYER) for _ in range(3)]


@pytest.fixture
def front(tmp_path: Path, layers: list[bytes]) -> Iterator[Front]:
    with running_registry(tmp_path / "registry") as registry, running_front(registry) as made:
        box = Box(tmp_path / "box")
        box.image("1.0", layers=layers, compress=False)
        box.push(registry, "team/app", "1.0")
        yield made


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    Counted.made = []
    monkeypatch.setattr(builder, "BundleWriter", Counted)
    return Counted


def resolved(front: Front, at: Settings) -> locks.Lock:
    asked = Manifest.model_validate(
        {
            "apiVersion": "airlift/v1",
            "kind": "Drop",
            "metadata": {"name": "x"},
            "images": [f"{front.host}/team/app:1.0"],
        }
    )
    return resolver.resolve(asked, at)


def build(lock: locks.Lock, output: Path, at: Settings) -> builder.Built:
    signer, identity = keys.generate_signer(), keys.generate_identity()
    return builder.build(lock, output, at, sequence=1, signers=[signer], recipients=[identity.recipient])


def largest(lock: locks.Lock) -> str:
    return next(blob.digest for blob in lock.blobs() if blob.size == next(iter(sizes(lock))))


def sizes(lock: locks.Lock) -> list[int]:
    return sorted((blob.size for blob in lock.blobs()), reverse=True)


def test_a_cut_transfer_goes_on_and_every_frame_is_sealed_once(
    front: Front, tmp_path: Path, counted: type[Counted]
) -> None:
    at = settings(tmp_path)
    lock = resolved(front, at)
    front.faults.append(cut(0.4, match="/blobs/", method="GET", times=3))
    build(lock, tmp_path / "x.airlift", at)
    (writer,) = counted.made
    assert set(writer.seal_counts) == {1}
    assert [asked.range for asked in front.asked if asked.range], "nothing was resumed"


def test_a_lie_in_a_resumed_transfer_ends_the_build_with_12(
    front: Front, tmp_path: Path, counted: type[Counted]
) -> None:
    at = settings(tmp_path)
    lock = resolved(front, at)
    blob = largest(lock)
    front.faults += [
        cut(0.7, match=blob, method="GET", times=1),
        lie(lambda data: bytes([data[0] ^ 1]) + data[1:], match=blob, method="GET", times=1),
    ]
    with pytest.raises(IntegrityError) as caught:
        build(lock, tmp_path / "x.airlift", at)
    assert code_of(caught.value) == 12
    assert blob in str(caught.value)
    (writer,) = counted.made
    assert writer.sealed >= 1
    assert max(writer.seal_counts) == 1
    assert not list(tmp_path.glob("*.airlift*"))
    assert not list(tmp_path.glob(".*.airlift*"))
    if at.cache is not None:
        assert not at.cache.has(locks.digest.parse(blob))


def test_a_registry_that_lies_from_the_start_ends_the_build_with_12(
    front: Front, tmp_path: Path, counted: type[Counted]
) -> None:
    at = settings(tmp_path)
    lock = resolved(front, at)
    front.faults.append(lie(lambda data: data[:-1] + bytes([data[-1] ^ 1]), match=largest(lock), method="GET"))
    with pytest.raises(IntegrityError):
        build(lock, tmp_path / "x.airlift", at)
    assert max(counted.made[0].seal_counts) <= 1
    assert not list(tmp_path.glob("*.airlift*"))


@pytest.mark.parametrize("status", [401, 403, 404, 503])
def test_a_registry_that_refuses_ends_the_build_with_11(front: Front, tmp_path: Path, status: int) -> None:
    at = settings(tmp_path)
    lock = resolved(front, at)
    front.faults.append(refuse(status, match="/blobs/", headers={"Retry-After": "0"}))
    with pytest.raises(FetchError) as caught:
        build(lock, tmp_path / "x.airlift", at)
    assert code_of(caught.value) == 11
    assert f"{front.host}/team/app" in str(caught.value)
    assert not list(tmp_path.glob("*.airlift*"))


def test_a_tag_that_moved_after_the_lock_is_of_no_account(front: Front, tmp_path: Path) -> None:
    at = settings(tmp_path)
    lock = resolved(front, at)
    box = Box(tmp_path / "other")
    box.image("1.0", text="another")
    assert front.behind is not None
    box.push(front.behind, "team/app", "1.0")
    built = build(lock, tmp_path / "x.airlift", at)
    assert built.content_id == lock.layout().content_id


def test_the_second_build_takes_everything_from_the_cache(front: Front, tmp_path: Path) -> None:
    at = settings(tmp_path)
    assert at.cache is not None
    lock = resolved(front, at)
    build(lock, tmp_path / "x.airlift", at)
    before = len(front.asked)
    build(lock, tmp_path / "y.airlift", at)
    assert len(front.asked) == before


def test_a_damaged_cache_is_named_and_mended_by_the_next_run(front: Front, tmp_path: Path) -> None:
    at = settings(tmp_path)
    assert at.cache is not None
    lock = resolved(front, at)
    build(lock, tmp_path / "x.airlift", at)
    blob = at.cache.path(locks.digest.parse(largest(lock)))
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="the cached copy of") as caught:
        build(lock, tmp_path / "y.airlift", at)
    assert caught.value.hint == "it was removed from the cache; run the same command again"
    build(lock, tmp_path / "y.airlift", at)


def test_an_image_that_only_preload_names_is_carried(front: Front, tmp_path: Path) -> None:
    at = settings(tmp_path)
    name = f"{front.host}/team/app:1.0"
    document = {"apiVersion": "airlift/v1", "kind": "Drop", "metadata": {"name": "x"}, "k3s": {"preload": [name]}}
    asked = Manifest.model_validate(document)
    lock = resolver.resolve(asked, at)
    assert [item.artifact.name for item in lock.artifacts()] == [name]
    assert lock.k3s == {"preload": [name]}
    resolver.check(asked, lock, at)
    before = len(front.asked)
    assert resolver.resolve(asked, at, previous=lock) == lock
    assert len(front.asked) == before
