"""Whether the drop's K3s may follow the one that is there: Kubernetes's policy on versions, before anything is changed.

* A server goes up one minor version at a time; an older one cannot read what a newer one wrote into the datastore.
* An agent is never newer than its server, and at most three minor versions older.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from airlift.artifact import DropConfig
from airlift.errors import DeployError, StoreError
from airlift.oci import Platform
from airlift.site.deploy import k3s_version, kubectl, program
from airlift.site.deploy.files import Action
from airlift.site.deploy.k3s_version import Version
from airlift.site.deploy.machine import Machine
from airlift.site.deploy.objects import at
from airlift.site.deploy.prechecks import Finding, Level, Role
from airlift.site.deploy.program import BINARY, Program
from airlift.store import Store

_CHECK: Final = "version"
_MOST_BEHIND: Final = 3
_ASK_S: Final = 30
_GOING_BACK: Final = 'docs/deploy-k3s.md, "Back to an older K3s"'
_STAY: Final = "to keep the K3s that is here, write the rest of the drop with: airlift deploy k3s --root /"


def look(machine: Machine, role: Role, kubernetes: Program, noted: object, *, is_running: bool) -> tuple[Finding, ...]:
    """Return what was found about the versions.

    Args:
        machine: that gets the drop's K3s.
        role: what it is to be.
        kubernetes: the drop's.
        noted: the version that the note of the last start has, if there is one.
        is_running: whether K3s runs, so that its cluster can be asked.

    Raises:
        DeployError: a symbolic link leads out of the machine's root.
        StoreError: something cannot be read.
    """
    runs = _version_of(machine, role) if is_running else None
    if kubernetes.binary.action is Action.UNCHANGED:
        # It is there already, by this command or by a person who stopped K3s and put the datastore back.
        if runs is None or kubernetes.version is None or role is Role.AGENT:
            return ()
        step = _server_step(runs, kubernetes.version)
        return (step,) if step.level is Level.REFUSE else ()
    # A binary that was put there and not started yet says nothing about the datastore: what runs comes first.
    own = runs if role is Role.SERVER else None
    here = own or k3s_version.of_file(machine.root, BINARY) or Version.parse(noted)
    shipped, is_first = kubernetes.version, here is None and kubernetes.binary.action is Action.CREATE
    if is_first and role is Role.SERVER:
        return ()
    if shipped is None or (here is None and role is Role.SERVER):
        what = "the drop's K3s" if shipped is None else "the K3s that is here"
        hint = f"compare with: /{BINARY} --version"
        return (Finding(_CHECK, Level.NOTE, f"{what} does not say its version, so it was not compared", hint),)
    if role is Role.AGENT:
        return (_agent(shipped, runs),)
    steps = () if here is None else (_server_step(here, shipped),)
    return (*steps, *(_behind(machine, shipped) if is_running else ()))


def _server_step(here: Version, shipped: Version) -> Finding:
    step = shipped.minors_after(here)
    if step < 0:
        message = f"{here} wrote the datastore of this machine, and the drop's {shipped} cannot read it"
        hint = f"{_STAY}\nto go back, the datastore has to go back, too: {_GOING_BACK}"
        return Finding(_CHECK, Level.REFUSE, message, hint)
    if step > 1:
        message = f"{here} is on this machine and the drop has {shipped}: a server goes up one minor version at a time"
        hint = f"first deploy a drop with K3s v{here.major}.{here.minor + 1}; {_STAY}"
        return Finding(_CHECK, Level.REFUSE, message, hint)
    if step == 0 and shipped.patch < here.patch:
        message = f"{here} is on this machine and the drop has {shipped}, an older one of the same minor version"
        return Finding(_CHECK, Level.NOTE, message)
    return Finding(_CHECK, Level.OK, f"{here}, then {shipped}")


def _agent(shipped: Version, server: Version | None) -> Finding:
    if server is None:
        message = f"the drop has {shipped}; its server was not asked, and an agent must not be newer than its server"
        return Finding(_CHECK, Level.NOTE, message, "upgrade the servers first")
    behind = server.minors_after(shipped)
    if behind < 0:
        message = f"the drop has {shipped} and the server runs {server}: an agent must not be newer than its server"
        return Finding(_CHECK, Level.REFUSE, message, "deploy this drop on the servers first")
    if behind > _MOST_BEHIND:
        message = f"the drop has {shipped} and the server runs {server}: an agent may be three minor versions older"
        return Finding(_CHECK, Level.REFUSE, message, f"activate a drop with K3s {server.line}, then deploy it")
    return Finding(_CHECK, Level.OK, f"{shipped}, of a server with {server}")


def _version_of(machine: Machine, role: Role) -> Version | None:
    """Return what runs as the server: this machine's own for a server, else the one that an agent has."""
    return Version.parse(at(_ask(machine, "/version", is_agent=role is Role.AGENT), "gitVersion"))


def _behind(machine: Machine, shipped: Version) -> Iterator[Finding]:
    items = at(_ask(machine, "/api/v1/nodes", is_agent=False), "items")
    for item in items if isinstance(items, list) else ():
        node = Version.parse(at(item, "status", "nodeInfo", "kubeletVersion"))
        if node is not None and shipped.minors_after(node) > _MOST_BEHIND:
            name = at(item, "metadata", "name")
            message = f"node {name} runs {node}, more than three minor versions older than the drop's {shipped}"
            yield Finding(_CHECK, Level.REFUSE, message, "first deploy the K3s that the server has on that node")


def _ask(machine: Machine, path: str, *, is_agent: bool) -> Any:
    try:
        done = machine.run(kubectl.ask(path, is_agent=is_agent), {}, timeout=_ASK_S)
        return json.loads(done.output) if done.code == 0 else None
    except (DeployError, StoreError, ValueError, RecursionError):
        return None  # a cluster that does not answer is no reason to leave a node without its K3s


def stays(root: Path, drops: Sequence[DropConfig], platform: Platform, store: Store) -> str | None:
    """Say that the K3s of a root, where files only are written, stays though drops have another one.

    Args:
        root: what stands for ``/`` of a node.
        drops: what is deployed.
        platform: the node's.
        store: the site's.

    Returns:
        What to say, or None when there is nothing to say.

    Raises:
        IntegrityError: the drops' K3s is damaged.
        StoreError: something cannot be read.
    """
    try:
        found = program.plan_binary(root, drops, platform, store)
    except DeployError as error:
        return error.message
    if found is None or found[0].action is not Action.REPLACE:
        return None
    here, shipped = k3s_version.of_file(root, BINARY), found[1]
    text = f"K3s stays as it is ({here or 'of unknown version'}); the drop has {shipped or 'another one'}, which"
    step = None if here is None or shipped is None else _server_step(here, shipped)
    if step is None or step.level is not Level.REFUSE:
        return f"{text} `airlift deploy k3s` on the node itself installs"
    return f"{text} `airlift deploy k3s` on the node itself refuses: {step.message}; see {_GOING_BACK}"
