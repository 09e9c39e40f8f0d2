"""A site on a disk that is mounted read-only: it is read, served and compared, and nothing is written."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from airlift.site import drops
from airlift.site.config import Site
from tests import components
from tests.support.cli import Ran, airlift
from tests.support.serving import serving
from tests.support.site_bundles import Cargo, make_site, ship, take

# A mount namespace of its own, where the site is seen a second time, read-only; the last word runs there.
BOUND = 'mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" && shift 2 && exec "$@"'
# A file system of its own that has a copy of the site and lets nobody write.
WHOLE = 'mount -t tmpfs none "$2" && cp -a "$1"/. "$2" && mount -o remount,ro "$2" && shift 2 && exec "$@"'

NOT_CLOSED = (
    "was not closed: its last changes are in state.db-wal, and they cannot be read where nothing can be written"
)
OPEN_IT = (
    "run airlift status once as who may write there, on a disk that is mounted writable: it puts them into their place;"
    " or copy the site"
)

KILLED = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("UPDATE channels SET sequence = 7")
os._exit(0)
"""


def month(number: int) -> Cargo:
    cargo = Cargo()
    cargo.image("docker.io/library/app:1", b"layer of %d" % number)
    cargo.file("k3s", b"k3s of %d" % number)
    return cargo


@pytest.fixture
def site(tmp_path: Path) -> Site:
    components.require_root()
    components.require("unshare")
    made = make_site(tmp_path / "site")
    for number in (1, 2):
        take(made, ship(month(number), tmp_path / f"{number}.airlift", sequence=number))
    (tmp_path / "disk").mkdir()
    return made


def prefix(site: Site, how: str) -> list[str]:
    return ["unshare", "-m", "sh", "-c", how, "sh", str(site.root), str(site.root.parent / "disk")]


def on_disk(site: Site, how: str, *verb: str) -> Ran:
    return airlift(*verb, "--site", "disk", home=site.root.parent, prefix=prefix(site, how))


@pytest.mark.parametrize("how", [BOUND, WHOLE], ids=["bind mount", "file system"])
def test_everything_that_only_reads_works(site: Site, how: str) -> None:
    assert on_disk(site, how, "status", "--json").json["channels"]["stable"]["sequence"] == 2
    listed = on_disk(site, how, "drops", "list", "--json").json["drops"]
    assert [(item["sequence"], item["active"]) for item in listed] == [(1, False), (2, True)]
    assert on_disk(site, how, "drops", "show", "stable/1", "--json").json["contents"]
    changes = on_disk(site, how, "drops", "diff", "stable/1", "stable/2", "--json").json["changes"]
    assert {item["change"] for item in changes} == {"changed"}
    assert on_disk(site, how, "drops", "prune", "--keep", "1", "--json").json["releases"] == [listed[0]["release"]]
    checked = on_disk(site, how, "check")
    assert (checked.code, checked.out) == (0, "clean: everything is as the drops say\n")


def test_what_writes_is_refused_before_anything_else(site: Site) -> None:
    ship(month(3), site.root.parent / "3.airlift", sequence=3)
    for verb in (("import", "3.airlift"), ("drops", "rollback")):
        ran = on_disk(site, WHOLE, *verb)
        assert ran.code == 16, verb
        assert ran.err.splitlines()[-2:] == [
            "airlift: error: the journal disk/state.db: attempt to write a readonly database",
            "airlift: hint: check that the disk is mounted writable, and the owner and mode of the directory",
        ]
    assert on_disk(site, WHOLE, "import", "3.airlift", "--dry-run").code == 0


@pytest.mark.parametrize("how", [BOUND, WHOLE], ids=["bind mount", "file system"])
def test_a_deployment_is_tried_and_done_from_it(site: Site, how: str) -> None:
    deploy = ("deploy", "k3s", "--root", "node", "--platform", "linux/amd64")
    for verb in (deploy, ("deploy", "rollback", *deploy[2:])):
        ran = on_disk(site, how, *verb, "--dry-run")
        assert ran.code == 0, ran.err
        assert "create /etc/rancher/k3s/registries.yaml" in ran.out
    assert not (site.root.parent / "node").exists()
    assert on_disk(site, how, *deploy).code == 0
    assert (site.root.parent / "node/etc/rancher/k3s/registries.yaml").is_file()


def test_a_site_of_before_is_exported_without_a_pin(site: Site) -> None:
    with contextlib.closing(sqlite3.connect(site.journal_path)) as db:
        db.execute("DROP TABLE trust")
    ran = on_disk(site, WHOLE, "export", "--static", "www")
    assert ran.code == 0, ran.err
    with site.journal() as journal:
        assert journal.pinned() is None


def test_it_is_served(site: Site) -> None:
    with serving(site.root.parent / "disk", prefix=prefix(site, WHOLE)) as url:
        assert requests.get(f"{url}/files/k3s", timeout=30).content == b"k3s of 2"
        assert requests.get(f"{url}/v2/docker.io/library/app/manifests/1", timeout=30).status_code == 200


def test_a_server_sees_what_is_written_through_another_mount(site: Site, tmp_path: Path) -> None:
    with serving(tmp_path / "disk", prefix=prefix(site, BOUND)) as url:

        def answers(number: int) -> None:
            assert requests.get(f"{url}/files/k3s", timeout=30).content == b"k3s of %d" % number

        answers(2)
        drops.rollback(site, None)
        answers(1)
        take(site, ship(month(3), tmp_path / "3.airlift", sequence=3))
        answers(3)
        second = drops.find(site, "stable/2")
        with site.journal() as journal:
            with journal.transaction():
                journal.activate(second)
            # It is in the write-ahead log, which the server goes over to.
            assert (site.root / "state.db-wal").stat().st_size > 0
            answers(2)
        drops.activate(site, "stable/1")
        answers(1)


def test_what_a_killed_command_left_in_the_log_is_read_by_the_index_beside_it(site: Site) -> None:
    kill(site)
    assert on_disk(site, BOUND, "status", "--json").json["channels"]["stable"]["sequence"] == 7


def test_without_that_index_it_is_said_and_nothing_older_is_shown(site: Site) -> None:
    kill(site)
    (site.root / "state.db-shm").unlink()
    for verb in (("status",), ("drops", "list"), ("check",), ("serve", "--listen", "127.0.0.1:0")):
        ran = on_disk(site, BOUND, *verb)
        assert ran.code == 16
        assert ran.err.splitlines()[-2:] == [
            f"airlift: error: the journal disk/state.db {NOT_CLOSED}",
            f"airlift: hint: {OPEN_IT}",
        ]
    # What the hint says.
    shutil.copytree(site.root, site.root.parent / "copy")
    told = airlift("status", "--json", "--site", "copy", home=site.root.parent).json
    assert told["channels"]["stable"]["sequence"] == 7
    airlift("status", "--site", "site", home=site.root.parent)
    assert on_disk(site, BOUND, "status", "--json").json["channels"]["stable"]["sequence"] == 7


def kill(site: Site) -> None:
    """Leave a change as a command does that is killed once it is durable."""
    subprocess.run([sys.executable, "-c", KILLED, site.journal_path], check=True)
    assert (site.root / "state.db-wal").stat().st_size > 0
    assert (site.root / "state.db-shm").exists()
