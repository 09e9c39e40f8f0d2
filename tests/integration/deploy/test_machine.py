"""The command on the machine itself: its real /proc and /sys, and /etc, /usr/local and /var/lib under overlays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import components
from tests.components import ROOT
from tests.support.deployable import activate, make_site
from tests.support.drops import Drops
from tests.support.machine import SYSTEMCTL, add_k3s

REDIS = "docker.io/library/redis:7.4"
SCRIPT = """\
set -e
mount --make-rprivate /
mount -t tmpfs t "$WORK/over"
for folder in /etc /usr/local /var/lib; do
    mkdir -p "$WORK/over$folder/u" "$WORK/over$folder/w"
    mount -t overlay o -o "lowerdir=$folder,upperdir=$WORK/over$folder/u,workdir=$WORK/over$folder/w" $folder || exit 77
done
"$@" --dry-run
ls -d /etc/rancher /var/lib/rancher && exit 1
"$@"
"$@"
ls /etc/rancher/k3s /var/lib/rancher/k3s/airlift-node.json
"""


def test_a_machine_becomes_a_node_and_the_second_run_changes_nothing(tmp_path: Path) -> None:
    components.require_root()
    unshare = components.require("unshare")
    site = make_site(tmp_path / "s")
    drops = Drops(site.store)
    drops.image(REDIS, b"redis")
    drops.chart("site", "1.0.0", [REDIS])
    drops.release("site")
    add_k3s(drops)
    activate(site, drops)
    programs, fake = tmp_path / "bin", tmp_path / "fake"
    for folder in (programs, tmp_path / "over", fake / "usr/local", fake / "run"):
        folder.mkdir(parents=True)
    (programs / "systemctl").write_text(SYSTEMCTL)
    (programs / "systemctl").chmod(0o755)
    (fake / "usr/local/bin").symlink_to("/usr/local/bin")  # where the carried scripts look for K3s
    command = [sys.executable, "-m", "airlift", "deploy", "k3s", "--site", str(site.root), "--platform", "linux/amd64"]
    environment = {"PATH": f"{programs}:/usr/bin:/bin:/usr/sbin:/sbin", "ROOT": str(fake), "WORK": str(tmp_path)}
    done = subprocess.run(
        [str(unshare), "--mount", "/bin/sh", "-c", SCRIPT, "sh", *command],
        env={**environment, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        components.missing("mount namespaces or overlays are not allowed here")
    taken = "this machine cannot become a node" in done.stderr
    if taken and not components.NOTHING_IS_SKIPPED:
        components.missing(f"this machine runs something else: {done.stderr}")

    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("create /usr/local/bin/k3s (") for line in lines)
    assert any(line.startswith("created /usr/local/bin/k3s (") for line in lines)
    assert "nothing to change" in lines
    assert {"config.yaml", "registries.yaml", "/var/lib/rancher/k3s/airlift-node.json"} <= set(lines)
    calls = (fake / "calls").read_text().splitlines()
    assert [line for line in calls if line.startswith("install ")] == ["install exec=server skip=true force=true"]
    assert f"node {os.uname().nodename.lower()} is ready" in done.stderr
