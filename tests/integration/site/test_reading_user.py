"""A user who may read a site and not write there, such as the auditor, while no `serve` runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.errors import StoreError
from airlift.site import journal_file
from airlift.site.config import Site
from airlift.site.journal import Journal
from tests import components
from tests.support.cli import Ran, airlift
from tests.support.serving import serving
from tests.support.site_bundles import make_site, month, take

NOBODY = ["runuser", "-u", "nobody", "--"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """One with two drops, where everybody gets to."""
    components.require_root()
    components.require("runuser")
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        made = make_site(folder / "site")
        for number in (1, 2):
            take(made, month(tmp_path, number))
        probe = [*NOBODY, "sh", "-c", f"test -r '{made.root}/site.yaml' && '{shutil.which('python3')}' -c ''"]
        if subprocess.run(probe, check=False, capture_output=True).returncode:
            pytest.skip("what is needed here is closed to the user nobody")
        yield made
    finally:
        shutil.rmtree(folder)


def by_nobody(site: Site, *verb: str) -> Ran:
    return airlift(*verb, "--site", str(site.root), home=site.root.parent, prefix=NOBODY)


def test_the_owner_goes_back_on_a_full_disk_where_root_made_the_reserve(site: Site) -> None:
    components.require("unshare")
    # Where nobody gets to, unlike the tests' own directory.
    disk = site.root.with_name("disk")
    disk.mkdir()
    full = (
        'mount -t tmpfs -o size=24m,mode=755 none "$2" && cp -a "$1"/. "$2" && chown -R nobody "$2"'
        ' && chown root "$2/reserve" && chmod 644 "$2/reserve" && { cat /dev/zero > "$2/filler" 2> /dev/null || true; }'
        ' && shift 2 && exec "$@"'
    )
    prefix = ["unshare", "-m", "sh", "-c", full, "sh", str(site.root), str(disk), *NOBODY]

    ran = airlift("drops", "rollback", "--site", str(disk), home=site.root.parent, prefix=prefix)

    assert ran.code == 0, ran.err
    assert ran.out.startswith("* stable/1 ")


def content(site: Site) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in site.root.rglob("*") if path.is_file()}


def test_everything_that_only_reads_works_and_makes_no_file(site: Site) -> None:
    before = content(site)
    assert by_nobody(site, "status", "--json").json["channels"]["stable"]["sequence"] == 2
    assert [item["active"] for item in by_nobody(site, "drops", "list", "--json").json["drops"]] == [False, True]
    assert by_nobody(site, "drops", "show", "stable/1", "--json").json["contents"]
    assert by_nobody(site, "drops", "diff", "stable/1", "stable/2", "--json").json["changes"]
    assert [item["what"] for item in by_nobody(site, "site", "log", "--json").json["entries"]][-1] == "activated"
    checked = by_nobody(site, "check")
    assert (checked.code, checked.out) == (0, "clean: everything is as the drops say\n")
    assert content(site) == before


def test_what_was_made_and_imported_under_a_closed_umask_can_be_read_and_served(site: Site, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        shut = make_site(site.root.parent / "shut")
        take(shut, month(tmp_path, 1))
    finally:
        os.umask(before)
    assert by_nobody(shut, "status").code == 2, "its own directory is as closed as it was made"
    shut.root.chmod(0o755)
    checked = by_nobody(shut, "check")
    assert (checked.code, checked.err.count("warning"), checked.out) == (
        0,
        0,
        "clean: everything is as the drops say\n",
    )
    # Not runuser, which does not end as what it runs does.
    alone = [str(components.require("setpriv")), "--reuid", "nobody", "--clear-groups"]
    with serving(shut.root, prefix=alone) as url, urllib.request.urlopen(f"{url}/files/tool") as answer:
        assert answer.read() == b"tool of month 1"


def test_what_would_change_something_is_refused_and_changes_nothing(site: Site) -> None:
    before = content(site)
    refused = by_nobody(site, "drops", "rollback")
    assert refused.code == 16, refused.err
    assert "owner and mode of the directory" in refused.err or "Permission denied" in refused.err
    assert content(site) == before


def test_a_change_meanwhile_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_site(tmp_path / "site")
    monkeypatch.setattr(journal_file, "_is_still", lambda _: True)
    journal = Journal(made.journal_path)
    with contextlib.closing(sqlite3.connect(made.journal_path, isolation_level=None)) as other:
        other.execute("CREATE TABLE another (one)")
    with pytest.raises(StoreError, match=r"state\.db was changed while it was read$"):
        journal.close()
    journal.close()
    with Journal(made.journal_path) as again:
        assert again.drops() == []
