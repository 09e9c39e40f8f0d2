"""``scripts/test -m harbor`` as a tester runs it, against a stand-in that is named as if it were a real Harbor.

Whatever becomes of such a run, nothing that it made is left there, and nothing else was touched.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components import ROOT, require, require_root
from tests.support import real_harbor
from tests.support.harbor import ADMIN, ADMIN_SECRET, Account, Harbor, running_harbor
from tests.support.harbor_nginx import behind_nginx
from tests.support.real_harbor import HarborUnderTest, clearing
from tests.support.registry import Fault, FrontHandler, refuse, running_registry

OTHERS = {"library", "airlift-test-of-others", "docker.io"}


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return tmp_path / "ca.pem"


@pytest.fixture
def harbor(tmp_path: Path, authority: Path) -> Iterator[Harbor]:
    """A stand-in behind nginx with TLS, in which others have projects and robots of like names."""
    with (
        running_registry(tmp_path / "registry") as behind,
        running_harbor(behind) as harbor,
        behind_nginx(harbor, authority, tmp_path / "nginx"),
    ):
        for name in OTHERS - {"library"}:
            harbor.project(name)
        harbor.robot("robot$airlift-test-of-others", "s3cret")
        yield harbor


def command(*chosen: str, folder: Path) -> list[str]:
    options = ["-q", "-p", "no:cacheprovider", "-m", "harbor", f"--basetemp={folder / 'inner'}", *chosen]
    return [sys.executable, "-m", "pytest", *options]


def environment(harbor: Harbor, authority: Path, user: str = ADMIN, password: str = ADMIN_SECRET) -> dict[str, str]:
    named = {
        real_harbor.URL: harbor.url,
        real_harbor.USER: user,
        real_harbor.PASSWORD: password,
        real_harbor.CA: str(authority),
    }
    return {**os.environ, **named, "NO_COLOR": "1"}


def run(harbor: Harbor, authority: Path, folder: Path, *chosen: str, **account: str) -> str:
    done = subprocess.run(
        command(*chosen, folder=folder),
        cwd=ROOT,
        env=environment(harbor, authority, **account),
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    return done.stdout


def assert_that_nothing_is_left(harbor: Harbor) -> None:
    assert set(harbor.projects) == OTHERS
    assert {name for name in harbor.accounts if name.startswith("robot$")} == {
        "robot$import",
        "robot$airlift-test-of-others",
    }
    changed = [str(item) for item in harbor.asked if item.method != "GET" and "configurations" in item.path]
    assert changed == []
    ours = re.compile(r"airlift-test-[0-9a-f]{8}-|/projects(\?|$)|/robots|/quotas/|/v2/$")
    strange = [str(item) for item in harbor.asked if item.method not in ("GET", "HEAD") and not ours.search(item.path)]
    assert strange == []


@pytest.mark.slow
def test_the_whole_contract_is_green_and_leaves_nothing(harbor: Harbor, authority: Path, tmp_path: Path) -> None:
    out = run(harbor, authority, tmp_path)
    assert re.search(r"\n\d+ passed, \d+ deselected", out), out[-3000:]
    assert_that_nothing_is_left(harbor)


@pytest.mark.slow
def test_an_ordinary_account_skips_what_it_may_not_and_leaves_nothing(
    harbor: Harbor, authority: Path, tmp_path: Path
) -> None:
    harbor.accounts["joe"] = Account("Joe12345678", is_robot=False, number=90)
    tests = (
        "tests/contract/test_harbor.py",
        "tests/contract/test_harbor_removal.py",
        "tests/contract/test_chart_mirror.py",
    )
    out = run(harbor, authority, tmp_path, *tests, user="joe", password="Joe12345678")
    assert re.search(r"\n\d+ passed, \d+ skipped, \d+ deselected", out), out[-3000:]
    assert "AIRLIFT_TEST_HARBOR_USER is no administrator of this Harbor" in out
    assert_that_nothing_is_left(harbor)


ONE = "tests/contract/test_harbor.py::test_a_missing_project_is_made_as_the_site_wants_it"


def test_an_account_that_may_make_no_project_is_told(harbor: Harbor, authority: Path, tmp_path: Path) -> None:
    harbor.accounts["joe"] = Account("Joe12345678", is_robot=False, number=90)
    harbor.creation = "adminonly"
    out = run(harbor, authority, tmp_path, ONE, user="joe", password="Joe12345678")
    assert "AIRLIFT_TEST_HARBOR_USER (joe) may make no project there: 403 " in out
    assert_that_nothing_is_left(harbor)


def test_an_administrator_by_a_group_of_ldap_or_oidc_is_one(harbor: Harbor, authority: Path) -> None:
    account = Account("Joe12345678", is_robot=False, is_admin=True, number=90)
    account.is_by_group = True
    harbor.accounts["joe"] = account
    assert HarborUnderTest(harbor.url, "joe", "Joe12345678", authority, stand_in=harbor).is_administrators


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({real_harbor.URL: "harbor.example.com"}, "AIRLIFT_TEST_HARBOR is harbor.example.com, expected http://HOST or"),
        ({real_harbor.URL: "https://harbor.example.com/harbor"}, "expected http://HOST or https://HOST without a path"),
        ({real_harbor.USER: ""}, "AIRLIFT_TEST_HARBOR is set, AIRLIFT_TEST_HARBOR_USER is not"),
        ({real_harbor.PASSWORD: ""}, "AIRLIFT_TEST_HARBOR is set, AIRLIFT_TEST_HARBOR_PASSWORD is not"),
        ({real_harbor.CA: "nowhere.pem"}, "AIRLIFT_TEST_HARBOR_CA is nowhere.pem, which is no file"),
    ],
)
def test_a_harbor_that_is_named_wrongly_fails_instead_of_being_skipped(
    monkeypatch: pytest.MonkeyPatch, named: dict[str, str], message: str
) -> None:
    whole = {real_harbor.URL: "https://harbor.example.com", real_harbor.USER: "admin", real_harbor.PASSWORD: "secret"}
    for name, value in {**whole, real_harbor.CA: "", **named}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(pytest.fail.Exception, match=re.escape(message)):
        real_harbor.named()


def test_without_a_file_of_its_own_a_harbor_is_checked_against_what_the_system_trusts(
    harbor: Harbor, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(harbor, authority).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(real_harbor.CA)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    named = real_harbor.named()
    assert named is not None
    assert named.is_administrators


def test_an_account_that_cannot_remove_what_it_makes_is_not_used(
    harbor: Harbor, authority: Path, tmp_path: Path
) -> None:
    out = run(harbor, authority, tmp_path, ONE, user="robot$import", password="s3cret")
    assert "may make projects and may not remove them" in out
    (left,) = set(harbor.projects) - OTHERS
    assert f"{left} is left" in out


def test_a_run_that_fails_leaves_nothing(harbor: Harbor, authority: Path, tmp_path: Path) -> None:
    one = "tests/contract/test_harbor.py::test_a_missing_right_is_named"
    # Robots that may do everything: the test misses the refusal and fails, with a project and a robot made.
    harbor.faults.append(lambda _: _grant_everything(harbor))
    out = run(harbor, authority, tmp_path, one)
    assert "1 failed" in out, out[-3000:]
    assert_that_nothing_is_left(harbor)


def _grant_everything(harbor: Harbor) -> bool:
    for name, account in harbor.accounts.items():
        if "airlift-test-" in name and "others" not in name:
            account.gain("repository:push", "repository:pull")
    return False


def test_what_cannot_be_removed_keeps_nothing_else_from_it_and_all_of_it_is_named(
    harbor: Harbor, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_harbor, "PATIENCE_S", 1)
    run = HarborUnderTest(harbor.url, ADMIN, ADMIN_SECRET, authority, stand_in=harbor)
    made = sorted(run.project() for _ in range(5))
    kept, number = run.robot()[::2]
    run.robot()
    for path, status in {f"/projects/{made[0]}": 500, f"/projects/{made[2]}": 403, f"/robots/{number}": 412}.items():
        harbor.faults.append(refuse(status, b"no", match=path, method="DELETE"))
    with pytest.raises(AssertionError) as caught, clearing(run):
        pass
    left = (
        f"robot {number} (DELETE /robots/{number}: 412 no)",
        f"{made[0]} (DELETE /projects/{made[0]}: 500 no)",
        f"{made[2]} (DELETE /projects/{made[2]}: 403 no)",
    )
    message = f"this stays in {harbor.url}, remove it by hand: {', '.join(left)}"
    assert str(caught.value).partition("\n")[0] == message
    assert set(harbor.projects) - OTHERS == {made[0], made[2]}
    assert [name for name in harbor.accounts if run.run in name] == [kept]
    harbor.faults.clear()
    run.clear()
    assert_that_nothing_is_left(harbor)


def test_robots_are_removed_also_when_harbor_cannot_say_for_a_moment_who_asks(harbor: Harbor, authority: Path) -> None:
    run = HarborUnderTest(harbor.url, ADMIN, ADMIN_SECRET, authority, stand_in=harbor)
    with clearing(run):
        run.robot()
        harbor.faults.append(refuse(503, match="/users/current"))
    assert_that_nothing_is_left(harbor)


def test_a_harbor_that_cannot_say_who_asks_is_not_used(harbor: Harbor, authority: Path) -> None:
    run = HarborUnderTest(harbor.url, ADMIN, "Wrong12345", authority, stand_in=harbor)
    with pytest.raises(AssertionError, match=r"^the account admin: 401 "), clearing(run):
        pytest.fail("it is used")
    assert_that_nothing_is_left(harbor)


LONG = "tests/contract/test_harbor.py::test_a_quota_that_cannot_be_seen_is_told_at_the_upload_and_the_re_run_goes_on"


@contextlib.contextmanager
def running(
    harbor: Harbor, authority: Path, folder: Path, terminal: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    """A run, in a terminal where one is given, which has pushed something when the block begins."""
    words = command(LONG, folder=folder)
    run = subprocess.Popen(
        words if terminal == subprocess.DEVNULL else [require("setsid"), "--ctty", *words],
        cwd=ROOT,
        env=environment(harbor, authority),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    try:
        ends = time.monotonic() + 120
        while not any(project.blobs for project in harbor.projects.values()):
            assert run.poll() is None, "the run ended before it had pushed anything"
            assert time.monotonic() < ends
            time.sleep(0.01)
        assert set(harbor.projects) > OTHERS
        yield run
        run.wait(120)
    finally:
        run.kill()
        run.wait()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_ended_leaves_nothing(
    harbor: Harbor, authority: Path, tmp_path: Path, how: signal.Signals
) -> None:
    with running(harbor, authority, tmp_path) as run:
        run.send_signal(how)
    assert_that_nothing_is_left(harbor)


def test_a_run_that_is_ended_again_while_it_clears_up_leaves_nothing(
    harbor: Harbor, authority: Path, tmp_path: Path
) -> None:
    again: list[str] = []
    with running(harbor, authority, tmp_path) as run:

        def end(handler: FrontHandler) -> bool:
            again.append(handler.path)
            run.send_signal(signal.SIGHUP)
            run.send_signal(signal.SIGINT)
            return False

        harbor.faults.append(Fault(end, method="DELETE", times=1))
        run.send_signal(signal.SIGINT)
    assert again
    assert_that_nothing_is_left(harbor)


def test_a_run_whose_terminal_is_closed_leaves_nothing(harbor: Harbor, authority: Path, tmp_path: Path) -> None:
    ours, its = pty.openpty()
    with running(harbor, authority, tmp_path, its):
        os.close(its)
        # The last hold on the other side: the kernel hangs up, and whatever the run still says is an error.
        os.close(ours)
    assert_that_nothing_is_left(harbor)


ELSEWHERE = """
import os, pathlib, subprocess, sys
from tests.support.harbor import running_harbor
from tests.support.real_harbor import HarborUnderTest, clearing
from tests.support.registry import Fault, FrontHandler, refuse, running_registry

