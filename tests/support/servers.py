"""Programs that listen: a port for one that has to be told it, and the time until it takes connections."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

_LOWEST, _HIGHEST = 10_000, 65_535
_PATIENCE_S = 60.0
_CLAIMS: list[socket.socket] = []
"""Held until this process ends."""


def free_port() -> int:
    """Return a port that nothing else takes until the server that is told it listens, nor while that starts again.

    It is outside of the range from which the kernel gives ports to clients and to servers that take any. Other test runs
    see it claimed by the name of a socket, which has no file and goes with this process.
    """
    choices = _choices()
    for port in random.sample(choices, len(choices)):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0airlift-test-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("", port))
        except OSError:
            claim.close()
            continue
        _CLAIMS.append(claim)
        return port
    raise AssertionError("no port is free")


@cache
def _choices() -> list[int]:
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    return [port for port in range(_LOWEST, _HIGHEST + 1) if not low <= port <= high] or list(range(low, high + 1))


@contextlib.contextmanager
def listening(
    command: Sequence[str | os.PathLike[str]], port: int, log: Path, *, address: str = "127.0.0.1"
) -> Iterator[None]:
    """Run a server until the block ends, from when it takes connections; what it says is added to `log`."""
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream)
    try:
        _wait((address, port), process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def wait_for(log: Path, pattern: str) -> re.Match[str]:
    """Wait until a server has said this."""
    ends = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends:
        if found := re.search(pattern, log.read_text()):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{pattern!r} was not said:\n{log.read_text()}")


def wait_until_closed(address: tuple[str, int]) -> None:
    """Wait until nothing takes connections any more."""
    ends = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends:
        # One that is waiting when the socket closes is reset.
        with contextlib.suppress(ConnectionResetError), socket.socket() as client:
            client.settimeout(30)
            if client.connect_ex(address) == errno.ECONNREFUSED:
                return
        time.sleep(0.05)
    raise AssertionError("it still listens")


def _wait(address: tuple[str, int], process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends:
        with contextlib.suppress(OSError), socket.create_connection(address, 1):
            return
        assert process.poll() is None, f"it ended at once: {log.read_text(errors='replace')}"
        time.sleep(0.02)
    raise AssertionError(f"it does not listen: {log.read_text(errors='replace')}")
