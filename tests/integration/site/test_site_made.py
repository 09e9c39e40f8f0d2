"""``airlift site init`` that ends at any system call: there is a whole site, or the same command makes one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airlift.errors import ManifestError, UsageError
from airlift.site.config import init_site, load_site
from airlift.site.site_yaml import SiteConfig
from airlift.trust.roots import dump_trust
from tests.support.bundles import trust
from tests.support.cli import environment
from tests.support.site_bundles import URL

# Prints how it ended, and what the directory had then, for a kill at each of the calls.
KILLED = """
import json, os, shutil, sys
from pathlib import Path
from airlift.site.config import init_site
from airlift.site.site_yaml import SiteConfig
from tests.support.killed_imports import counted, in_child
work = Path(sys.argv[1])
site, report, config = work / "site", work / "report", SiteConfig(url=sys.argv[2])
make = lambda: init_site(site, work / "trust.json", config)
found, kill_at = [], 0
while not report.exists():
    kill_at += 1
    shutil.rmtree(site, ignore_errors=True)
    ended = in_child(counted(make, kill_at, report))
    there = sorted(os.listdir(site)) if site.exists() else []
    found.append((ended, there, 0 if "site.yaml" in there else in_child(make), sorted(os.listdir(site))))
print(json.dumps(found))
"""
WHOLE = ["drops", "site.yaml", "state.db", "store", "trust.json"]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "trust.json").write_bytes(dump_trust(trust()))
    return tmp_path


def test_a_site_that_was_killed_while_it_was_made_is_made_by_the_same_command(work: Path) -> None:
    script = [sys.executable, "-c", KILLED, str(work), URL]
    ran = subprocess.run(script, env=environment(work), capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    *killed, (whole, _, _, there) = json.loads(ran.stdout)

    assert (whole, there) == (0, WHOLE)
    assert len(killed) > 20
    assert {ended for ended, _, _, _ in killed} == {-9}
    assert {again for _, _, again, _ in killed} == {0}
    # No mark is beside a site.yaml: where that is moved away once, nothing may take the site for an unmade one.
    # SQLite takes its files away when it is opened.
    extra = {"state.db-shm", "state.db-wal"}
    assert {tuple(name for name in after if name not in extra) for _, _, _, after in killed} == {tuple(WHOLE)}
    # Kills left anything from the mark alone to all but site.yaml.
    assert {tuple(left) for _, left, _, _ in killed} >= {
        (".airlift-making",),
        (".airlift-making", "drops", "state.db", "store"),
    }


def test_a_site_that_lost_a_file_says_how_it_comes_back(work: Path) -> None:
    root = init_site(work / "site", work / "trust.json", SiteConfig(url=URL)).root
    (root / "trust.json").rename(work / "away.json")
    with pytest.raises(ManifestError, match=r"site/trust\.json: no such file$") as trustless:
        load_site(root)
    assert trustless.value.hint == "put the pinned file back from a backup, or pin it again with airlift site trust"

    (root / "site.yaml").unlink()
    lost = "state.db is there: put site.yaml back from a backup, or write it again; airlift schema site says how"
    for work_on in (load_site, lambda there: init_site(there, work / "trust.json", SiteConfig(url=URL))):
        with pytest.raises(UsageError) as caught:
            work_on(root)
        assert caught.value.hint == lost
    with pytest.raises(UsageError) as caught:
        load_site(work)
    assert caught.value.hint == "make one with: airlift site init DIR"


def test_what_is_no_unmade_site_is_left_alone(work: Path) -> None:
    config = SiteConfig(url=URL)
    made = init_site(work / "site", work / "trust.json", config)
    (made.root / "site.yaml").rename(work / "lost.yaml")
    (work / "file").write_text("mine")
    (work / "folder").mkdir()
    (work / "folder" / "mine").write_text("mine")
    for name in ("site", "file", "folder"):
        with pytest.raises(UsageError, match="exists and is not empty"):
            init_site(work / name, work / "trust.json", config)

    (work / "lost.yaml").rename(made.root / "site.yaml")
    assert load_site(made.root).config == made.config
    assert (work / "file").read_text() == (work / "folder" / "mine").read_text() == "mine"


def test_what_somebody_laid_into_an_unmade_site_stays(work: Path) -> None:
    root = work / "site"
    root.mkdir()
    for name in (".airlift-making", "trust.json", "release.airlift"):
        (root / name).touch()
    with pytest.raises(UsageError, match="exists and is not empty"):
        init_site(root, work / "trust.json", SiteConfig(url=URL))
    assert (root / "release.airlift").exists()

    (root / "release.airlift").unlink()
    assert init_site(root, work / "trust.json", SiteConfig(url=URL)).config.url == URL


def test_an_empty_directory_becomes_a_site(work: Path) -> None:
    (work / "site").mkdir()

    assert load_site(init_site(work / "site", work / "trust.json", SiteConfig(url=URL)).root).config.url == URL