root = pathlib.Path(sys.argv[1])
with running_registry(root / "registry") as behind, running_harbor(behind, address="10.99.0.1") as harbor:
    os.environ["AIRLIFT_TEST_HARBOR"] = harbor.url
    done = subprocess.run(sys.argv[2:])
    assert set(harbor.projects) == {"library"}, harbor.projects
sys.exit(done.returncode)
"""


def test_a_harbor_without_tls_on_another_machine_is_used_as_it_is_named(tmp_path: Path) -> None:
    require_root()
    tests = (
        "tests/contract/test_harbor.py::test_a_robot_is_made_from_an_administrators_login_and_imports",
        "tests/contract/test_image_mirror.py::test_an_imported_image_is_pulled_by_tag_and_by_digest",
    )
    network = f'{require("ip")} link set lo up && {require("ip")} addr add 10.99.0.1/24 dev lo && exec "$@"'
    inner = [sys.executable, "-c", ELSEWHERE, tmp_path, *command(*tests, folder=tmp_path)]
    done = subprocess.run(
        [require("unshare"), "--net", "sh", "-c", network, "sh", *inner],
        cwd=ROOT,
        env={**os.environ, real_harbor.USER: ADMIN, real_harbor.PASSWORD: ADMIN_SECRET, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "\n2 passed" in done.stdout
