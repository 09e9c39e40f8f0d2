"""A bare Debian in a directory, in a network namespace that has nothing but its own loopback.

The root is made by mmdebstrap from the packages that this machine's own apt is set up for, once for each state of its
list, and unpacked anew for each test module. Programs run in it by chroot; nothing of the machine around it is there but
/dev and /proc, and those only in a mount namespace of the command that runs: a run that is killed leaves a directory that
can be removed, without the machine's own devices in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import components

PACKAGES = "python3,python3-venv,openssl"
"""What a bare machine has beside Debian's essential packages."""

SUITE = "bookworm"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"
_CACHE = components.ROOT / ".cache"
_ENTER = 'mount -t proc proc "$0/proc" && mount --bind /dev "$0/dev" && exec chroot "$0" /bin/sh -c "$1"'


@dataclass(frozen=True)
class BareMachine:
    """A machine.

    Attributes:
        root: its root directory.
        namespace: name of its network namespace.
    """

    root: Path
    namespace: str

    @property
    def inside(self) -> list[str]:
        """What is put before a program so that it runs in the machine's network."""
        return ["nsenter", f"--net=/run/netns/{self.namespace}"]

    def command(self, line: str, cwd: str = "/root") -> list[str]:
        shell = f"cd {cwd} && {line}"
        return [*self.inside, "unshare", "--mount", "/bin/sh", "-c", _ENTER, str(self.root), shell]

    def run(self, line: str, cwd: str = "/root", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a shell line as root, with nothing of this process's environment."""
        return subprocess.run(
            self.command(line, cwd),
            env=clean(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def ok(self, line: str, cwd: str = "/root", **variables: str) -> str:
        done = self.run(line, cwd, **variables)
        assert done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


def clean(variables: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **variables}


@contextlib.contextmanager
def bare_machine(folder: Path) -> Iterator[BareMachine]:
    """Unpack a root and make its network namespace; both are gone afterwards."""
    components.require_root()
    tar = root_tar()
    root = folder / "root"
    root.mkdir(mode=0o755)
    # In memory: its ten thousand files come and go many times, and a disk that others wait for takes a minute for each.
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", root], check=True)
    try:
        yield from _on(root, tar)
    finally:
        subprocess.run(["umount", "-l", root], check=True)


def _on(root: Path, tar: Path) -> Iterator[BareMachine]:
    subprocess.run(["tar", "-xpf", tar, "-C", root, "--numeric-owner"], check=True)
    namespace = f"airlift-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
        yield BareMachine(root, namespace)
    finally:
        subprocess.run(["ip", "netns", "delete", namespace], check=False)


def root_tar(packages: str = PACKAGES) -> Path:
    """Return the root as an archive, with these packages beside the essential ones."""
    program = components.require("mmdebstrap")
    sources = sorted(Path("/etc/apt").glob("sources.list.d/debian*")) or [Path("/etc/apt/sources.list")]
    said = "".join(path.read_text() for path in sources if path.is_file())
    if not said:
        components.missing("this machine's apt has no list of Debian's packages")
    key = hashlib.sha256(f"{SUITE} {packages} {said}".encode()).hexdigest()[:12]
    tar = _CACHE / f"bare-root-{key}.tar"
    if not tar.is_file():
        _CACHE.mkdir(exist_ok=True)
        part = tar.with_suffix(f".{os.getpid()}.tar")
        command = [program, "--quiet", "--variant=minbase", f"--include={packages}", SUITE, part, *sources]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            part.unlink(missing_ok=True)
            components.missing(f"mmdebstrap made no root: {done.stderr[-500:]}")
        part.rename(tar)
    return tar
