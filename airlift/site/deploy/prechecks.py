"""Whether a machine can become a node: looked at before anything on it is changed.

Everything is read from files below the machine's root; nothing is tried out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from airlift import fs, limits
from airlift.canonical import JsonObject
from airlift.errors import DeployError


class Role(StrEnum):
    """What the machine is in its cluster."""

    SERVER = "server"
    AGENT = "agent"


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what.
        level: how much it matters.
        message: what was found.
        hint: what to do, or empty.
    """

    check: str
    level: Level
    message: str
    hint: str = ""

    def to_json(self) -> JsonObject:
        """Return what ``--json`` says of it."""
        return {"check": self.check, "level": self.level.value, "message": self.message, "hint": self.hint}


SHARED_PORTS: Final = {10250: "kubelet", 10248: "kubelet's health", 10249: "kube-proxy", 10256: "kube-proxy's health"}
SERVER_PORTS: Final = {
    6443: "the API server",
    6444: "K3s's supervisor",
    10257: "the controller manager",
    10259: "the scheduler",
}
ETCD_PORTS: Final = {2379: "etcd", 2380: "etcd's peers"}
VXLAN: Final = 8472
_CONTROLLERS: Final = frozenset({"cpu", "cpuset", "memory", "pids"})
_KERNEL: Final = (4, 15)
_LISTEN: Final = "0A"
_LIMIT: Final = 16 * limits.MIB
_PIECE: Final = 16 * limits.KIB
_SYSCTLS: Final = {"fs/inotify/max_user_instances": 128, "fs/inotify/max_user_watches": 8192}


def look(
    root: Path, role: Role, *, is_running: bool, has_etcd: bool, now: datetime, not_before: datetime | None
) -> tuple[Finding, ...]:
    """Return what was found about a machine.

    Args:
        root: what stands for its ``/``.
        role: what it is to be.
        is_running: whether K3s runs on it already, so that its ports are taken by K3s itself.
        has_etcd: whether K3s is to run etcd there.
        now: the machine's time.
        not_before: a time that has passed for certain, or None.

    Raises:
        StoreError: a file cannot be read.
    """
    found = [_kernel(root), _cgroups(root), *_sysctls(root), *_ports(root, role, is_running=is_running, etcd=has_etcd)]
    return (*found, _clock(now, not_before), _selinux(root), _fapolicyd(root), _route(root))


def refuse(findings: tuple[Finding, ...]) -> None:
    """Accept a machine without a finding that refuses it.

    Raises:
        DeployError: with all of them.
    """
    bad = [item for item in findings if item.level is Level.REFUSE]
    if bad:
        lines = [f"  {item.check}: {item.message}" for item in bad]
        raise DeployError(
            "\n".join(["this machine cannot become a node", *lines]),
            hint="\n".join(dict.fromkeys(item.hint for item in bad if item.hint)) or None,
        )


def has_default_route(root: Path) -> bool:
    """Say whether packets to anywhere have a way out, which K3s needs even where nothing answers.

    Raises:
        StoreError: a file cannot be read.
    """
    fields = [line.split() for line in _read(root, "proc/net/route").splitlines()[1:]]
    old = any(len(item) > 7 and item[1] == "00000000" and item[7] == "00000000" for item in fields)  # noqa: PLR2004
    rows = [line.split() for line in _read(root, "proc/net/ipv6_route").splitlines()]
    return old or any(len(row) > 9 and row[0] == "0" * 32 and row[1] == "00" and row[9] != "lo" for row in rows)  # noqa: PLR2004


def _read(root: Path, path: str) -> str:
    place = root / path
    if not place.is_file():
        return ""
    data = bytearray()
    with fs.guarded(f"reading {place}"), place.open("rb", buffering=0) as stream:
        # In small pieces: the kernel makes a buffer of the size that is asked for, and refuses a large one.
        while len(data) < _LIMIT and (piece := stream.read(_PIECE)):
            data += piece
    return data.decode("utf-8", "replace")


def _kernel(root: Path) -> Finding:
    text = _read(root, "proc/sys/kernel/osrelease").strip()
    version = re.match(r"(\d+)\.(\d+)", text)
    if version is None:
        return Finding("kernel", Level.REFUSE, f"its version {text!r} cannot be read", "mount /proc")
    if (int(version[1]), int(version[2])) < _KERNEL:
        return Finding("kernel", Level.REFUSE, f"{text} is older than 4.15", "run a newer kernel")
    return Finding("kernel", Level.OK, text)


