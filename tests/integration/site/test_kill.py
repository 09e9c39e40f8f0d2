"""Imports that end at any system call: nothing half is seen, and the same command finishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from airlift.digest import of as digest_of
from tests.support.cli import ROOT
from tests.support.registry import running_registry
from tests.support.site_bundles import Cargo, ship

BIG = bytes(range(256)) * 20_000


def killed(tmp_path: Path, count: int, *more: str) -> Any:
    earlier = Cargo()
    earlier.image("docker.io/library/app:1", b"old layer")
    earlier.file("tool", b"old tool")
    later = Cargo()
    later.image("docker.io/library/app:1", BIG, b"small")
    later.image("docker.io/library/app:2", b"another")
    for number in range(5):
        later.file(f"tool{number}", b"tool %d" % number)
    bundle = ship(later, tmp_path / "bundle", sequence=2)
    arguments = [tmp_path, bundle, ship(earlier, tmp_path / "earlier"), count, *more]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_imports", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_site_killed_at_any_call_shows_the_old_or_the_new_drop_and_a_second_run_finishes(tmp_path: Path) -> None:
    found = killed(tmp_path, 200)
    before, after = found["before"], found["after"]
    assert before["names"] != after["names"]
    assert {run["code"] for run in found["runs"]} == {-9}
    for run in found["runs"]:
        seen = run["seen"]
        assert (seen["names"], seen["held"]) in (
            (before["names"], before["held"]),
            (after["names"], after["held"]),
        ), run["at"]
        held = {row[2].removeprefix("sha256:") for row in seen["held"]}
        assert held <= set(seen["blobs"]), run["at"]
        assert run["again"] == 0
        assert run["after"] == after, run["at"]


def test_a_registry_that_is_filled_by_a_killed_import_is_finished_by_a_second_run(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        found = killed(tmp_path, 100, registry.url)
    before, after = found["before"], found["after"]
    assert before["tags"]["app:1"] != after["tags"]["app:1"]
    assert after["tags"]["app:2"] is not None
    assert digest_of(BIG)[7:] not in after["blobs"]
    for run in found["runs"]:
        for name, digest in run["seen"]["tags"].items():
            assert digest in (before["tags"][name], after["tags"][name]), run["at"]
        assert run["seen"]["names"] in (before["names"], after["names"])
        assert run["again"] == 0
        assert run["after"] == after, run["at"]
