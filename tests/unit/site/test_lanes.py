"""In which order blobs are delivered, and how that ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from airlift.bundle.reader import Apart
from airlift.digest import Digest
from airlift.digest import of as digest_of
from airlift.errors import DeliveryError, StoreError
from airlift.progress import Silent
from airlift.site import lanes as lanes_module
from airlift.site.lanes import Lanes
from airlift.site.mirror import Content


class Count(Silent):
    def __init__(self) -> None:
        self.seen = 0

    def advance(self, amount: int) -> None:
        self.seen += amount


def consume(calls: Iterator[None]) -> None:
    for _ in calls:
        pass


def content(*chunks: bytes) -> Apart:
    return Apart(lambda: map(memoryview, chunks), lambda: map(memoryview, chunks))


@pytest.fixture
def progress() -> Count:
    return Count()


def test_of_those_that_wait_the_largest_goes_first(progress: Count, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes_module, "_LANES", 1)
    go = threading.Event()
    order: list[int] = []
    begun = threading.Semaphore(0)

    def deliver(_: Digest, size: int, taken: Content) -> bool:
        begun.release()
        assert go.wait(60)
        order.append(size)
        for _chunk in taken.undigested():
            pass
        return True

    lanes = Lanes(deliver, progress)
    try:
        lanes.put(digest_of(b"x"), 1, content(b"x"))
        assert begun.acquire(timeout=60)
        for size in (10, 30, 20, 50, 40):
            lanes.put(digest_of(bytes(size)), size, content(bytes(size)))
        go.set()
        lanes.settle()
    finally:
        lanes.stop()
    assert order == [1, 50, 40, 30, 20, 10]
    assert progress.seen == sum(order)


def test_while_the_registry_takes_one_to_its_disk_the_next_is_sent(
    progress: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "_SENDING", 1)
    monkeypatch.setattr(lanes_module, "_LANES", 2)
    is_second = threading.Event()

    def deliver(_: Digest, size: int, taken: Content) -> bool:
        if size == 1:
            is_second.set()
        for _chunk in taken.undigested():
            pass
        assert is_second.wait(60)
        return True

    lanes = Lanes(deliver, progress)
    try:
        lanes.put(digest_of(b"xx"), 2, content(b"xx"))
        lanes.put(digest_of(b"x"), 1, content(b"x"))
        lanes.settle()
    finally:
        lanes.stop()
    assert progress.seen == 3


def test_no_more_blobs_are_sent_at_a_time_than_there_are_places(progress: Count) -> None:
    under_way: set[int] = set()
    most: list[int] = []

    def deliver(_: Digest, size: int, taken: Content) -> bool:
        under_way.add(size)
        most.append(len(under_way))
        for chunk in taken.undigested():
            if len(chunk) == 1:
                # The last one: what comes after it is the answer.
                under_way.remove(size)
        return True

    lanes = Lanes(deliver, progress)
    try:
        for size in range(3, 200):
            lanes.put(digest_of(bytes(size)), size, content(bytes(size - 1), b"x"))
        lanes.settle()
    finally:
        lanes.stop()
    assert 1 <= max(most) <= lanes_module._SENDING


def test_what_is_there_already_is_read_to_its_end_and_counted_once(progress: Count) -> None:
    read: list[bytes] = []

    def chunks() -> Iterator[memoryview]:
        for data in (b"abc", b"de"):
            read.append(data)
            yield memoryview(data)

    def deliver(_digest: Digest, _size: int, taken: Content) -> bool:
        next(taken.chunks())
        return False

    lanes = Lanes(deliver, progress)
    lanes.put(digest_of(b"abcde"), 5, Apart(chunks, chunks))
    lanes.settle()
    lanes.stop()
    assert read == [b"abc", b"abc", b"de"]
    assert progress.seen == 5


def test_a_failure_ends_what_comes_after_it(progress: Count) -> None:
    failed = threading.Event()

    def deliver(_digest: Digest, size: int, _content: Content) -> bool:
        if size == 2:
            failed.set()
            raise DeliveryError("no")
        return True

    lanes = Lanes(deliver, progress)
    lanes.put(digest_of(b"a"), 2, content(b"aa"))
    assert failed.wait(60)
    with pytest.raises(DeliveryError, match=r"^no$"):
        consume(lanes.put(digest_of(b"b"), 1, content(b"b")) for _ in range(100_000))
    with pytest.raises(DeliveryError, match=r"^no$"):
        lanes.settle()
    lanes.stop()


def test_stopping_ends_what_is_under_way(progress: Count) -> None:
    begun = threading.Event()
    ended: list[StoreError] = []

    def endless() -> Iterator[memoryview]:
        while True:
            yield memoryview(b"x")
            begun.set()

    def deliver(_digest: Digest, _size: int, taken: Content) -> bool:
        try:
            for _ in taken.undigested():
                pass
        except StoreError as error:
            ended.append(error)
            raise
        return True

    lanes = Lanes(deliver, progress)
    lanes.put(digest_of(b"x"), 1, Apart(endless, endless))
    assert begun.wait(60)
    lanes.stop()
    assert [error.message for error in ended] == ["the import has ended"]
