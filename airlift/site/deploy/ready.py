"""Waiting until a machine is a node that is ready, whatever its API server does meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from airlift.errors import DeployError
from airlift.progress import Progress
from airlift.site.deploy import kubectl, node_name
from airlift.site.deploy.files import locate
from airlift.site.deploy.machine import LateError, Machine
from airlift.site.deploy.prechecks import Role
from airlift.site.deploy.settings import Wish

_ASK_S: Final = 30
_INTERVAL_S: Final = 2.0


def wait(
    machine: Machine,
    wish: Wish,
    *,
    timeout: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    progress: Progress,
) -> None:
    """Wait until the cluster says that the node is ready.

    Args:
        machine: which.
        wish: what it is.
        timeout: how many seconds it has.
        clock: seconds that only grow.
        sleep: waits.
        progress: listener.

    Raises:
        DeployError: it does not become ready in time, or a settings file is not YAML.
        StoreError: a file cannot be read.
    """
    end = clock() + timeout
    told: str | None = ""
    while True:
        # Not before: K3s draws a part of it when it is started for the first time, where it is told to.
        name = node_name.find(machine.root)
        if name != told:
            told = name
            progress.note(f"waiting for node {name or '(K3s gives it a name)'} to be ready")
        is_ready, said = (False, "") if name is None else _ask(machine, wish, name)
        if is_ready:
            progress.note(f"node {name} is ready")
            return
        if clock() >= end:
            raise DeployError(
                f"node {name or 'without a name'} is not ready after {timeout:.0f} s" + (f": {said}" if said else ""),
                hint=f"journalctl -u {wish.unit} says why; everything is written, the same command goes on waiting",
            )
        sleep(_INTERVAL_S)


def _ask(machine: Machine, wish: Wish, name: str) -> tuple[bool, str]:
    if wish.role is Role.AGENT and not locate(machine.root, kubectl.OF_AGENT).is_file():
        return False, f"{wish.server} has not taken it; it may be out of reach, or the token is another"
    try:
        done = machine.run(kubectl.ask_for_node(name, is_agent=wish.role is Role.AGENT), {}, timeout=_ASK_S)
    except LateError as error:
        # An API server that starts may take a question and not answer it.
        return False, error.message
    return done.code == 0 and _is_ready(done.output), " ".join(done.said.split())[-500:]


def _is_ready(data: bytes) -> bool:
    try:
        status = json.loads(data)["status"]["conditions"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    return any(item.get("type") == "Ready" and item.get("status") == "True" for item in status)
