from __future__ import annotations

import os
from pathlib import Path

from airlift.connected import places


def test_a_place_whose_name_is_not_text_is_remembered(tmp_path: Path) -> None:
    base = Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin-\xfc"))
    base.mkdir()
    places.remember(tmp_path / "cache", b"{}", base)
    assert places.recall(tmp_path / "cache", b"{}", tmp_path) == base


def test_a_lock_lies_beside_its_manifest_when_nothing_is_remembered_or_the_place_is_gone(tmp_path: Path) -> None:
    assert places.recall(tmp_path / "cache", b"{}", tmp_path) == tmp_path
    places.remember(tmp_path / "cache", b"{}", tmp_path / "gone")
    assert places.recall(tmp_path / "cache", b"{}", tmp_path) == tmp_path
