"""A machine that is a directory: its programs are scripts in it, run for real, with what a Linux shows under /proc."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from airlift.artifact import Artifact, Kind
from airlift.digest import of as digest_of
from airlift.kinds import files
from airlift.kinds.files import NamedFile
from airlift.oci import MANIFEST, Descriptor
from airlift.site.deploy.helmchart import MANIFESTS
from airlift.site.deploy.machine import Ran, run_bounded
from tests.support.drops import Drops

SYSTEMCTL = """\
#!/bin/sh
case "$1" in
is-active)
    test -e "$ROOT/run/activating-$2" && echo activating
    test -e "$ROOT/run/active-$2" && echo active && exit 0
    exit 3 ;;
show)
    test -e "$ROOT/run/ends-at-once" && echo auto-restart || echo start
    exit 0 ;;
stop) rm -f "$ROOT/run/active-$2" ;;
esac
echo "systemctl $*" >> "$ROOT/calls"
"""
INSTALL = """\
#!/bin/sh
echo "install exec=$INSTALL_K3S_EXEC skip=$INSTALL_K3S_SKIP_DOWNLOAD force=$INSTALL_K3S_FORCE_RESTART" >> "$ROOT/calls"
unit=k3s
agent="$ROOT/var/lib/rancher/k3s/agent"
if test "$INSTALL_K3S_EXEC" = agent; then
    unit=k3s-agent
    test -e "$ROOT/not-taken" || { mkdir -p "$agent"; : > "$agent/kubelet.kubeconfig"; }
fi
: > "$ROOT/run/active-$unit"
if test $unit = k3s && ! test -d "$ROOT/var/lib/rancher/k3s/server/db/etcd"; then
    mkdir -p "$ROOT/var/lib/rancher/k3s/server/db"
    "$ROOT/usr/local/bin/k3s" version > "$ROOT/var/lib/rancher/k3s/server/db/state.db"
fi
"""
K3S = """\
#!/bin/sh
case "$1" in
kubectl)
    test -e "$ROOT/not-ready" && exit 1
    for last in "$@"; do :; done
    test -e "$ROOT/api$last.json" && exec cat "$ROOT/api$last.json"
    case "$*" in
    *" delete --ignore-not-found "*)
        for last in "$@"; do what=$name; name=$last; done
        rm -f "$ROOT/cluster/${what%%.*}/$name"
        exit 0 ;;
    esac
    echo '{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}'
    exit 0 ;;
version) echo "NUMBER"; exit 0 ;;
esac
echo "k3s $*" >> "$ROOT/calls"
exit 0
"""
HEAD = "  sl  local_address rem_address   st tx_queue\n"


@dataclass
class DirectoryMachine:
    """See `airlift.site.deploy.machine.Machine`."""

    root: Path

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        """Run a script that lies in the directory."""
        program, *rest = command
        if program == "/bin/sh":
            program, rest = "/bin/sh", [f"{self.root}{rest[0]}", *rest[1:]]
        else:
            program = f"{self.root}{program}" if program.startswith("/") else str(self.root / "usr/bin" / program)
        variables = {"ROOT": str(self.root), "PATH": "/usr/bin:/bin", **environment}
        return run_bounded([program, *rest], variables, timeout=timeout)

    @property
    def calls(self) -> list[str]:
        """What was run so far, apart from questions."""
        place = self.root / "calls"
        return place.read_text().splitlines() if place.exists() else []

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)

    def k3s_looks(self, *, starts: bool = False) -> set[str]:
        """Do what K3s does every 15 s, and return the releases of the cluster then.

        A manifest is applied unless its AddOn has its digest, at a start always; a file ``.skip`` beside it keeps it
        from being looked at, and an AddOn stays when its file goes.
        """
        charts, addons = (self.root / "cluster" / kind for kind in ("helmchart", "addon"))
        for folder in (charts, addons):
            folder.mkdir(parents=True, exist_ok=True)
        for manifest in sorted((self.root / MANIFESTS).glob("[!.]*.yaml")):
            if manifest.with_name(f"{manifest.name}.skip").exists():
                continue
            addon, checksum = addons / manifest.name.partition(".")[0], digest_of(manifest.read_bytes())
            if starts or not addon.exists() or addon.read_text() != checksum:
                addon.write_text(checksum)
                (charts / yaml.safe_load(manifest.read_text())["metadata"]["name"]).touch()
        return {item.name for item in charts.iterdir()}

    def take_port(self, port: int) -> None:
        """Let something listen."""
        self.put("proc/net/tcp", f"{HEAD}   0: 00000000:{port:04X} 00000000:0000 0A 0:0\n")


def machine_at(root: Path, *, route: bool = True) -> DirectoryMachine:
    """A bare machine."""
    made = DirectoryMachine(root)
    made.put("usr/bin/systemctl", SYSTEMCTL, 0o755)
    made.put("run/x", "")
    made.put("proc/sys/kernel/osrelease", "6.1.0-41-amd64\n")
    made.put("proc/sys/kernel/hostname", "Node1\n")
    made.put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n")
    made.put("proc/net/tcp", HEAD)
    title = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n"
    made.put("proc/net/route", title + ("eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\n" if route else ""))
    return made


def add_file(drops: Drops, name: str, data: bytes) -> Path:
    """Put a file into the drop, as a build would, and return where its content is."""
    file = NamedFile(name, digest_of(data), len(data))
    drops.store.put_bytes(data)
    manifest = files.pack(file)
    root = Descriptor(MANIFEST, drops.store.put_bytes(manifest), len(manifest))
    drops.artifacts.append(Artifact(Kind.FILE, file.artifact_name, root, {"name": name}))
    return drops.store.path(file.digest)


def k3s_binary(version: str | None = None, number: str = "1") -> bytes:
    """A K3s that holds its version as the linker puts it into the real one."""
    held = b"" if version is None else b"\0%s\0" % version.encode()
    return K3S.replace("NUMBER", number).encode() + held


def add_k3s(drops: Drops, number: str = "1", *, version: str | None = None) -> Path:
    """Put K3s, its script and its images into the drop, and return where the binary is."""
    binary = add_file(drops, "k3s", k3s_binary(version, number))
    add_file(drops, "install.sh", INSTALL.encode())
    add_file(drops, "k3s-airgap-images-amd64.tar.zst", f"K3s's own images {number}".encode())
    return binary
