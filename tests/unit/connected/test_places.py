from __future__ import annotations

import os
from pathlib import Path

from airlift.connected import places


def test_a_place_whose_name_is_not_text_is_remembered(tmp_path: Path) -> None:
    base = Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin-\xfc"))
    base.mkdir()
    places.remember(tmp_path / "cache", b"{}", base / "drop.lock.json", base)
    assert places.recall(tmp_path / "cache", b"{}", base / "drop.lock.json") == base


def test_a_lock_lies_beside_its_manifest_when_nothing_is_remembered_or_the_place_is_gone(tmp_path: Path) -> None:
    lock = tmp_path / "drop.lock.json"
    assert places.recall(tmp_path / "cache", b"{}", lock) == tmp_path
    places.remember(tmp_path / "cache", b"{}", lock, tmp_path / "gone")
    assert places.recall(tmp_path / "cache", b"{}", lock) == tmp_path


def test_of_two_checkouts_with_one_lock_each_has_its_own_place_and_a_moved_lock_the_last(tmp_path: Path) -> None:
    one, two, cache = tmp_path / "one", tmp_path / "two", tmp_path / "cache"
    for base in (one, two):
        base.mkdir()
        places.remember(cache, b"{}", base / "drop.lock.json", base)
    assert places.recall(cache, b"{}", one / "drop.lock.json") == one
    assert places.recall(cache, b"{}", two / "drop.lock.json") == two
    assert places.recall(cache, b"{}", tmp_path / "elsewhere.json") == two
