"""Copies of the datastore: how many stay, and which."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from airlift.cli.deploy_node import node_lines
from airlift.digest import Digest
from airlift.digest import of as digest_of
from airlift.errors import StoreError
from airlift.oci import Platform
from airlift.site.deploy import active, datastore
from airlift.site.deploy.machine import Ran
from tests.support.deployable import activate, make_site
from tests.support.drops import AMD64, Drops
from tests.support.machine import DirectoryMachine, add_k3s, machine_at
from tests.unit.deploy.test_node import REDIS, apply, planned

K3S = [digest_of(b"k3s %d" % number) for number in range(9)]


def copies(root: Path, names: Iterable[str], *, folder: object = datastore.FOLDER) -> None:
    """Make copies, the oldest first."""
    for number, name in enumerate(names, 1):
        place = root / str(folder) / name
        place.mkdir(parents=True)
        (place / "state.db").write_text(name)
        os.utime(place, (number, number))


def kept(root: Path) -> list[str]:
    return sorted(item.name for item in (root / datastore.FOLDER).glob("*airlift-*"))


def surplus(root: Path, needed: Sequence[Digest]) -> list[str]:
    return [item.name for item in datastore.surplus(root, needed)]


def test_the_newest_stay_and_those_that_a_drop_of_the_site_may_need(tmp_path: Path) -> None:
    names = [datastore.name(item) for item in K3S[:6]]
    copies(tmp_path, names)

    # With the one that is about to be made there are three.
    assert surplus(tmp_path, []) == names[:4]
    assert surplus(tmp_path, [K3S[1], K3S[8]]) == [names[0], names[2], names[3]]


def test_of_several_for_one_k3s_the_first_and_the_last_stay(tmp_path: Path) -> None:
    """The first was made before that K3s was started for certain."""
    name = datastore.name(K3S[0])
    names = [name, f"{name}-2", f"{name}-3", datastore.name(K3S[1]), datastore.name(K3S[2])]
    copies(tmp_path, names)

    assert surplus(tmp_path, [K3S[0]]) == [f"{name}-2"]


def test_two_copies_are_no_surplus(tmp_path: Path) -> None:
    copies(tmp_path, [datastore.name(item) for item in K3S[:2]])

    assert surplus(tmp_path, []) == []


def test_what_others_put_there_is_not_touched(tmp_path: Path) -> None:
    copies(tmp_path, ["etcd-old", "before-upgrade", *(datastore.name(item) for item in K3S[:3])])

    assert surplus(tmp_path, []) == [datastore.name(K3S[0])]


@pytest.fixture
def machine(tmp_path: Path) -> DirectoryMachine:
    return machine_at(tmp_path / "machine")


def upgrade(drops: Drops, number: int) -> None:
    drops.artifacts = [item for item in drops.artifacts if item.kind.value != "file"]
    add_k3s(drops, str(number))


def test_upgrades_leave_a_bounded_number_of_copies(drops: Drops, machine: DirectoryMachine) -> None:
    drops.image(REDIS, b"redis")
    drops.preload = [REDIS]
    binaries = []
    for number in range(7):
        upgrade(drops, number)
        made = planned(drops, machine, kept=binaries[1:2])
        binaries.append(made.program.binary.digest)
        lines = node_lines(made, dry_run=True)
        before = kept(machine.root)
        apply(made, machine)
        gone = [name for name in before if name not in kept(machine.root)]
        said = [f"remove /{datastore.FOLDER}/{name} (an earlier copy of the datastore)" for name in gone]
        assert [line for line in lines if "earlier copy" in line] == said

    needed = datastore.name(binaries[1])
    assert kept(machine.root) == sorted([needed, *(datastore.name(item) for item in binaries[-3:])])


def test_nothing_goes_when_the_new_copy_cannot_be_made(
    drops: Drops, machine: DirectoryMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    drops.image(REDIS, b"redis")
    drops.preload = [REDIS]
    upgrade(drops, 1)
    apply(planned(drops, machine), machine)
    names = [datastore.name(item) for item in K3S[:5]]
    copies(machine.root, names)
    upgrade(drops, 2)
    made = planned(drops, machine)
    assert len(made.surplus) == 3

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", fail)
    with pytest.raises(StoreError, match="No space left"):
        apply(made, machine)

    assert kept(machine.root) == sorted(names)


def test_a_run_that_is_killed_while_it_copies_leaves_what_the_next_upgrade_removes(
    drops: Drops, machine: DirectoryMachine
) -> None:
    drops.image(REDIS, b"redis")
    drops.preload = [REDIS]
    upgrade(drops, 1)
    apply(planned(drops, machine), machine)
    copies(machine.root, [f".{datastore.name(K3S[0])}.part"])
    upgrade(drops, 2)
    apply(planned(drops, machine), machine)

    assert len(kept(machine.root)) == 1
    assert not list((machine.root / datastore.FOLDER).glob("*.part"))


def test_snapshots_of_etcd_are_removed_by_k3s_itself(drops: Drops, machine: DirectoryMachine) -> None:
    drops.image(REDIS, b"redis")
    drops.preload = [REDIS]
    (machine.root / datastore.FOLDER / "etcd").mkdir(parents=True)
    upgrade(drops, 1)
    apply(planned(drops, machine), machine)
    names = [f"{datastore.name(item)}-node1-17641518{number}0" for number, item in enumerate(K3S[:4])]
    copies(machine.root, names, folder=datastore.FOLDER / "snapshots")
    upgrade(drops, 2)
    made = planned(drops, machine)
    apply(made, machine, timeout=1)

    said = [line for line in machine.calls if "etcd-snapshot" in line]
    name = datastore.name(made.program.binary.digest)
    assert said == [
        f"k3s etcd-snapshot save --name {name}",
        f"k3s etcd-snapshot delete {names[0]}",
        f"k3s etcd-snapshot delete {names[1]}",
    ]


def test_a_snapshot_that_k3s_does_not_remove_is_no_failure(drops: Drops, machine: DirectoryMachine) -> None:
    drops.image(REDIS, b"redis")
    drops.preload = [REDIS]
    (machine.root / datastore.FOLDER / "etcd").mkdir(parents=True)
    upgrade(drops, 1)
    apply(planned(drops, machine), machine)
    copies(machine.root, [datastore.name(item) for item in K3S[:3]], folder=datastore.FOLDER / "snapshots")
    upgrade(drops, 2)
    made = planned(drops, machine)
    assert len(made.forgets) == 1
    real = machine.run

    def run(command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        return Ran(1, b"", "not found") if "delete" in command else real(command, environment, timeout=timeout)

    machine.run = run  # type: ignore[method-assign]  # K3s refuses one command
    apply(made, machine)

    assert not planned(drops, machine).is_changed


def test_the_k3s_of_every_drop_of_a_site_is_known(tmp_path: Path) -> None:
    site = make_site(tmp_path / "s")
    found = set()
    for sequence in (1, 2):
        drops = Drops(site.store)
        found.add(digest_of(add_k3s(drops, str(sequence)).read_bytes()))
        activate(site, drops, sequence=sequence)
    bare = Drops(site.store)
    bare.image(REDIS, b"redis")
    activate(site, bare, sequence=3)

    assert active.programs(site, AMD64) == found
    assert active.programs(site, Platform("linux", "arm64")) == frozenset()
