from __future__ import annotations

import json
from pathlib import Path

from tests.support.cli import ok


def test_a_trust_file_may_have_several_channels(tmp_path: Path) -> None:
    ok("keys", "generate", "alice", "--kind", "signer", "--no-passphrase", home=tmp_path)
    channels = ["--channel", "stable", "--channel", "edge"]
    ran = ok(
        "trust", "init", "-o", "t.json", *channels, "--signer", "alice=alice.pub", "--min-sequence", "3", home=tmp_path
    )

    assert "must sign for channels stable, edge" in ran.err
    found = json.loads((tmp_path / "t.json").read_text())["channels"]
    assert found == {"stable": {"min_sequence": 3}, "edge": {"min_sequence": 3}}
