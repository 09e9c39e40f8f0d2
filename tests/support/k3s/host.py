"""A machine on which K3s runs, for `airlift deploy k3s` without ``--root``: its network, its files and its systemd.

The command runs in namespaces: of the network of the K3s that was put together, and of mounts in which ``/etc/rancher``
and ``/var/lib/rancher`` are that K3s's own. What else it writes under ``/etc``, ``/usr/local`` and ``/var/lib`` goes away.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airlift.artifact import Kind
from tests import components
from tests.support.drops import Drops
from tests.support.k3s.lent import Lent
from tests.support.machine import add_file

_MOUNTS = """\
set -e
mount --make-rprivate /
mount -t tmpfs t "$WORK/over"
for folder in /etc /usr/local /var/lib; do
    mkdir -p "$WORK/over$folder/u" "$WORK/over$folder/w"
    mount -t overlay o -o "lowerdir=$folder,upperdir=$WORK/over$folder/u,workdir=$WORK/over$folder/w" $folder || exit 77
done
for folder in /etc/rancher /var/lib/rancher; do
    mkdir -p "$folder" "$ROOT$folder"
    mount --bind "$ROOT$folder" "$folder"
done
mkdir -p "$ROOT/usr/local/bin"
mount --bind "$ROOT/usr/local/bin" /usr/local/bin
echo mounted
exec cat
"""
_WAIT = """\
count() { cut -d " " -f 2 <"$STATE"; }
ask() {
    before=$(count)
    kill "-$1" "$PID"
    until test "$(cut -d " " -f 1 <"$STATE")" = "$2" && test "$(count)" -gt "$before"; do sleep 0.2; done
}
"""
_SYSTEMCTL = """\
case "$1" in
is-active)
    case "$(cut -d " " -f 1 <"$STATE")" in
    ready) echo active && exit 0 ;;
    starting) echo activating ;;
    *) echo inactive ;;
    esac
    exit 3 ;;
show) echo start && exit 0 ;;
stop) ask USR1 stopped ;;
esac
echo "systemctl $*" >>"$CALLS"
"""
_INSTALL = """\
ask HUP ready
echo "install" >>"$CALLS"
"""
_K3S = """\
case "$1" in
kubectl) shift; exec "$KUBECTL" --kubeconfig=/etc/rancher/k3s/k3s.yaml "$@" ;;
esac
exit 1
"""


@dataclass
class Host:
    """The machine."""

    lent: Lent
    folder: Path
    keeper: subprocess.Popen[str]

    @property
    def calls(self) -> list[str]:
        """What was done to the machine's systemd, and how often K3s was installed."""
        place = self.folder / "calls"
        return place.read_text().splitlines() if place.exists() else []

    def add_k3s(self, drops: Drops, version: str) -> None:
        """Put K3s into a drop: a program that has its version, and the script that starts it."""
        drops.artifacts = [item for item in drops.artifacts if item.kind is not Kind.FILE]
        add_file(drops, "k3s", _script(_K3S) + b"\0%s\0" % version.encode())
        add_file(drops, "install.sh", _script(_WAIT + _INSTALL))
        add_file(drops, "k3s-airgap-images-amd64.tar.zst", b"K3s's own images are there")

    def stop_k3s(self) -> None:
        """Stop it, as systemctl does, and return when it is stopped."""
        done = self.run(self.folder / "bin/systemctl", "stop", "k3s")
        assert done.returncode == 0, done.stderr

    def airlift(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run airlift on the machine."""
        return self.run(sys.executable, "-m", "airlift", *arguments)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program on the machine."""
        return subprocess.run(
            [
                str(components.require("nsenter")),
                f"--target={self.keeper.pid}",
                "--mount",
                "--net",
                "--",
                *map(str, command),
            ],
            env=_environment(self.lent, self.folder),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


def _script(text: str) -> bytes:
    """Return a script; what differs from machine to machine is in its environment."""
    return f"#!/bin/sh\n{text}".encode()


def _environment(lent: Lent, folder: Path) -> dict[str, str]:
    path = [folder / "bin", components.TOOLS, "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
    return {
        "PATH": os.pathsep.join(map(str, path)),
        "PYTHONPATH": str(components.ROOT),
        "HOME": str(folder),
        "WORK": str(folder),
        "ROOT": str(lent.home / "root"),
        "STATE": str(lent.home / "state"),
        "PID": str(lent.process.pid),
        "CALLS": str(folder / "calls"),
        "KUBECTL": str(components.require("kubectl")),
    }


@contextmanager
def host(lent: Lent, folder: Path) -> Iterator[Host]:
    """Make the machine's view of its files, and keep it until the block ends."""
    for name in ("bin", "over"):
        (folder / name).mkdir(parents=True)
    keeper = subprocess.Popen(
        [*lent.enter, str(components.require("unshare")), "--mount", "/bin/sh", "-c", _MOUNTS],
        env=_environment(lent, folder),
        stdin=subprocess.PIPE,  # its end is the end of what keeps the mounts
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        said = keeper.stdout.readline()
        if said != "mounted\n":
            components.missing(f"mount namespaces or overlays are not allowed here: {said}")
        made = Host(lent, folder, keeper)
        (folder / "bin/systemctl").write_bytes(_script(_WAIT + _SYSTEMCTL))
        (folder / "bin/systemctl").chmod(0o755)
        yield made
    finally:
        keeper.stdin.close()
        keeper.wait()
        keeper.stdout.close()
