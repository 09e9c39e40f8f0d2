"""Rollback of names and releases in one command: whole, refused, killed, and beside other commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from airlift.cli.main import run
from airlift.progress import Silent
from airlift.site import drops as kept
from airlift.site.config import Site
from airlift.site.deploy import files
from tests.support.deployable import activate, make_site
from tests.support.drops import Drops
from tests.support.machine import add_k3s, k3s_binary
from tests.unit.deploy.conftest import tree

APP = "docker.io/library/app:1"
MANIFEST = "var/lib/rancher/k3s/server/manifests/airlift-web.yaml"


@pytest.fixture(autouse=True)
def _no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The charts of these tests are none that helm could render."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site with three drops; the second is active."""
    made = make_site(tmp_path / "site")
    for sequence in (1, 2, 3):
        drops = Drops(made.store)
        drops.image(APP, b"app %d" % sequence)
        drops.chart("site", f"1.{sequence}.0", [APP], archive=b"chart %d" % sequence)
        drops.release("site", namespace="vision", release="web", v=b"a: %d\n" % sequence)
        activate(made, drops, sequence=sequence)
    return made


def where(site: Site, root: Path) -> list[str]:
    return ["--site", str(site.root), "--root", str(root), "--platform", "linux/amd64"]


def active(site: Site) -> list[int]:
    return [drop.sequence for drop in kept.list_drops(site) if drop.active]


def test_names_and_releases_are_taken_back_in_one_command(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert run(["drops", "activate", "--site", str(site.root), "stable/2"]) == 0
    assert run(["deploy", "k3s", *where(site, root)]) == 0
    second = tree(root)
    assert run(["drops", "activate", "--site", str(site.root), "stable/3"]) == 0
    assert run(["deploy", "k3s", *where(site, root)]) == 0
    third = tree(root)
    capsys.readouterr()

    assert run(["deploy", "rollback", *where(site, root), "--dry-run"]) == 0
    assert "would go from stable/3 back to stable/2" in capsys.readouterr().out
    assert tree(root) == third
    assert run(["deploy", "rollback", *where(site, root)]) == 0

    assert "went from stable/3 back to stable/2" in capsys.readouterr().out
    assert tree(root)[MANIFEST] == second[MANIFEST] != third[MANIFEST]
    assert active(site) == [2]


def test_a_rollback_whose_drop_has_an_older_k3s_says_that_k3s_stays_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = make_site(tmp_path / "site")
    for sequence, version in ((1, "v1.32.9+k3s1"), (2, "v1.33.1+k3s1")):
        drops = Drops(site.store)
        drops.image(APP, b"app %d" % sequence)
        add_k3s(drops, version=version)
        activate(site, drops, sequence=sequence)
    root = tmp_path / "root"
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/k3s").write_bytes(k3s_binary("v1.33.1+k3s1"))
    (root / "usr/local/bin/k3s").chmod(0o755)
    assert run(["deploy", "k3s", *where(site, root)]) == 0
    assert "K3s stays" not in capsys.readouterr().err

    assert run(["deploy", "rollback", *where(site, root)]) == 0

    said = capsys.readouterr().err
    assert "note: K3s stays as it is (v1.33.1+k3s1); the drop has v1.32.9+k3s1" in said
    assert "v1.33.1+k3s1 wrote the datastore of this machine, and the drop's v1.32.9+k3s1 cannot read it" in said
    assert (root / "usr/local/bin/k3s").read_bytes() == k3s_binary("v1.33.1+k3s1")
    assert active(site) == [1]


def test_one_that_cannot_be_deployed_moves_no_name(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    manifest = root / MANIFEST
    manifest.parent.mkdir(parents=True)
    manifest.write_text("of: others\n")

    assert run(["deploy", "rollback", *where(site, root)]) == 18

    assert "was not written by airlift" in capsys.readouterr().err
    assert active(site) == [3]


class _KilledError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.mark.parametrize("after", [0, 1])
def test_one_that_was_killed_while_it_wrote_is_finished_by_the_next_and_goes_no_further_back(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], after: int
) -> None:
    root, twin = tmp_path / "root", tmp_path / "twin"
    assert run(["deploy", "k3s", *where(site, root)]) == 0
    assert run(["drops", "activate", "--site", str(site.root), "stable/2"]) == 0
    assert run(["deploy", "k3s", *where(site, twin)]) == 0
    assert run(["drops", "activate", "--site", str(site.root), "stable/3"]) == 0
    real, count = files.write_file, 0

    def write_some(*arguments: object) -> None:
        nonlocal count
        count += 1
        if count > after:
            raise _KilledError
        real(*arguments)  # type: ignore[arg-type]  # passed on as they came

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_file", write_some)
        with pytest.raises(_KilledError):
            run(["deploy", "rollback", *where(site, root)])
    assert active(site) == [2]
    capsys.readouterr()

    assert run(["deploy", "rollback", *where(site, root)]) == 0

    assert active(site) == [2]
    assert "went from stable/3 back to stable/2" in capsys.readouterr().out
    assert tree(root)[MANIFEST] == tree(twin)[MANIFEST]
    assert run(["deploy", "rollback", *where(site, root)]) == 0
    assert active(site) == [1]


def test_one_that_was_killed_before_a_name_moved_begins_anew_and_a_later_deployment_ends_it(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"

    def killed(*_: object, **__: object) -> None:
        raise _KilledError

    with monkeypatch.context() as patch:
        patch.setattr(kept, "activate", killed)
        with pytest.raises(_KilledError):
            run(["deploy", "rollback", *where(site, root)])
    assert active(site) == [3]
    assert (site.root / "going-back.json").is_file()

    assert run(["deploy", "k3s", *where(site, root)]) == 0
    assert not (site.root / "going-back.json").exists()
    assert run(["deploy", "rollback", *where(site, root)]) == 0
    assert active(site) == [2]


def test_two_sites_that_deploy_to_one_root_wait_for_each_other(site: Site, tmp_path: Path) -> None:
    root = tmp_path / "root"
    other = make_site(tmp_path / "other")
    drops = Drops(other.store)
    drops.image("ghcr.io/org/app:1", b"other")
    activate(other, drops)
    command = [sys.executable, "-m", "airlift", "deploy", "k3s"]
    root.mkdir()
    with files.alone(root, Silent()):
        waiting = [
            subprocess.Popen([*command, *where(item, root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for item in (site, other)
        ]
        for process in waiting:
            assert process.stderr is not None
            assert process.stderr.readline() == f"airlift: waiting for another command that deploys to {root}\n"
        assert tree(root) == {}
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in waiting]

    assert [code for _, code in ended] == [0, 0], ended
    written = (root / "etc/rancher/k3s/registries.yaml").read_text()
    assert "docker.io" in written
    assert "ghcr.io" in written
