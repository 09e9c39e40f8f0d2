"""Runs a K3s put together from its parts: ``python -m tests.support.k3s HOME [PARENT]``, from this repository's directory.

With a third argument, the HOME of a server that runs, it is a machine that can join it, on which K3s does not run yet.

It prints the variables of the tests of a real node when the node is ready. SIGHUP restarts K3s, SIGUSR1 stops it, as
``systemctl`` does. SIGTERM ends it all, and so does the end of the process PARENT (what started it). What it does is in
``HOME/state``: ``starting``, ``ready`` or ``stopped``, with the count of the signals that it has followed.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path

from airlift import fs
from tests.support.k3s.joining import Joining, joining
from tests.support.k3s.server import Server, k3s
from tests.support.real_node import VARIABLES

_PASS_S = 1.0


class _EndError(Exception):
    pass


class _Unit:
    """What systemd is to a K3s."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._asked: list[int] = []
        self._done = 0
        self.say("starting")

    def say(self, state: str) -> None:
        fs.write(self._place, f"{state} {self._done}\n".encode())

    def hear(self, number: int, _: object) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            raise _EndError
        self._asked.append(number)

    def follow(self, server: Server | Joining) -> None:
        while self._done < len(self._asked):
            number = self._asked[self._done]
            self._done += 1
            server.stop()
            self.say("starting" if number == signal.SIGHUP else "stopped")
            if number == signal.SIGHUP:
                server.start()
                self.say("ready")


def main(home: Path, parent: int, server: Path | None) -> None:
    """Run until SIGTERM."""
    unit = _Unit(home / "state")
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, unit.hear)
    try:
        if server is not None:
            with joining(home, server) as second:
                unit.say("stopped")
                _run(unit, second, parent)
            return
        with k3s(home) as first:
            given = (first.maker.identities.outside, first.agent.root, f"kill -HUP {os.getpid()}")
            for name, value in zip(VARIABLES, given, strict=True):
                print(f"{name}={shlex.quote(str(value))}", flush=True)
            unit.say("ready")
            _run(unit, first, parent)
    except _EndError:
        return


def _run(unit: _Unit, node: Server | Joining, parent: int) -> None:
    # What started it may have been killed, and nobody else removes namespace, mounts and processes.
    while os.getppid() == parent:
        unit.follow(node)
        if node.parts:
            node.turn()
            node.refuse_ended()
        for line in node.said:
            print(line, file=sys.stderr, flush=True)
        node.said.clear()
        time.sleep(_PASS_S)


if __name__ == "__main__":
    _, own, *more = sys.argv
    main(Path(own), int(more[0]) if more else os.getppid(), Path(more[1]) if more[1:] else None)