def _cgroups(root: Path) -> Finding:
    two = set(_read(root, "sys/fs/cgroup/cgroup.controllers").split())
    rows = [line.split() for line in _read(root, "proc/cgroups").splitlines() if not line.startswith("#")]
    one = {row[0] for row in rows if len(row) > 3 and row[3] == "1"}  # noqa: PLR2004 - the column `enabled`
    missing = sorted(_CONTROLLERS - (two or one))
    if missing:
        return Finding(
            "cgroups",
            Level.REFUSE,
            f"controllers are missing: {', '.join(missing)}",
            "boot with cgroup_enable=memory cgroup_memory=1, and mount /sys/fs/cgroup",
        )
    return Finding("cgroups", Level.OK if two else Level.NOTE, "version 2" if two else "version 1, which is going away")


def _sysctls(root: Path) -> Iterator[Finding]:
    for name, least in _SYSCTLS.items():
        text = _read(root, f"proc/sys/{name}").strip()
        key = name.replace("/", ".")
        if text.isdecimal() and int(text) < least:
            message = f"{key} is {text}, at least {least} is needed"
            yield Finding("sysctls", Level.REFUSE, message, f"sysctl -w {key}={least}, and in /etc/sysctl.d")


def _ports(root: Path, role: Role, *, is_running: bool, etcd: bool) -> Iterator[Finding]:
    if is_running:
        yield Finding("ports", Level.OK, "K3s runs and has them")
        return
    wanted = {**SHARED_PORTS, **(SERVER_PORTS if role is Role.SERVER else {}), **(ETCD_PORTS if etcd else {})}
    taken = _bound(root, ("tcp", "tcp6"), lambda state: state == _LISTEN)
    bad = [f"{port}/tcp ({what})" for port, what in sorted(wanted.items()) if port in taken]
    if VXLAN in _bound(root, ("udp", "udp6"), lambda _: True):
        bad.append(f"{VXLAN}/udp (flannel)")
    if bad:
        yield Finding("ports", Level.REFUSE, f"taken: {', '.join(bad)}", "stop what listens there; see ss -lntup")
    else:
        yield Finding("ports", Level.OK, f"{', '.join(str(port) for port in sorted(wanted))} are free")


def _bound(root: Path, tables: tuple[str, ...], counts: Callable[[str], bool]) -> set[int]:
    rows = [line.split() for table in tables for line in _read(root, f"proc/net/{table}").splitlines()[1:]]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and counts(row[3])}  # noqa: PLR2004


def _clock(now: datetime, not_before: datetime | None) -> Finding:
    if not_before is not None and now < not_before:
        message = (
            f"it says {now.isoformat(timespec='seconds')}, and a drop was imported here at {not_before.isoformat()}"
        )
        return Finding("clock", Level.REFUSE, message, "set the clock: certificates would not be valid yet")
    return Finding("clock", Level.OK, now.isoformat(timespec="seconds"))


def _selinux(root: Path) -> Finding:
    if _read(root, "sys/fs/selinux/enforce").strip() != "1":
        return Finding("selinux", Level.OK, "not enforcing")
    modules = [
        *(root / "etc/selinux").glob("*/active/modules/*/k3s"),
        *(root / "var/lib/selinux").glob("*/active/modules/*/k3s"),
    ]
    if not modules:
        return Finding(
            "selinux",
            Level.REFUSE,
            "it is enforcing and has no policy for K3s",
            "install container-selinux and k3s-selinux from the drop's files (rpm -i), then run this again",
        )
    return Finding("selinux", Level.OK, "enforcing, with K3s's policy")


def _fapolicyd(root: Path) -> Finding:
    if not (root / "run/fapolicyd").is_dir():
        return Finding("fapolicyd", Level.OK, "not running")
    rules = [*(root / "etc/fapolicyd/rules.d").glob("*.rules"), *(root / "etc/fapolicyd/trust.d").glob("*")]
    rules += [root / "etc/fapolicyd/fapolicyd.trust", root / "etc/fapolicyd/fapolicyd.rules"]
    if any("/var/lib/rancher" in _read(root, str(path.relative_to(root))) for path in rules):
        return Finding("fapolicyd", Level.OK, "running, with a rule for /var/lib/rancher")
    return Finding(
        "fapolicyd",
        Level.REFUSE,
        "it runs and trusts neither K3s nor what K3s unpacks",
        "add /etc/fapolicyd/rules.d/80-k3s.rules: allow perm=any all : dir=/var/lib/rancher/ ; "
        "trust /usr/local/bin/k3s with fapolicyd-cli --file add, then fapolicyd-cli --update",
    )


def _route(root: Path) -> Finding:
    if has_default_route(root):
        return Finding("route", Level.OK, "there is a default route")
    return Finding("route", Level.NOTE, "there is no default route; an interface dummy0 will give one")
