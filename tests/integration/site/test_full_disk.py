"""A site on a disk that something else filled: it is read and served, goes back and is pruned."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from airlift.trust.roots import load_trust
from tests import components
from tests.support.cli import airlift
from tests.support.site_bundles import Cargo, make_site, ship, take

# A small disk that has the site, its reserve, and then a file that takes all that is left.
FULL = (
    'mount -t tmpfs -o size=24m none "$2" && cp -a "$1"/. "$2" && ls "$2/reserve" > /dev/null'
    ' && { cat /dev/zero > "$2/filler" 2> /dev/null || true; } && shift 2 && exec "$@"'
)
# Before the disk is filled for good, commands spend what was set aside: $3 of them fail as imports do there, and then
# something else takes what they left.
SPENT = (
    'mount -t tmpfs -o size=24m none "$2" && cp -a "$1"/. "$2" && times="$3" bundle="$4" left="$5" && site="$2"'
    ' && cp -a "$left" "$site/store/ingest/" && { cat /dev/zero > "$site/filler" 2> /dev/null || true; } && shift 5'
    ' && while [ "$times" -gt 0 ]; do "$1" -m airlift import "$bundle" --site "$site" 2>> errors; [ $? -eq 16 ] || exit 70;'
    ' times=$((times - 1)); cat /dev/zero >> "$site/filler" 2> /dev/null; done; exec "$@"'
)
SERVED = """
from pathlib import Path
import requests
from tests.support.serving import serving
with serving(Path("disk").resolve()) as url:
    print(requests.get(f"{url}/files/k3s", timeout=20).text)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    components.require_root()
    components.require("unshare")
    made = make_site(tmp_path / "site")
    for number in (1, 2):
        cargo = Cargo()
        cargo.file("k3s", b"k3s of %d" % number)
        take(made, ship(cargo, tmp_path / f"{number}.airlift", sequence=number))
    (tmp_path / "disk").mkdir()
    return tmp_path


def prefix(home: Path) -> list[str]:
    return ["unshare", "-m", "sh", "-c", FULL, "sh", str(home / "site"), str(home / "disk")]


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        (("status",), "stable"),
        (("drops", "list"), "stable"),
        (("drops", "show", "stable/1"), "k3s"),
        (("check",), "clean"),
        (("drops", "rollback"), ""),
        (("drops", "activate", "stable/1"), ""),
    ],
)
def test_the_journal_opens_with_the_space_that_was_set_aside(home: Path, verb: tuple[str, ...], said: str) -> None:
    ran = airlift(*verb, "--site", "disk", home=home, prefix=prefix(home))

    assert ran.code == 0, ran.err
    assert said in ran.out


def spent(home: Path, times: int, *, left: bytes = b"") -> list[str]:
    """A full disk on which a large import failed so often, and what a killed one left in the store."""
    cargo = Cargo()
    for number in range(200):
        cargo.file(f"part{number}", random.Random(number).randbytes(100_000))
    ship(cargo, home / "large.airlift", sequence=3)
    (home / "killed.part").write_bytes(left)
    names = [home / "site", home / "disk", times, home / "large.airlift", home / "killed.part"]
    return ["unshare", "-m", "sh", "-c", SPENT, "sh", *map(str, names)]


def test_imports_that_fail_on_a_full_disk_leave_room_to_prune_on_it(home: Path) -> None:
    plan = ("drops", "prune", "--site", "disk", "--keep", "1", "-o", "plan.json")
    assert airlift(*plan, home=home, prefix=spent(home, 2)).code == 0

    ran = airlift("drops", "prune", "--site", "disk", "--execute", "plan.json", home=home, prefix=spent(home, 2))

    assert ran.code == 0, ran.err
    assert ran.out.startswith("pruned stable/1 ")


def test_what_a_killed_import_left_gives_room_on_a_full_disk(home: Path) -> None:
    (home / "site" / "reserve").unlink()

    ran = airlift("drops", "rollback", "--site", "disk", home=home, prefix=spent(home, 0, left=bytes(1_000_000)))

    assert ran.code == 0, ran.err
    assert ran.out.startswith("* stable/1 ")


def test_a_trust_file_is_pinned(home: Path) -> None:
    file = home / "site.keys" / "trust.json"
    verb = ("site", "trust", "--site", "disk", "--trust", file, "--fingerprint", load_trust(file).fingerprint)
    ran = airlift(*verb, home=home, prefix=prefix(home))

    assert ran.code == 0, ran.err
    assert ran.out == f"fingerprint {load_trust(file).fingerprint}\n"


def test_it_is_served(home: Path) -> None:
    done = subprocess.run(
        [*prefix(home), sys.executable, "-c", SERVED],
        cwd=home,
        env={"PYTHONPATH": str(components.ROOT), "PATH": components.search_path(), "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "k3s of 2\n"
