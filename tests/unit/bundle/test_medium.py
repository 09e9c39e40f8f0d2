"""How a bundle's file is read: whole parts, and frames past the system's cache."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from airlift.bundle.medium import Medium
from airlift.errors import BundleError, StoreError

SIZE = 3_000_001
LARGEST = 100_000


@pytest.fixture
def data() -> bytes:
    return random.Random(1).randbytes(SIZE)


@pytest.fixture
def path(tmp_path: Path, data: bytes) -> Path:
    made = tmp_path / "x"
    made.write_bytes(data)
    return made


def forget(path: Path) -> None:
    """Let the system drop what it has of the file in its cache."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


@pytest.fixture(params=[False, True], ids=["cold", "cached"])
def medium(request: pytest.FixtureRequest, path: Path) -> Iterator[Medium]:
    if not request.param:
        forget(path)
    found = Medium(path, largest=LARGEST)
    yield found
    found.close()


def once(medium: Medium, offset: int, size: int) -> bytes:
    with medium.once(offset, size) as part:
        return bytes(part)


def is_cached(path: Path, offset: int) -> bool:
    handle = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(handle, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


PLACES = [(0, 1), (0, LARGEST), (511, 4097), (4096, 8192), (4095, 2), (SIZE - 1, 1), (SIZE - LARGEST, LARGEST)]


@pytest.mark.parametrize(("offset", "size"), PLACES)
def test_any_part_comes_as_it_is(medium: Medium, data: bytes, offset: int, size: int) -> None:
    assert once(medium, offset, size) == data[offset : offset + size]
    assert medium.read(offset, size) == data[offset : offset + size]
    buffer = bytearray(size)
    medium.read_into(memoryview(buffer), offset)
    assert buffer == data[offset : offset + size]


def test_parts_that_are_used_at_the_same_time_are_apart(medium: Medium, data: bytes) -> None:
    with medium.once(0, 1000) as first:
        with medium.once(5000, 1000) as second:
            assert second == data[5000:6000]
        assert first == data[:1000]


def test_what_is_read_once_does_not_fill_the_cache(path: Path, data: bytes) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"the file system of {path} has no way past the cache: {error}")
    forget(path)
    medium = Medium(path, largest=LARGEST)
    assert once(medium, 1_000_000, LARGEST) == data[1_000_000 : 1_000_000 + LARGEST]
    assert not is_cached(path, 1_000_000)
    medium.read(1_000_000, 1)
    assert is_cached(path, 1_000_000)
    medium.close()


def test_a_file_that_took_the_place_of_this_one_is_not_read(path: Path, data: bytes) -> None:
    """It was opened under its name twice; only what was opened first counts."""
    other = path.with_name("other")
    other.write_bytes(bytes(SIZE))

    class Swapped(Medium):
        def _open_direct(self) -> int:
            other.replace(path)
            return super()._open_direct()

    forget(path)
    medium = Swapped(path, largest=LARGEST)
    assert once(medium, 5000, LARGEST) == data[5000 : 5000 + LARGEST]
    medium.close()


def test_a_file_that_becomes_shorter_is_said(path: Path, medium: Medium) -> None:
    os.truncate(path, SIZE - 10)
    for read in (partial(once, medium), medium.read):
        with pytest.raises(BundleError, match=r"x became shorter while it was read$"):
            read(SIZE - 1000, 1000)
    assert len(once(medium, SIZE - 1010, 1000)) == 1000


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"^reading .*/absent: No such file or directory$"):
        Medium(tmp_path / "absent", largest=1)


def test_closing_twice_does_no_harm(path: Path) -> None:
    medium = Medium(path, largest=1)
    medium.close()
    medium.close()
    with pytest.raises(StoreError, match="Bad file descriptor"):
        medium.read(0, 1)


def test_a_pipe_or_a_device_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(BundleError) as caught:
            Medium(path, largest=LARGEST)
        assert caught.value.message == f"{path} is no regular file"
        assert caught.value.hint == "a bundle is read out of its order; copy it into a file first"
