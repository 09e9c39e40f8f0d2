from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from airlift.errors import DeployError
from airlift.site.deploy.helmchart import CHARTS, MANIFESTS
from airlift.site.deploy.machine import Ran
from airlift.site.deploy.tarball import FOLDER
from tests.support.drops import Drops
from tests.support.machine import DirectoryMachine, add_k3s
from tests.unit.deploy.conftest import tree
from tests.unit.deploy.test_node import INSTALL, Maker, apply, machine, make

__all__ = ["machine", "make"]

APP = "docker.io/library/app"


@pytest.fixture
def second(drops: Drops, machine: DirectoryMachine, make: Maker) -> Drops:
    """A later drop, where an earlier one with two releases is deployed."""
    drops.image(f"{APP}:1", b"one")
    drops.preload = [f"{APP}:1"]
    for name in ("stays", "goes"):
        drops.chart(name, "1.0.0", [f"{APP}:1"])
        drops.release(name)
    add_k3s(drops, "1")
    apply(make(drops), machine)
    drops.artifacts.clear()
    drops.deploy.clear()
    drops.image(f"{APP}:2", b"two")
    drops.preload = [f"{APP}:2"]
    drops.chart("stays", "1.1.0", [f"{APP}:2"])
    drops.release("stays")
    add_k3s(drops, "1")
    return drops


def names(machine: DirectoryMachine, folder: object) -> set[str]:
    prefix = f"{folder}/"
    return {name.removeprefix(prefix) for name in tree(machine.root) if name.startswith(prefix)}


def test_without_being_asked_everything_stays(second: Drops, machine: DirectoryMachine, make: Maker) -> None:
    made = make(second)
    apply(made, machine)

    assert MANIFESTS / "airlift-goes.yaml" in made.plan.kept
    assert len(names(machine, CHARTS)) == 3
    assert machine.calls == [INSTALL]


def test_what_no_drop_needs_goes_the_release_before_its_manifest(
    second: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    made = make(second, prune=True)
    apply(made, machine)

    assert names(machine, MANIFESTS) == {"airlift-stays.yaml"}
    assert {name[:11] for name in names(machine, CHARTS)} == {"stays-1.1.0"}
    assert names(machine, FOLDER) == {item.path.name for item in made.files if item.path.parent == FOLDER}
    assert made.plan.kept == ()
    assert [str(step).partition("k3s ")[2] for step in made.uninstalls] == [
        "kubectl -n kube-system delete --ignore-not-found helmchart.helm.cattle.io goes",
        "kubectl -n kube-system delete --ignore-not-found addon.k3s.cattle.io airlift-goes",
    ]
    assert not make(second, prune=True).is_changed


def test_a_release_that_comes_back_is_taken_by_k3s_again(second: Drops, machine: DirectoryMachine, make: Maker) -> None:
    """With the very bytes that K3s saw before."""
    assert machine.k3s_looks() == {"stays", "goes"}
    apply(make(second, prune=True), machine)
    assert machine.k3s_looks() == {"stays"}

    second.chart("goes", "1.0.0", [f"{APP}:2"])
    second.release("goes")
    apply(make(second), machine)

    assert machine.k3s_looks() == {"stays", "goes"}


@pytest.mark.parametrize("kind", ["helmchart.helm.cattle.io", "addon.k3s.cattle.io"])
def test_a_k3s_that_starts_again_meanwhile_brings_no_release_back(
    second: Drops, machine: DirectoryMachine, make: Maker, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """At a start it applies every manifest, whatever it saw before."""
    machine.k3s_looks()
    made = make(second, prune=True)
    real = machine.run

    def run(command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        done = real(command, environment, timeout=timeout)
        if kind in command:
            machine.k3s_looks(starts=True)
        return done

    monkeypatch.setattr(machine, "run", run)
    apply(made, machine)

    assert machine.k3s_looks(starts=True) == {"stays"}
    assert names(machine, MANIFESTS) == {"airlift-stays.yaml"}


def test_what_a_killed_run_left_beside_a_manifest_that_is_gone_goes(
    second: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(second, prune=True), machine)
    machine.put(f"{MANIFESTS}/airlift-goes.yaml.skip", "")
    machine.put(f"{MANIFESTS}/airlift-stays.yaml.skip", "of a person")

    apply(make(second, prune=True), machine)

    assert names(machine, MANIFESTS) == {"airlift-stays.yaml", "airlift-stays.yaml.skip"}


def test_a_manifest_that_somebody_edited_stays_with_its_chart(
    second: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    place = machine.root / MANIFESTS / "airlift-goes.yaml"
    place.write_text(place.read_text() + "# mine\n")

    made = make(second, prune=True)
    apply(made, machine)

    assert made.uninstalls == ()
    assert {name[:5] for name in names(machine, CHARTS)} == {"goes-", "stays"}
    assert place.exists()


def test_nothing_of_others_goes(second: Drops, machine: DirectoryMachine, make: Maker) -> None:
    theirs = [f"{FOLDER}/k3s-airgap-images-amd64.tar.zst", f"{CHARTS}/traefik-1.2.3.tgz", f"{MANIFESTS}/ccm.yaml"]
    for name in theirs:
        machine.put(name, "theirs")

    apply(make(second, prune=True), machine)

    assert set(theirs) <= set(tree(machine.root))


@pytest.mark.parametrize("place", ["others.yaml", "below/others.yaml"])
def test_a_chart_that_a_manifest_of_others_names_stays(
    second: Drops, machine: DirectoryMachine, make: Maker, place: str
) -> None:
    """However long that manifest is."""
    (goes,) = (name for name in names(machine, CHARTS) if name.startswith("goes-"))
    line = f"spec: {{chart: 'https://%{{KUBERNETES_API}}%/static/charts/{goes}'}}\n"
    for before in range(1024 * 1024 - len(line), 1024 * 1024, 17):
        machine.put(f"{MANIFESTS}/{place}", f"# {'x' * before}\n{line}# {'x' * 4 * 1024 * 1024}\n")

        assert CHARTS / goes not in make(second, prune=True).removal.files


def test_a_cluster_that_refuses_keeps_the_manifest_for_the_next_run(
    second: Drops, machine: DirectoryMachine, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(second, prune=True)
    real = machine.run
    asked: list[str] = []

    def run(command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        if "delete" in command:
            asked.append(command[-1])
            command = ["false-program"]
        return real(command, environment, timeout=timeout)

    monkeypatch.setattr(machine, "run", run)
    with pytest.raises(DeployError):
        apply(made, machine)

    assert asked == ["goes"]
    assert "airlift-goes.yaml" in names(machine, MANIFESTS)
    assert make(second, prune=True).uninstalls
