"""A docker daemon of our own, on a private socket, for tests of `docker-daemon:` and for testcontainers.

It shares nothing with a daemon that may run on the machine: its data, its containerd and its socket are in a directory
of the test run, and it neither touches iptables nor makes a bridge.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker

from tests import components
from tests.support.mounts import unmount_below


@dataclass(frozen=True)
class Dockerd:
    """A running daemon."""

    host: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a client has to have in its environment."""
        return {
            "DOCKER_HOST": self.host,
            # Without a registry there is no reaper image, and the daemon ends with the tests anyway.
            "TESTCONTAINERS_RYUK_DISABLED": "true",
            # In a container testcontainers would guess a gateway's address.
            "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
            "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
        }

    def client(self) -> docker.DockerClient:
        """Return a client of docker's own SDK."""
        return docker.DockerClient(base_url=self.host, timeout=60)


@contextlib.contextmanager
def running_dockerd() -> Iterator[Dockerd]:
    """Start a daemon, and end it with all that it started."""
    components.require_root()
    for program in ("dockerd", "containerd", "runc"):
        components.require(program)
    # Not pytest's tmp_path: a socket's path may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="airlift-dockerd-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        log = folder / "log"
        (folder / "daemon.json").write_text("{}")
        # Overlay on overlay is not possible everywhere; vfs always is.
        arguments = [
            "dockerd",
            f"--host=unix://{folder}/docker.sock",
            f"--data-root={folder}/data",
            f"--exec-root={folder}/exec",
            f"--pidfile={folder}/pid",
            "--storage-driver=vfs",
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
            "--ip-forward=false",
            f"--config-file={folder}/daemon.json",
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PATH": components.search_path()},
                start_new_session=True,
            )
        try:
            daemon = Dockerd(f"unix://{folder}/docker.sock", log)
            _wait(daemon, process)
            yield daemon
        finally:
            _stop(process)
            # It keeps a mount for the network namespace of containers that ran on the host's network.
            unmount_below(folder)


def _wait(daemon: Dockerd, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            break
        # Not with docker's SDK: a connection that is refused leaves a socket open there.
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(5)
            probe.connect(daemon.host.removeprefix("unix://"))
            probe.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            if probe.recv(64).split(b" ")[1:2] == [b"200"]:
                return
        time.sleep(0.1)
    components.missing("dockerd does not start here: " + daemon.log.read_text(errors="replace")[-500:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
