"""The name by which the cluster is asked whether the node is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from airlift.errors import DeployError
from airlift.progress import Silent
from airlift.site.deploy import node_name, ready
from airlift.site.deploy.prechecks import Level
from airlift.site.deploy.settings import Wish
from tests.support.machine import DirectoryMachine, k3s_binary, machine_at

SETTINGS = "etc/rancher/k3s/config.yaml.d"
READY = '{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}'


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def machine(tmp_path: Path) -> DirectoryMachine:
    """One whose K3s knows the nodes that lie below api/ alone."""
    made = machine_at(tmp_path / "machine")
    only = k3s_binary().replace(b"    echo '{", b"    exit 1; echo '{")
    made.put("usr/local/bin/k3s", only.decode(), 0o755)
    return made


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({}, "node1"),
        ({"10-name.yaml": "node-name: Edge-7.example\n"}, "edge-7.example"),
        ({"10.yaml": "node-name: a\n", "20.yml": "# mine\nnode-name: b\nlabels: &l [x]\nmore: *l\n"}, "b"),
        ({"10.yaml": "node-name: a\n", "20.yaml.bak": "node-name: b\n", "30.yaml": "# nothing\n"}, "a"),
        ({"10.yaml": "node-name: 17\n"}, "17"),
        ({"10.yaml": "with-node-id: true\n"}, "node1-0a1b2c3d"),
        ({"10.yaml": "node-name: A\nwith-node-id: 'true'\n"}, "a-0a1b2c3d"),
        ({"10.yaml": "with-node-id: true\n", "20.yaml": "with-node-id: false\n"}, "node1"),
    ],
)
def test_a_node_is_waited_for_by_the_name_that_k3s_gives_it(
    machine: DirectoryMachine, files: dict[str, str], name: str
) -> None:
    for file, text in files.items():
        machine.put(f"{SETTINGS}/{file}", text)
    machine.put("etc/rancher/node/id", "0a1b2c3d\n")
    machine.put(f"api/api/v1/nodes/{name}.json", READY)

    ready.wait(machine, Wish(), timeout=0, clock=lambda: 0.0, sleep=lambda _: None, progress=Silent())


def test_an_id_that_k3s_draws_when_it_starts_for_the_first_time_is_waited_for(machine: DirectoryMachine) -> None:
    machine.put(f"{SETTINGS}/name.yaml", "with-node-id: true\n")
    machine.put("api/api/v1/nodes/node1-0a1b2c3d.json", READY)

    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            machine.put("etc/rancher/node/id", "0a1b2c3d\n")

    notes = Notes()
    ready.wait(machine, Wish(), timeout=1, clock=lambda: 0.0, sleep=sleep, progress=notes)

    assert notes.said == [
        "waiting for node (K3s gives it a name) to be ready",
        "waiting for node node1-0a1b2c3d to be ready",
        "node node1-0a1b2c3d is ready",
    ]


def test_a_node_whose_id_never_comes_is_said_to_have_no_name(machine: DirectoryMachine) -> None:
    machine.put(f"{SETTINGS}/name.yaml", "with-node-id: true\n")

    with pytest.raises(DeployError, match=r"^node without a name is not ready after 0 s$"):
        ready.wait(machine, Wish(), timeout=0, clock=lambda: 0.0, sleep=lambda _: None, progress=Silent())


@pytest.mark.parametrize("host", ["my_node", "-a", "a..b", "x" * 64])
def test_a_name_that_no_node_can_have_is_refused_with_what_to_do(machine: DirectoryMachine, host: str) -> None:
    machine.put("proc/sys/kernel/hostname", f"{host}\n")

    found = node_name.look(machine.root)

    assert found.level is Level.REFUSE
    assert found.message == f"{host!r} is no name for a node: letters, digits, - and ., at most 63"
    assert "node-name: NAME" in found.hint
    machine.put(f"{SETTINGS}/name.yaml", "node-name: good\n")
    assert node_name.look(machine.root).level is Level.OK


def test_settings_that_are_not_yaml_are_named(machine: DirectoryMachine) -> None:
    machine.put(f"{SETTINGS}/name.yaml", "node-name: [\n")

    with pytest.raises(DeployError, match=r"name\.yaml") as caught:
        node_name.look(machine.root)

    assert caught.value.hint == "mend it: K3s would not start with it"
