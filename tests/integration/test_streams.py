"""Standard streams that are closed, full, or that nobody reads any more."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from airlift.site import drops
from tests.support.cli import environment
from tests.support.site_bundles import Cargo, make_site, ship, take

FULL = Path("/dev/full")


def shell(line: str, *words: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run ``airlift WORDS``, as ``$airlift`` of a line of bash."""
    command = shlex.join([sys.executable, "-m", "airlift", *map(str, words)])
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line.replace('$airlift', command)}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(home),
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("line", ["$airlift >&-", "$airlift 2>&-", "$airlift <&- >&- 2>&-"])
def test_a_closed_stream_leads_nowhere(line: str, tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    done = shell(line, "status", "--site", site.root, home=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert ("trust" in done.stdout) == (line == "$airlift 2>&-")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_an_answer_that_cannot_be_written_is_said_without_a_traceback(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    bundle = ship(Cargo(), tmp_path / "1.airlift")
    done = shell(f"$airlift >{FULL}", "import", bundle, "--site", site.root, home=tmp_path)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "airlift: error: writing to standard output: No space left on device\n"
        "airlift: hint: the answer is lost; what the command had to change is changed\n"
    )
    assert [drop.active for drop in drops.list_drops(site)] == [True]


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    for number, line in enumerate((f"$airlift 2>{FULL}", "$airlift 2>&1 >/dev/null | true"), 1):
        bundle = ship(Cargo(), tmp_path / f"{number}.airlift", sequence=number)
        assert shell(line, "import", bundle, "--site", site.root, home=tmp_path).returncode == 0
        assert drops.list_drops(site)[-1].sequence == number
    assert take(site, bundle).was_here


def test_a_name_that_is_no_text_or_would_steer_the_terminal_is_shown_without_that(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    (site.store.blobs / os.fsdecode(b"\xff\x1b[2J")).write_bytes(b"")
    done = shell("$airlift", "check", "--site", site.root, home=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (12, False)
    assert f"{site.store.blobs}/??[2J: not a blob\n" in done.stdout
    done = shell("$airlift", "check", "--json", "--site", site.root, home=tmp_path)
    assert [item["subject"] for item in json.loads(done.stdout)["findings"]] == [f"{site.store.blobs}/\udcff\x1b[2J"]


@pytest.mark.parametrize("verb", [("status",), ("status", "--json"), ("drops", "list")])
def test_a_terminal_that_cannot_show_a_letter_gets_another(verb: tuple[str, ...], tmp_path: Path) -> None:
    site = make_site(tmp_path / "s\u00efte")
    line = "LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0 PYTHONIOENCODING=ascii $airlift"
    done = shell(line, *verb, "--site", site.root, home=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
