"""What a payload leaves in the store when it turns out wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airlift.bundle.reader import Apart, PayloadMember
from airlift.digest import Digest
from airlift.digest import of as digest_of
from airlift.errors import IntegrityError
from airlift.progress import Silent
from airlift.site.intake import Intake
from airlift.store import BlobWriter, Store


class SlowWriter(BlobWriter):
    def commit(self) -> None:
        time.sleep(0.2)
        super().commit()


class SlowStore(Store):
    """A disk that takes its time to make a blob durable."""

    def writer(self, digest: Digest, size: int) -> BlobWriter:
        return SlowWriter(self, digest, size, is_checked=True)


class Damaged:
    """An unlocked bundle whose second frame is wrong."""

    def payload(self) -> Iterator[PayloadMember]:
        data = b"of the first frame"
        pieces = [memoryview(data)]
        yield PayloadMember(
            f"blobs/sha256/{digest_of(data)[7:]}",
            len(data),
            iter(pieces),
            lambda: Apart(lambda: iter(pieces), lambda: iter(pieces)),
        )
        raise IntegrityError("frame 1", expected="its leaf", actual="another")


def test_a_blob_that_is_still_on_its_way_to_the_disk_is_taken_back_too(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "store")
    store.create()
    damaged: Any = Damaged()
    with Intake(store, None, Silent(), lambda *_: None, is_dry=False) as intake:
        with pytest.raises(IntegrityError):
            intake.run(damaged)
        intake.discard()
    assert list(store.digests()) == []
    assert list((store.root / "ingest").iterdir()) == []
