"""What is typed as the name of an output: what is there already, what is empty, what no disk looks for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from airlift import limits
from airlift.cli import options
from airlift.errors import UsageError
from tests.support.cli import airlift, ok
from tests.support.site_bundles import Cargo, make_site, ship, take


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "motd").write_text("hello\n")
    (tmp_path / "drop.yaml").write_text(
        "apiVersion: airlift/v1\nkind: Drop\nmetadata: {name: a, channel: stable}\nfiles: [{path: motd, name: motd}]\n"
    )
    ok("resolve", "drop.yaml", home=tmp_path, cwd=tmp_path)
    ok("keys", "generate", "ann", "--kind", "signer", "--no-passphrase", home=tmp_path, cwd=tmp_path)
    return tmp_path


BUILD = ("drop.lock.json", "--sequence", "1", "--signer", "ann.key", "--plain")


def build(work: Path, output: str, *more: str) -> tuple[int, str]:
    ran = airlift("build", *BUILD, "-o", output, *more, home=work, cwd=work)
    return ran.code, ran.err


def test_a_build_replaces_a_bundle_and_nothing_else(work: Path) -> None:
    key = (work / "ann.key").read_bytes()
    code, said = build(work, "ann.key")
    assert (code, said) == (
        2,
        "airlift: error: ann.key is there and is no bundle\nairlift: hint: choose a new name, or remove it\n",
    )
    assert (work / "ann.key").read_bytes() == key
    for _ in range(2):
        assert build(work, "a.airlift")[0] == 0


def test_a_bundle_that_no_site_will_take_any_more_is_warned_of(work: Path) -> None:
    past = "warning: --expires 2020-01-01 is past: no site whose clock is right will take the bundle"
    assert past in build(work, "a.airlift", "--expires", "2020-01-01")[1]
    assert "is past" not in build(work, "a.airlift", "--expires", "2999-01-01")[1]


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    # A pipe stands for it: it takes no root to make one.
    os.mkfifo(tmp_path / "null")
    with pytest.raises(UsageError, match="null is there and is no bundle"):
        options.refuse_to_replace(tmp_path / "null", options.is_bundle, "bundle")
    assert stat.S_ISFIFO((tmp_path / "null").lstat().st_mode)


def test_a_plan_replaces_a_plan_and_nothing_else(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    take(site, ship(Cargo(), tmp_path / "1.airlift"))
    words = ["drops", "prune", "--site", str(site.root), "--keep", "1", "-o"]
    for _ in range(2):
        ok(*words, "plan.json", home=tmp_path, cwd=tmp_path)
    ran = airlift(*words, "1.airlift", home=tmp_path, cwd=tmp_path)
    assert (ran.code, ran.err) == (
        2,
        "airlift: error: 1.airlift is there and is no plan\nairlift: hint: choose a new name, or remove it\n",
    )


def test_what_is_larger_than_any_plan_is_none(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    (tmp_path / "disk.img").touch()
    os.truncate(tmp_path / "disk.img", limits.LOCK + 1)
    words = ["drops", "prune", "--site", str(site.root), "--keep", "1", "-o", "disk.img"]
    ran = airlift(*words, home=tmp_path, cwd=tmp_path)
    assert (ran.code, ran.err.splitlines()[0]) == (2, "airlift: error: disk.img is there and is no plan")
    assert (tmp_path / "disk.img").stat().st_size == limits.LOCK + 1


def test_an_sbom_replaces_an_sbom_and_nothing_else(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site")
    take(site, ship(Cargo(), tmp_path / "1.airlift"))
    words = ["drops", "sbom", "--site", str(site.root), "stable/1", "-o"]
    for _ in range(2):
        ok(*words, "sbom.json", home=tmp_path, cwd=tmp_path)
    for name in ("1.airlift", str(site.root / "trust.json")):
        before = (tmp_path / name).read_bytes()
        ran = airlift(*words, name, home=tmp_path, cwd=tmp_path)
        assert (ran.code, ran.err) == (
            2,
            f"airlift: error: {name} is there and is no SBOM\nairlift: hint: choose a new name, or remove it\n",
        )
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["resolve", "drop.yaml", "-o", "@"], "--output"),
        (["build", "drop.lock.json", "--sequence", "1", "--signer", "ann.key", "--plain", "-o", "@"], "--output"),
        (["deploy", "k3s", "--site", "site", "--root", "@"], "--root"),
        (["check", "--site", "@"], "--site"),
        (["inspect", "@"], "BUNDLE"),
    ],
)
def test_an_empty_path_is_none_and_one_that_is_too_long_is_said_so(words: list[str], name: str, work: Path) -> None:
    ran = airlift(*[word.replace("@", "") for word in words], home=work, cwd=work)
    assert (ran.code, ran.err) == (
        2,
        f"airlift: error: {name}: the path is empty\nairlift: hint: is a variable of the shell not set?\n",
    )
    long = "x" * 300
    ran = airlift(*[word.replace("@", long) for word in words], home=work, cwd=work)
    assert (ran.code, ran.err.splitlines()[0]) == (16, f"airlift: error: looking for {long}: File name too long")


HOME = (
    "airlift: hint: write the whole path, or a space in place of =, so that the shell expands it; ./~ begins the name of"
    " a file that begins with ~\n"
)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["resolve", "drop.yaml", "--output=~/x"], "--output"),
        (["site", "init", "x", "--trust=~/x", "--url", "http://h"], "--trust"),
        (["check", "--site=~/x"], "--site"),
        (["trust", "init", "-o", "t", "--channel", "a", "--signer", "ann=~/x"], "--signer"),
    ],
)
def test_a_tilde_that_no_shell_has_expanded_is_no_directory(words: list[str], name: str, work: Path) -> None:
    ran = airlift(*words, home=work, cwd=work)
    assert (ran.code, ran.err) == (2, f"airlift: error: {name} ~/x: ~ stands for no directory here\n{HOME}")
    assert not (work / "~").exists()


def test_a_link_that_leads_nowhere_is_no_output_and_no_input(work: Path) -> None:
    for name in ("a.airlift", "a.tar", "layout"):
        (work / name).symlink_to("away/disk")
    said = "a link to away/disk, which is not there\nairlift: hint: is its disk mounted? else remove the link,"
    code, err = build(work, "a.airlift")
    assert (code, f"airlift: error: a.airlift: {said}" in err) == (2, True), err
    ok("build", *BUILD, "-o", "b.airlift", home=work, cwd=work)
    ok(
        "trust",
        "init",
        "-o",
        "t.json",
        "--channel",
        "stable",
        "--signer",
        "ann=ann.pub",
        "--allow-plain",
        home=work,
        cwd=work,
    )
    for name in ("a.tar", "layout"):
        ran = airlift("open", "b.airlift", "--trust", "t.json", "-o", name, home=work, cwd=work)
        assert (ran.code, f"airlift: error: {name}: {said}" in ran.err) == (2, True), ran.err
        assert (work / name).is_symlink()
    ran = airlift("inspect", "a.airlift", home=work, cwd=work)
    assert (ran.code, f"airlift: error: BUNDLE a.airlift: {said}" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("words", [["serve"], ["site", "init", "new", "--trust", "t.json", "--url", "http://h"]])
def test_an_empty_address_to_listen_on_is_none(words: list[str], work: Path) -> None:
    ok("trust", "init", "-o", "t.json", "--channel", "stable", "--signer", "ann=ann.pub", home=work, cwd=work)
    ok("site", "init", "site", "--trust", "t.json", "--url", "http://h", home=work, cwd=work)
    more = ["--site", "site"] if words == ["serve"] else []
    ran = airlift(*words, *more, "--listen", "", home=work, cwd=work)
    assert (ran.code, "--listen: " in ran.err, "Traceback" in ran.err) == (2, True, False), ran.err
