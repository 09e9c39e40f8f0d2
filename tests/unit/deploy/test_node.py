from __future__ import annotations

import os
import resource
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airlift.cli.deploy_node import node_lines
from airlift.digest import Digest
from airlift.digest import of as digest_of
from airlift.errors import DeployError, IntegrityError, StoreError, UsageError
from airlift.progress import Silent
from airlift.site.deploy import k3s, node, prechecks, program
from airlift.site.deploy.blobs import StoreBlobs
from airlift.site.deploy.machine import Ran
from airlift.site.deploy.node import NodePlan
from airlift.site.deploy.prechecks import Role
from airlift.site.deploy.registries import site_endpoint
from airlift.site.deploy.settings import Wish
from tests.support.drops import AMD64, Drops
from tests.support.machine import DirectoryMachine, add_file, add_k3s, machine_at
from tests.unit.deploy.conftest import tree

REDIS = "docker.io/library/redis:7.4"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
INSTALL = "install exec=server skip=true force=true"

Maker = Callable[..., NodePlan]


@pytest.fixture
def machine(tmp_path: Path) -> DirectoryMachine:
    return machine_at(tmp_path / "machine")


@pytest.fixture
def whole(drops: Drops) -> Drops:
    drops.image(REDIS, b"redis")
    drops.chart("site", "1.0.0", [REDIS])
    drops.release("site", v=b"a: 1\n")
    drops.preload = [REDIS]
    add_k3s(drops)
    return drops


def planned(
    drops: Drops,
    machine: DirectoryMachine,
    wish: Wish | None = None,
    *,
    now: datetime = NOW,
    kept: Sequence[Digest] = (),
    prune: bool = False,
) -> NodePlan:
    config = drops.config()
    files = k3s.make_plan(
        [config],
        root=machine.root,
        endpoint=site_endpoint("http://10.0.0.1"),
        platform=AMD64,
        blobs=StoreBlobs(drops.store),
        values=drops.store.read,
    )
    own = program.plan(machine.root, [config], AMD64, drops.store)
    return node.make_plan(machine, files, own, wish or Wish(), now=now, not_before=NOW, kept=kept, prune=prune)


@pytest.fixture
def make(machine: DirectoryMachine) -> Maker:
    def plan(drops: Drops, wish: Wish | None = None, *, now: datetime = NOW, prune: bool = False) -> NodePlan:
        return planned(drops, machine, wish, now=now, prune=prune)

    return plan


def apply(made: NodePlan, machine: DirectoryMachine, *, timeout: float = 0) -> None:
    node.apply(made, machine, timeout=timeout, clock=lambda: 0.0, sleep=lambda _: None, progress=Silent())


def test_a_bare_machine_becomes_a_node_and_the_second_run_changes_nothing(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(whole), machine)
    before = tree(machine.root)

    second = make(whole)
    apply(second, machine)

    assert machine.calls == [INSTALL]
    assert not second.is_changed
    assert tree(machine.root) == before
    assert before["usr/local/bin/k3s"][0] == 0o755
    assert before["etc/rancher/k3s/config.yaml"][0] == 0o600
    assert [name for name in before if name.endswith(".tar.zst")]
    assert "var/lib/rancher/k3s/server/manifests/airlift-site.yaml" in before


def test_a_machine_without_a_default_route_gets_a_dummy_interface_before_k3s_starts(
    whole: Drops, tmp_path: Path, machine: DirectoryMachine, make: Maker
) -> None:
    machine_at(machine.root, route=False)

    apply(make(whole), machine)

    assert machine.calls == [
        "systemctl daemon-reload",
        "systemctl enable --now airlift-default-route.service",
        INSTALL,
    ]
    unit = (machine.root / "etc/systemd/system/airlift-default-route.service").read_text()
    assert "ip link add dummy0 type dummy" in unit
    assert tmp_path.exists()


