"""The command on the machine itself: its real /proc and /sys, and /etc, /usr/local and /var/lib under overlays."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from airlift.digest import of as digest_of
from airlift.site.config import Site
from tests import components
from tests.components import ROOT
from tests.support.deployable import activate, make_site
from tests.support.drops import Drops, bare_chart
from tests.support.helm_records import record
from tests.support.machine import SYSTEMCTL, add_k3s

REDIS = "docker.io/library/redis:7.4"
INSTALL = "install exec=server skip=true force=true"
# Ports are those of an empty network namespace; what a run writes lies under over/*/u, on a disk of SIZE.
OVERLAYS = """\
set -e
ip link set lo up
mount --make-rprivate /
mount -t tmpfs -o "size=$SIZE" t "$WORK/over"
for folder in /etc /usr/local /var/lib; do
    mkdir -p "$WORK/over$folder/u" "$WORK/over$folder/w"
    mount -t overlay o -o "lowerdir=$folder,upperdir=$WORK/over$folder/u,workdir=$WORK/over$folder/w" $folder || exit 77
done
written() { (cd "$WORK/over" && find . ! -type d -exec sha256sum {} +; cat "$ROOT/calls" || true) 2>/dev/null; }
refused() {
    before=$(written)
    code=0
    "$@" || code=$?
    test "$(written)" = "$before" || { echo "something was changed"; exit 1; }
    echo "refused with $code"
}
"""
TWICE = """\
"$@" --dry-run
ls -d /etc/rancher /var/lib/rancher && exit 1
"$@"
"$@"
ls /etc/rancher/k3s /var/lib/rancher/k3s/airlift-node.json
"""


LISTEN = """\
busybox nc -l -p 6443 > "$WORK/heard" 2>&1 < /dev/null &
trap "kill $!" EXIT
until grep -q :192B /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done
"""


@dataclass
class Machine:
    """This one, and a site on it."""

    site: Site
    drops: Drops
    folder: Path

    def run(self, script: str, *, size: str = "50%") -> subprocess.CompletedProcess[str]:
        """Run a script in which ``"$@"`` is the command."""
        programs, fake = self.folder / "bin", self.folder / "fake"
        for folder in (programs, self.folder / "over", fake / "usr/local", fake / "run"):
            folder.mkdir(parents=True)
        (programs / "systemctl").write_text(SYSTEMCTL)
        (programs / "systemctl").chmod(0o755)
        (fake / "usr/local/bin").symlink_to("/usr/local/bin")  # where the carried scripts look for K3s
        (fake / "var").symlink_to("/var")
        command = [sys.executable, "-m", "airlift", "deploy", "k3s", "--site", str(self.site.root)]
        environment = {"PATH": f"{programs}:/usr/bin:/bin:/usr/sbin:/sbin", "ROOT": str(fake), "SIZE": size}
        unshare = [str(components.require("unshare")), "--mount", "--net"]
        done = subprocess.run(
            [*unshare, "/bin/sh", "-c", OVERLAYS + script, "sh", *command, "--platform", "linux/amd64"],
            env={**environment, "WORK": str(self.folder), "PYTHONPATH": str(ROOT), "HOME": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode == 77 or "unshare failed" in done.stderr:
            components.missing("mount namespaces or overlays are not allowed here")
        if "this machine cannot become a node" in done.stderr and "ports" not in done.stderr:
            components.missing(f"this machine runs something else: {done.stderr}")
        return done

    @property
    def calls(self) -> list[str]:
        """What was done to the machine."""
        place = self.folder / "fake/calls"
        return place.read_text().splitlines() if place.exists() else []

    def activate(self, sequence: int = 1) -> None:
        activate(self.site, self.drops, sequence=sequence)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    components.require_root()
    site = make_site(tmp_path / "s")
    drops = Drops(site.store)
    drops.image(REDIS, b"redis")
    drops.preload = [REDIS]
    drops.chart("site", "1.0.0", [REDIS])
    drops.release("site")
    return Machine(site, drops, tmp_path)


def test_a_machine_becomes_a_node_and_the_second_run_changes_nothing(machine: Machine) -> None:
    add_k3s(machine.drops)
    machine.activate()

    done = machine.run(TWICE)

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("create /usr/local/bin/k3s (") for line in lines)
    assert any(line.startswith("created /usr/local/bin/k3s (") for line in lines)
    assert "nothing to change" in lines
    assert {"config.yaml", "registries.yaml", "/var/lib/rancher/k3s/airlift-node.json"} <= set(lines)
    assert [line for line in machine.calls if line.startswith("install ")] == [INSTALL]
    assert f"node {os.uname().nodename.lower()} is ready" in done.stderr


def test_a_drop_of_which_no_time_is_known_since_a_recovery_found_it_is_deployed(machine: Machine) -> None:
    add_k3s(machine.drops)
    machine.activate()
    with contextlib.closing(sqlite3.connect(machine.site.journal_path, isolation_level=None)) as journal:
        journal.execute("UPDATE releases SET imported = ''")

    done = machine.run('"$@" --dry-run')

    assert done.returncode == 0, done.stdout + done.stderr
    assert "create /usr/local/bin/k3s (" in done.stdout


def test_a_server_says_at_its_end_which_pods_keep_another_image(machine: Machine) -> None:
    add_k3s(machine.drops)
    machine.activate()
    other = digest_of(b"of another drop")
    template = (
        f"kind: Pod\napiVersion: v1\nmetadata: {{name: p, namespace: default}}\nspec: {{containers: [{REDIS}]}}\n"
    )
    made = record(bare_chart("site", "1.0.0"), release="site", namespace="default")
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps({**made, "manifest": template}).encode())))
    labels = {"owner": "helm", "name": "site", "version": "1", "status": "deployed"}
    pod = {
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "redis", "image": REDIS}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "redis", "imageID": f"docker.io/library/redis@{other}"}],
        },
    }
    secret = {"metadata": {"labels": labels}, "data": {"release": packed.decode()}}
    answers = machine.folder / "fake/api/api/v1/namespaces/default"
    answers.mkdir(parents=True)
    for kind, item in (("secrets?labelSelector=owner%3Dhelm%2Cname%3Dsite", secret), ("pods", pod)):
        (answers / f"{kind}.json").write_text(json.dumps({"items": [item]}))

    done = machine.run('KUBECONFIG=/none "$@" || echo "ended with $?"\n')

    assert done.stdout.splitlines()[-1:] == ["ended with 18"], done.stdout + done.stderr
    assert f"default/p, redis: {other} runs, " in done.stderr
    assert f"airlift:   k3s crictl pull {REDIS}\n" in done.stderr
    assert [line for line in machine.calls if line.startswith("install ")] == [INSTALL]


def lacking(machine: Machine) -> None:
    add_k3s(machine.drops)
    machine.drops.chart("more", "1.0.0", [f"{REDIS}.1"])
    machine.drops.release("more")


def damaged(machine: Machine) -> None:
    add_k3s(machine.drops)
    damage(max((path for path in machine.site.store.root.rglob("*") if path.is_file()), key=size))


def tampered(machine: Machine) -> None:
    damage(add_k3s(machine.drops))


def damage(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"#")


def size(path: Path) -> int:
    return path.stat().st_size


@pytest.mark.parametrize(
    ("prepare", "before", "disk", "code", "said"),
    [
        (lacking, "", "50%", 18, f"{REDIS}.1"),
        (damaged, "", "50%", 12, "sha256:"),
        (tampered, "", "50%", 12, "sha256:"),
        (add_k3s, "", "16k", 16, "bytes are needed and"),
        (add_k3s, LISTEN, "50%", 18, "ports: taken: 6443/tcp (the API server)"),
    ],
    ids=["a missing image", "a wrong digest", "a tampered K3s binary", "a full disk", "a taken port"],
)
def test_what_cannot_work_is_refused_before_the_first_change(
    machine: Machine, prepare: Callable[[Machine], None], before: str, disk: str, code: int, said: str
) -> None:
    components.require("busybox")
    prepare(machine.drops if prepare is add_k3s else machine)  # type: ignore[arg-type]  # either has its own
    machine.activate()

    done = machine.run(before + 'refused "$@"\n', size=disk)

    assert done.stdout.splitlines()[-1:] == [f"refused with {code}"], done.stdout + done.stderr
    assert said in done.stderr
    assert machine.calls == []


def test_an_upgrade_whose_datastore_cannot_be_copied_is_refused_while_k3s_runs(machine: Machine) -> None:
    """The copy is made after K3s was stopped: that there is room for it has to be known before."""
    add_k3s(machine.drops)
    machine.activate()
    second = Drops(machine.site.store)
    second.artifacts = [item for item in machine.drops.artifacts if item.kind.value != "file"]
    second.deploy = machine.drops.deploy
    add_k3s(second, "2")
    activate(machine.site, second, sequence=2)
    activate_command = f'"$1" -m airlift drops activate --site "{machine.site.root}"'
    script = f"""\
{activate_command} stable/1
"$@"
head -c 3000000 /dev/zero > /var/lib/rancher/k3s/server/db/state.db
{activate_command} stable/2
refused "$@"
rm /var/lib/rancher/k3s/server/db/state.db
echo small > /var/lib/rancher/k3s/server/db/state.db
"$@"
"""

    done = machine.run(script, size="4m")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused with 16" in done.stdout.splitlines()
    assert "bytes are needed and" in done.stderr
    kept = ("install ", "systemctl stop")
    assert [line for line in machine.calls if line.startswith(kept)] == [INSTALL, "systemctl stop k3s", INSTALL]
