"""Kubernetes's policy on versions, before the K3s of a drop follows the one that is there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from airlift.digest import Digest
from airlift.errors import DeployError
from airlift.site.deploy import node, program, skew
from airlift.site.deploy.k3s_version import Scanner, Version
from airlift.site.deploy.prechecks import Role
from airlift.site.deploy.settings import Wish
from airlift.store import Store
from tests.support.drops import AMD64, Drops
from tests.support.machine import DirectoryMachine, add_k3s, k3s_binary
from tests.unit.deploy.conftest import tree
from tests.unit.deploy.test_node import REDIS, Maker, apply, machine, make

__all__ = ["machine", "make"]

AGENT = Wish(Role.AGENT, "https://10.0.0.2:6443", "secret")
STAY = "to keep the K3s that is here, write the rest of the drop with: airlift deploy k3s --root /"


def with_k3s(drops: Drops, version: str | None) -> Drops:
    """The drop with this K3s in place of the one it had."""
    drops.artifacts = [item for item in drops.artifacts if item.kind.value != "file"]
    add_k3s(drops, version or "0", version=version)
    return drops


@pytest.fixture
def whole(drops: Drops) -> Drops:
    drops.image(REDIS, b"redis")
    drops.chart("site", "1.0.0", [REDIS])
    drops.release("site")
    drops.preload = [REDIS]
    return drops


def refused(machine: DirectoryMachine, make: Maker, drops: Drops, wish: Wish | None = None) -> DeployError:
    """The refusal; nothing was changed and nothing was run."""
    before = tree(machine.root)
    with pytest.raises(DeployError) as caught:
        make(drops, wish)
    assert tree(machine.root) == before
    return caught.value


def said(made: node.NodePlan) -> list[tuple[str, str]]:
    return [(item.level.value, item.message) for item in made.findings if item.check == "version"]


def test_a_server_goes_up_one_minor_version_at_a_time(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    apply(make(with_k3s(whole, "v1.31.5+k3s1")), machine)

    error = refused(machine, make, with_k3s(whole, "v1.33.1+k3s1"))

    assert error.message == (
        "this machine cannot become a node\n  version: v1.31.5+k3s1 is on this machine and the drop has v1.33.1+k3s1: "
        "a server goes up one minor version at a time"
    )
    assert error.hint == f"first deploy a drop with K3s v1.32; {STAY}"
    for version in ("v1.32.9+k3s1", "v1.33.1+k3s1"):
        apply(make(with_k3s(whole, version)), machine)
    assert not make(whole).is_changed


def test_an_older_minor_version_is_refused_because_it_cannot_read_the_datastore(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(with_k3s(whole, "v1.32.9+k3s1")), machine)
    apply(make(with_k3s(whole, "v1.33.1+k3s1")), machine)

    error = refused(machine, make, with_k3s(whole, "v1.32.9+k3s1"))

    assert error.message.splitlines()[1:] == [
        "  version: v1.33.1+k3s1 wrote the datastore of this machine, and the drop's v1.32.9+k3s1 cannot read it"
    ]
    assert error.hint == (
        f'{STAY}\nto go back, the datastore has to go back, too: docs/deploy-k3s.md, "Back to an older K3s"'
    )


def test_it_is_refused_too_when_somebody_only_took_the_newer_binary_away(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(with_k3s(whole, "v1.33.1+k3s1")), machine)
    (machine.root / "usr/local/bin/k3s").unlink()
    (machine.root / "run/active-k3s").unlink()

    assert "v1.33.1+k3s1 wrote the datastore" in str(refused(machine, make, with_k3s(whole, "v1.32.9+k3s1")))
    apply(make(with_k3s(whole, "v1.33.1+k3s1")), machine)


def test_what_runs_counts_and_not_a_binary_that_was_put_there_and_never_started(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(with_k3s(whole, "v1.31.5+k3s1")), machine)
    machine.put("api/version.json", json.dumps({"gitVersion": "v1.31.5+k3s1"}))
    between = k3s_binary("v1.32.9+k3s1", "v1.32.9+k3s1")
    (machine.root / "usr/local/bin/k3s").write_bytes(between)

    too_far = "v1.31.5+k3s1 is on this machine and the drop has v1.33.1+k3s1"
    assert too_far in str(refused(machine, make, with_k3s(whole, "v1.33.1+k3s1")))
    (machine.root / "usr/local/bin/k3s").write_bytes(k3s_binary("v1.33.1+k3s1", "v1.33.1+k3s1"))
    assert too_far in str(refused(machine, make, whole))
    (machine.root / "usr/local/bin/k3s").write_bytes(between)
    apply(make(with_k3s(whole, "v1.31.5+k3s1")), machine)
    assert not make(whole).is_changed


def test_a_person_who_put_the_older_binary_and_its_datastore_back_goes_on_with_the_same_command(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(with_k3s(whole, "v1.32.9+k3s1")), machine)
    apply(make(with_k3s(whole, "v1.33.1+k3s1")), machine)
    database = machine.root / "var/lib/rancher/k3s/server/db"
    (copy,) = database.glob("airlift-before-*")

    machine.run(["systemctl", "stop", "k3s"], {}, timeout=9)
    (copy / "state.db").rename(database / "state.db")
    (machine.root / "usr/local/bin/k3s").write_bytes(k3s_binary("v1.32.9+k3s1", "v1.32.9+k3s1"))
    apply(make(with_k3s(whole, "v1.32.9+k3s1")), machine)

    assert (database / "state.db").read_text() == "v1.32.9+k3s1\n"
    assert not make(whole).is_changed


def test_an_older_patch_of_the_same_minor_version_is_told_and_done(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(with_k3s(whole, "v1.33.5+k3s1")), machine)

    made = make(with_k3s(whole, "v1.33.4+k3s1"))

    text = "v1.33.5+k3s1 is on this machine and the drop has v1.33.4+k3s1, an older one of the same minor version"
    assert said(made) == [("note", text)]
    apply(made, machine)
    assert not make(whole).is_changed


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (None, "v1.33.5+k3s1", "the K3s that is here does not say its version, so it was not compared"),
        ("v1.33.5+k3s1", None, "the drop's K3s does not say its version, so it was not compared"),
    ],
)
def test_versions_that_nobody_can_read_are_told(
    whole: Drops, machine: DirectoryMachine, make: Maker, first: str | None, then: str | None, message: str
) -> None:
    assert said(make(with_k3s(whole, first))) == []
    apply(make(with_k3s(whole, first)), machine)

    made = make(with_k3s(whole, then))

    assert said(made) == [("note", message)]


def test_a_node_that_would_be_too_far_behind_its_server_keeps_the_server_from_going_up(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(with_k3s(whole, "v1.34.1+k3s1")), machine)
    versions = {"old": "v1.31.2+k3s1", "new": "v1.32.0+k3s1"}
    nodes = [{"metadata": {"name": k}, "status": {"nodeInfo": {"kubeletVersion": v}}} for k, v in versions.items()]
    machine.put("api/api/v1/nodes.json", json.dumps({"items": nodes}))

    error = refused(machine, make, with_k3s(whole, "v1.35.0+k3s1"))

    assert error.message.splitlines()[1:] == [
        "  version: node old runs v1.31.2+k3s1, more than three minor versions older than the drop's v1.35.0+k3s1"
    ]
    assert error.hint == "first deploy the K3s that the server has on that node"


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (
            "v1.32.9+k3s1",
            "the drop has v1.33.1+k3s1 and the server runs v1.32.9+k3s1: an agent must not be newer than its server",
        ),
        (
            "v1.37.0+k3s1",
            "the drop has v1.33.1+k3s1 and the server runs v1.37.0+k3s1: an agent may be three minor versions older",
        ),
    ],
)
def test_an_agent_is_never_newer_than_its_server_and_at_most_three_minor_versions_older(
    whole: Drops, machine: DirectoryMachine, make: Maker, server: str, message: str
) -> None:
    apply(make(with_k3s(whole, "v1.30.1+k3s1"), AGENT), machine)
    machine.put("api/version.json", json.dumps({"gitVersion": server}))

    assert message in str(refused(machine, make, with_k3s(whole, "v1.33.1+k3s1"), AGENT))

    machine.put("api/version.json", json.dumps({"gitVersion": "v1.36.0+k3s1"}))
    apply(make(whole, AGENT), machine)
    assert not make(whole, AGENT).is_changed


def test_an_agent_whose_server_cannot_be_asked_is_told_so(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    text = "the drop has v1.33.1+k3s1; its server was not asked, and an agent must not be newer than its server"

    assert said(make(with_k3s(whole, "v1.33.1+k3s1"), AGENT)) == [("note", text)]


@pytest.mark.parametrize(
    ("here", "word"),
    [
        (
            "v1.33.1+k3s1",
            (
                "K3s stays as it is (v1.33.1+k3s1); the drop has v1.32.9+k3s1, which `airlift deploy k3s` on the node "
                "itself refuses: v1.33.1+k3s1 wrote the datastore of this machine, and the drop's v1.32.9+k3s1 cannot "
                'read it; see docs/deploy-k3s.md, "Back to an older K3s"'
            ),
        ),
        (
            "v1.31.0+k3s1",
            (
                "K3s stays as it is (v1.31.0+k3s1); the drop has v1.32.9+k3s1, which `airlift deploy k3s` on the node "
                "itself installs"
            ),
        ),
        (
            None,
            (
                "K3s stays as it is (of unknown version); the drop has v1.32.9+k3s1, which `airlift deploy k3s` on the "
                "node itself installs"
            ),
        ),
    ],
)
def test_where_files_only_are_written_it_is_said_that_k3s_stays(
    whole: Drops, tmp_path: Path, here: str | None, word: str
) -> None:
    root = tmp_path / "root"
    drops = [with_k3s(whole, "v1.32.9+k3s1").config()]
    assert skew.stays(root, drops, AMD64, whole.store) is None
    (root / "usr/local/bin").mkdir(parents=True)
    (root / "usr/local/bin/k3s").write_bytes(k3s_binary(here))

    assert skew.stays(root, drops, AMD64, whole.store) == word


def test_a_version_is_found_wherever_reading_was_cut(tmp_path: Path) -> None:
    program = b"\x7fELF" + bytes(90) + b"v1.36.3+k3s1\0" + bytes(90) + b"-X version.Version=v1.36.3+k3s1 -w"
    for at in range(len(program)):
        scanner = Scanner()
        scanner.write(program[:at])
        scanner.write(program[at:])
        assert scanner.version == Version("v1.36.3+k3s1", 1, 36, 3)
    assert tmp_path.exists()


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (b"k3s version v1.36.3+k3s1 (abc)", None),
        (b"\0v1.36.3+k3s1\0\0v1.35.0+k3s1\0", None),
        (b"\0v1.36.3+k3s1\0\0v1.36.3+k3s1\0", "v1.36.3+k3s1"),
        (b"\0v1.36.3-rc1+k3s1\0", "v1.36.3-rc1+k3s1"),
        (b"\0v1.25.12+k3s-80e1c74a\0", "v1.25.12+k3s-80e1c74a"),
        (b"\0v1.36.3-k3s1\0+k3s", None),
    ],
)
def test_a_version_is_what_the_linker_put_in(data: bytes, version: str | None) -> None:
    scanner = Scanner()
    for number in range(len(data)):
        scanner.write(data[number : number + 1])

    found = scanner.version

    assert (None if found is None else str(found)) == version


class Counting(Store):
    """Knows how often each blob was streamed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.streamed: Counter[Digest] = Counter()

    def chunks(self, digest: Digest, size: int, *, start: int = 0) -> Iterator[bytes]:
        self.streamed[digest] += 1
        return super().chunks(digest, size, start=start)


def test_the_binary_is_read_once_for_its_digest_and_its_version(drops: Drops, root: Path) -> None:
    add_k3s(drops, version="v1.36.3+k3s1")
    store = Counting(drops.store.root)

    made = program.plan(root, [drops.config()], AMD64, store)

    assert str(made.version) == "v1.36.3+k3s1"
    assert store.streamed[made.binary.digest] == 1
