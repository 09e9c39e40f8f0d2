"""A run that ends anywhere is finished by the next one, and the machine is then as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from airlift import fs
from airlift.errors import DeployError
from airlift.site.deploy import machine as machine_module
from airlift.site.deploy import node
from airlift.site.deploy.machine import LocalMachine, Ran
from airlift.site.deploy.settings import Wish
from tests.support.drops import Drops
from tests.support.machine import DirectoryMachine, machine_at
from tests.unit.deploy.conftest import tree
from tests.unit.deploy.test_node import Maker, apply, later, machine, make, whole

__all__ = ["machine", "make", "whole"]

REDIS = "docker.io/library/redis:7.4"


class _Killed(BaseException):
    """What no code catches."""


def result(machine: DirectoryMachine) -> dict[str, tuple[int, bytes]]:
    """What the machine ends with; what was run on the way, and copies of the datastore, may be more than once."""
    return {
        name: item for name, item in tree(machine.root).items() if name != "calls" and "/airlift-before-" not in name
    }


class _Dying:
    """Ends the process, so to speak, at the Nth write or command."""

    def __init__(self, at: int) -> None:
        self.left = at

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise _Killed


def interrupted(made: node.NodePlan, machine: DirectoryMachine, at: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Apply a plan, and say whether it was killed on the way."""
    dying = _Dying(at)
    run, sync = machine.run, fs.sync_directory

    def dying_run(command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        dying.tick()
        done = run(command, environment, timeout=timeout)
        dying.tick()
        return done

    def dying_sync(path: Path) -> None:
        dying.tick()
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(machine, "run", dying_run)
        patch.setattr(fs, "sync_directory", dying_sync)
        try:
            apply(made, machine)
        except _Killed:
            return True
    return False


def test_a_first_start_that_is_killed_anywhere_is_finished_by_the_next_run(
    whole: Drops, machine: DirectoryMachine, make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, at, expected = machine.root, 0, None
    while True:
        at += 1
        machine.root = machine_at(tmp_path / f"machine-{at}", route=False).root
        killed = interrupted(make(whole, Wish(cluster_init=True)), machine, at, monkeypatch)
        if not killed:
            expected = result(machine)
            break
    assert at > 15
    for number in range(1, at):
        machine.root = tmp_path / f"machine-{number}"
        apply(make(whole, Wish(cluster_init=True)), machine)
        assert result(machine) == expected, number
        assert not make(whole, Wish(cluster_init=True)).is_changed
    machine.root = root


def test_an_upgrade_that_is_killed_anywhere_is_finished_by_the_next_run_and_the_datastore_was_copied_before(
    whole: Drops, machine: DirectoryMachine, make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = 0
    plans = {}
    killed = True
    while killed:
        at += 1
        machine.root = machine_at(tmp_path / f"machine-{at}").root
        apply(make(whole), machine)
        plans[at] = machine.root
        first = list(whole.artifacts)
        later(whole)
        killed = interrupted(make(whole), machine, at, monkeypatch)
        for number, root in [*plans.items()][-1:]:
            machine.root = root
            apply(make(whole), machine)
            assert not make(whole).is_changed, number
            copies = sorted((root / "var/lib/rancher/k3s/server/db").glob("airlift-before-*/state.db"))
            assert copies[0].read_text() == "1\n", number
            assert (root / "var/lib/rancher/k3s/server/db/state.db").read_text() == "2\n", number
        whole.artifacts[:] = first
    assert at > 8


def test_the_machine_itself_runs_programs_with_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = LocalMachine({"PATH": "/usr/bin:/bin"})

    done = machine.run(["sh", "-c", 'echo "$A"; echo said >&2; exit 3'], {"A": "b"}, timeout=20)
    assert (done.code, done.output, done.said) == (3, b"b\n", "said\n")
    with pytest.raises(DeployError, match="no-such-program is not on this machine"):
        machine.run(["no-such-program"], {}, timeout=20)
    with pytest.raises(DeployError, match=r"sleep 20 did not end in 0 s"):
        machine.run(["sleep", "20"], {}, timeout=0.1)
    monkeypatch.setattr(machine_module, "_SAID", 4)
    assert machine.run(["echo", "abc"], {}, timeout=20).output == b"abc\n"
    with pytest.raises(DeployError, match=r"^echo abcd printed more than 4 bytes$"):
        machine.run(["echo", "abcd"], {}, timeout=20)
    assert machine.root == Path("/")


def test_no_variable_that_is_about_another_cluster_or_k3s_reaches_a_program() -> None:
    stray = {"KUBECONFIG": "/etc/other.yaml", "K3S_URL": "https://other:6443", "INSTALL_K3S_SKIP_START": "true"}
    machine = LocalMachine({"PATH": "/usr/bin:/bin", "HTTPS_PROXY": "http://proxy:3128", **stray})

    done = machine.run(["env"], {"INSTALL_K3S_EXEC": "server"}, timeout=60)

    assert sorted(done.output.decode().split()) == [
        "HTTPS_PROXY=http://proxy:3128",
        "INSTALL_K3S_EXEC=server",
        "PATH=/usr/bin:/bin",
    ]