def test_an_agent_joins_with_its_token_and_has_no_releases(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    wish = Wish(Role.AGENT, "https://10.0.0.2:6443", "K10secret::server:x")
    made = make(whole, wish)
    shown = "\n".join(node_lines(made, dry_run=True)) + str(made.to_json()) + repr(wish)
    assert "K10secret" not in shown
    assert digest_of(b"K10secret::server:x\n") not in shown
    assert "create /etc/rancher/k3s/airlift-token (20 B, mode 0600, secret)" in shown
    apply(made, machine)

    found = tree(machine.root)
    assert machine.calls == ["install exec=agent skip=true force=true"]
    assert found["etc/rancher/k3s/airlift-token"] == (0o600, b"K10secret::server:x\n")
    assert b"server: https://10.0.0.2:6443\n" in found["etc/rancher/k3s/config.yaml"][1]
    assert not [name for name in found if "/server/" in name]


def test_an_agent_that_no_server_takes_is_said_to_be_so(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    (machine.root / "not-taken").touch()

    with pytest.raises(DeployError) as caught:
        apply(make(whole, Wish(Role.AGENT, "https://10.0.0.2:6443", "K10secret")), machine)

    assert caught.value.message == (
        "node node1 is not ready after 0 s: https://10.0.0.2:6443 has not taken it; it may be out of reach, or the token "
        "is another"
    )
    assert str(caught.value.hint).startswith("journalctl -u k3s-agent says why")


def test_registries_that_change_restart_k3s_and_images_alone_do_not(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(whole), machine)
    whole.image("docker.io/library/more:1", b"more")
    whole.preload = [REDIS, "docker.io/library/more:1"]
    apply(make(whole), machine)
    assert machine.calls == [INSTALL]

    whole.image("ghcr.io/org/app:1", b"app")
    apply(make(whole), machine)

    assert machine.calls == [INSTALL, INSTALL]


@pytest.mark.parametrize("prune", [False, True])
def test_a_dry_run_prints_the_commands_and_files_that_a_run_then_runs_and_writes(
    whole: Drops, machine: DirectoryMachine, make: Maker, monkeypatch: pytest.MonkeyPatch, prune: bool
) -> None:
    """An upgrade in which a release goes, so that there is something of each kind."""
    whole.chart("goes", "1.0.0", [REDIS])
    whole.release("goes")
    apply(make(whole), machine)
    whole.deploy.pop()
    later(whole)
    machine.put("var/lib/rancher/k3s/server/token", "t", 0o600)
    before = tree(machine.root)
    made = make(whole, prune=prune)
    lines = node_lines(made, dry_run=True)
    assert tree(machine.root) == before
    ran: list[str] = []
    real = machine.run

    def run(command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        if "get" not in command:
            ran.append(" ".join([*(f"{key}={value}" for key, value in environment.items()), *command]))
        return real(command, environment, timeout=timeout)

    monkeypatch.setattr(machine, "run", run)
    apply(made, machine)

    assert [line.removeprefix("run ").rpartition(" (")[0] for line in lines if line.startswith("run ")] == ran
    assert any("delete" in command for command in ran) == prune
    after = tree(machine.root)
    own = ("calls", "run/", "var/lib/rancher/k3s/airlift-node.json", "var/lib/rancher/k3s/server/db/")
    changed = {path for path in after if before.get(path) != after[path] and not path.startswith(own)}
    gone = {path for path in before if path not in after and not path.startswith(own)}
    printed = {line.split()[1][1:] for line in lines if line.startswith(("create ", "replace "))}
    assert (printed, {line.split()[1][1:] for line in lines if line.startswith("remove ")}) == (changed, gone)
    for path in changed:
        assert any(f"/{path} (" in line and digest_of(after[path][1]) in line for line in lines)


def later(drops: Drops) -> None:
    drops.artifacts = [item for item in drops.artifacts if item.kind.value != "file"]
    add_k3s(drops, "2")


def test_the_k3s_of_a_later_drop_is_started_after_the_datastore_was_copied(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(whole), machine)
    machine.put("var/lib/rancher/k3s/server/token", "t", 0o600)
    later(whole)

    made = make(whole)
    apply(made, machine)

    assert machine.calls == [INSTALL, "systemctl stop k3s", INSTALL]
    (copy,) = (machine.root / "var/lib/rancher/k3s/server/db").glob("airlift-before-*")
    assert (copy.stat().st_mode & 0o777, (copy / "state.db").read_text(), (copy / "token").read_text()) == (
        0o700,
        "1\n",
        "t",
    )
    assert not make(whole).is_changed


def test_a_copy_of_the_datastore_that_fails_leaves_nothing_and_says_that_k3s_is_stopped(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(whole), machine)
    folder = machine.root / "var/lib/rancher/k3s/server/db"
    (folder / "state.db").write_bytes(bytes(1024 * 1024))
    later(whole)
    made = make(whole)
    before = tree(machine.root / "usr")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512 * 1024, hard))
    try:
        with pytest.raises(StoreError, match="copying the datastore") as caught:
            apply(made, machine)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert [path.name for path in folder.iterdir()] == ["state.db"]
    assert tree(machine.root / "usr") == before
    assert caught.value.hint is not None
    assert caught.value.hint.splitlines()[-1] == (
        "K3s is stopped meanwhile, and unchanged: systemctl start k3s lets it go on"
    )
    apply(make(whole), machine)
    assert machine.calls[-2:] == ["systemctl stop k3s", INSTALL]


def test_with_etcd_k3s_itself_makes_the_snapshot(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    (machine.root / "var/lib/rancher/k3s/server/db/etcd").mkdir(parents=True)
    apply(make(whole, Wish(cluster_init=True)), machine)
    later(whole)

    made = make(whole, Wish(cluster_init=True))
    apply(made, machine)

    name = f"airlift-before-{made.program.binary.digest[7:19]}"
    assert machine.calls == [INSTALL, f"k3s etcd-snapshot save --name {name}", INSTALL]


def test_a_run_that_was_killed_after_the_binary_is_finished_by_the_next(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(whole), machine)
    later(whole)
    made = make(whole)
    (machine.root / "not-ready").touch()
    with pytest.raises(DeployError, match="node node1 is not ready after 0 s"):
        apply(made, machine)
    (machine.root / "not-ready").unlink()

    apply(make(whole), machine)

    assert machine.calls[-1] == INSTALL
    assert not make(whole).is_changed


def test_ports_that_k3s_took_before_it_was_ready_are_no_reason_to_refuse_the_next_run(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    (machine.root / "not-ready").touch()
    with pytest.raises(DeployError, match="is not ready") as caught:
        apply(make(whole), machine)
    assert str(caught.value.hint).endswith("everything is written, the same command goes on waiting")
    (machine.root / "run/active-k3s").rename(machine.root / "run/activating-k3s")
    machine.take_port(6443)
    (machine.root / "not-ready").unlink()
    (machine.root / "run/ends-at-once").touch()
    with pytest.raises(DeployError, match=r"ports: taken: 6443/tcp \(the API server\)$"):
        make(whole)
    (machine.root / "run/ends-at-once").unlink()

    apply(make(whole), machine)

    assert not make(whole).is_changed


def test_a_run_that_waited_in_vain_goes_on_waiting_and_restarts_nothing(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    (machine.root / "not-ready").touch()
    for _ in range(2):
        with pytest.raises(DeployError, match="is not ready"):
            apply(make(whole), machine)
        assert machine.calls == [INSTALL]
        assert make(whole).is_changed
    (machine.root / "not-ready").unlink()

    apply(make(whole), machine)

    assert machine.calls == [INSTALL]
    assert "var/lib/rancher/k3s/server/manifests/airlift-site.yaml" in tree(machine.root)
    assert not make(whole).is_changed


class Hurried(DirectoryMachine):
    """Lets K3s's script run for a second."""

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        return super().run(command, environment, timeout=1 if command[0] == "/bin/sh" else timeout)


def test_a_script_that_never_ends_is_said_with_where_to_look(
    drops: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    drops.image(REDIS, b"redis")
    add_file(drops, "k3s", b"k3s")
    add_file(drops, "install.sh", b"exec sleep 600\n")
    add_file(drops, "k3s-airgap-images-amd64.tar.zst", b"images")

    with pytest.raises(DeployError, match=r"k3s-install\.sh did not end in 1 s$") as caught:
        apply(make(drops), Hurried(machine.root))

    assert caught.value.hint == (
        "journalctl -u k3s (or k3s-agent) says more; run the same command again when it is mended"
    )


class Impatient(DirectoryMachine):
    """Waits a second for an answer of the cluster; the first question is never answered."""

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        if "get" not in command:
            return super().run(command, environment, timeout=timeout)
        answer = self.root / f"api{command[-1]}.json"
        answer.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(answer)
        try:
            return super().run(command, environment, timeout=1)
        finally:
            answer.unlink()
            vars(self)["run"] = super().run


def test_a_question_that_an_api_server_never_answers_is_asked_again(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    apply(make(whole), Impatient(machine.root), timeout=1)

    assert not make(whole).is_changed


def test_a_cluster_that_never_answers_is_not_waited_for_longer_than_asked(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    with pytest.raises(DeployError, match=r"^node node1 is not ready after 0 s: .*/k3s kubectl .* did not end in 1 s$"):
        apply(make(whole), Impatient(machine.root))


def test_a_k3s_that_somebody_stopped_is_started_again(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    apply(make(whole), machine)
    (machine.root / "run/active-k3s").unlink()

    apply(make(whole), machine)

    assert machine.calls == [INSTALL, INSTALL]


def test_what_is_done_here_is_not_told_as_a_thing_to_do(whole: Drops, make: Maker) -> None:
    notes = "\n".join(make(whole).plan.notes)

    assert "restart K3s" not in notes
    assert "klipper-helm" not in notes
    assert "keep secrets out of charts and values" in notes


def refused(machine: DirectoryMachine, action: Callable[[], object], error: type[Exception]) -> str:
    """The message; nothing was changed and nothing was run."""
    before = tree(machine.root)
    with pytest.raises(error) as caught:
        action()
    assert tree(machine.root) == before
    assert machine.calls == []
    return str(caught.value)


def test_a_missing_image_is_refused(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    whole.preload = [REDIS, "docker.io/library/none:1"]

    assert "docker.io/library/none:1" in refused(machine, lambda: make(whole), DeployError)


def test_a_wrong_digest_is_refused(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    layer = next(item for item in whole.store.digests() if whole.store.size(item) == 10240)
    damage(whole.store.path(layer))

    refused(machine, lambda: make(whole), IntegrityError)


def damage(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"!" + path.read_bytes()[1:])


def test_a_tampered_k3s_binary_is_refused(drops: Drops, machine: DirectoryMachine, make: Maker) -> None:
    binary = add_k3s(drops)
    damage(binary)

    said = refused(machine, lambda: make(drops), IntegrityError)
    assert said.startswith(f"the drop's file k3s, sha256:{binary.name} in ")


def test_a_tampered_k3s_binary_on_the_machine_is_replaced(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    apply(make(whole), machine)
    good = (machine.root / "usr/local/bin/k3s").read_bytes()
    damage(machine.root / "usr/local/bin/k3s")

    apply(make(whole), machine)

    assert (machine.root / "usr/local/bin/k3s").read_bytes() == good


def test_a_full_disk_is_refused(
    whole: Drops, machine: DirectoryMachine, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.statvfs(machine.root)
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((*real[:4], 0, *real[5:])))

    assert "bytes are needed and 0 are free" in refused(machine, lambda: make(whole), StoreError)


def test_a_taken_port_is_refused(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    machine.take_port(6443)

    assert refused(machine, lambda: make(whole), DeployError) == (
        "this machine cannot become a node\n  ports: taken: 6443/tcp (the API server)"
    )


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("proc/sys/kernel/osrelease", "3.10.0-1160.el7", "kernel: 3.10.0-1160.el7 is older than 4.15"),
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu pids", "cgroups: controllers are missing: memory"),
        ("proc/sys/fs/inotify/max_user_instances", "16", "sysctls: fs.inotify.max_user_instances is 16, at least 128"),
        ("sys/fs/selinux/enforce", "1", "selinux: it is enforcing and has no policy for K3s"),
        ("run/fapolicyd/fapolicyd.fifo", "", "fapolicyd: it runs and trusts neither K3s nor what K3s unpacks"),
        ("proc/net/udp", "sl\n 0: 00000000:2118 00000000:0000 07 0\n", "ports: taken: 8472/udp (flannel)"),
    ],
)
def test_a_machine_that_would_not_work_is_refused(
    whole: Drops, machine: DirectoryMachine, make: Maker, path: str, text: str, message: str
) -> None:
    machine.put(path, text)

    assert message in refused(machine, lambda: make(whole), DeployError)


def test_the_files_of_a_real_kernel_are_read() -> None:
    found = prechecks.look(Path("/"), Role.SERVER, is_running=False, has_etcd=True, now=NOW, not_before=None)

    assert {"kernel", "cgroups", "ports", "clock", "selinux", "fapolicyd", "route"} <= {item.check for item in found}
    (kernel,) = [item for item in found if item.check == "kernel"]
    assert kernel.message == os.uname().release


def test_a_clock_that_is_behind_the_import_is_refused(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    early = datetime(2020, 1, 1, tzinfo=UTC)

    assert "clock: it says 2020-01-01T00:00:00+00:00" in refused(machine, lambda: make(whole, now=early), DeployError)


def test_a_config_of_the_administrators_own_is_not_overwritten(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    machine.put("etc/rancher/k3s/config.yaml", "node-name: a\n")

    assert "was not written by airlift" in refused(machine, lambda: make(whole), DeployError)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(Role.AGENT), "an agent joins a server"),
        (Wish(Role.SERVER, "https://10.0.0.2:6443"), "joining a server needs its token"),
        (Wish(Role.SERVER, "10.0.0.2", "t"), "--server '10.0.0.2': expected a URL such as https://10.0.0.2:6443"),
        (Wish(Role.SERVER, "https://a", "t", cluster_init=True), "--cluster-init is for the first server of a cluster"),
    ],
)
def test_a_wish_that_contradicts_itself_is_refused(
    whole: Drops, machine: DirectoryMachine, make: Maker, wish: Wish, message: str
) -> None:
    assert refused(machine, lambda: make(whole, wish), UsageError) == message


def test_a_drop_without_k3s_or_its_images_is_refused(drops: Drops, machine: DirectoryMachine, make: Maker) -> None:
    assert refused(machine, lambda: make(drops), DeployError) == "the active drops carry no file k3s or k3s-amd64"
    add_file(drops, "bin/k3s", b"k3s")
    add_file(drops, "install.sh", b"script")

    assert "have none of K3s's own images" in refused(machine, lambda: make(drops), DeployError)
    drops.image("docker.io/rancher/mirrored-pause:3.6")
    make(drops)


def test_two_different_k3s_are_refused(whole: Drops, machine: DirectoryMachine, make: Maker) -> None:
    add_file(whole, "other/k3s", b"another")

    assert "carry 2 different files k3s" in refused(machine, lambda: make(whole), DeployError)


def test_a_dry_run_prints_all_that_is_written_and_run_in_its_order(
    whole: Drops, machine: DirectoryMachine, make: Maker
) -> None:
    machine_at(machine.root, route=False)
    made = make(whole, Wish(node_ip="10.0.0.1"))
    printed = "\n".join(node_lines(made, dry_run=True)) + "\n"

    golden = Path(__file__).parent / "golden" / "node-dry-run.txt"
    if os.environ.get("AIRLIFT_WRITE_GOLDEN"):
        golden.write_text(printed)
    assert printed == golden.read_text()

    before = set(tree(machine.root))
    apply(made, machine)
    written = {name: item for name, item in tree(machine.root).items() if name not in before}
    assert set(written) - {"calls", "run/active-k3s", "var/lib/rancher/k3s/server/db/state.db", str(node.NOTE)} == {
        str(item.path) for item in made.files
    }
