"""A machine becomes a node of K3s, or one of a later drop: planned and checked whole, then done step by step.

* Nothing is changed before every check has passed: images, digests, disk, ports, clock.
* A note says what K3s was last started with, and whether the node was ready then. So a second run does nothing, a run
  that was killed anywhere is finished by the next one, and one that waited in vain goes on waiting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Final

from airlift import canonical, fs, limits
from airlift.canonical import JsonObject
from airlift.digest import Digest
from airlift.errors import DeployError, StoreError
from airlift.progress import Progress
from airlift.site.deploy import (
    datastore,
    files,
    k3s,
    kubectl,
    node_name,
    prechecks,
    program,
    ready,
    removal,
    settings,
    skew,
)
from airlift.site.deploy.files import Action, PlannedFile
from airlift.site.deploy.helmchart import MANIFESTS, PREFIX, SYSTEM
from airlift.site.deploy.k3s import Plan
from airlift.site.deploy.machine import LateError, Machine
from airlift.site.deploy.prechecks import Finding, Role
from airlift.site.deploy.program import Program
from airlift.site.deploy.registries import PATH as REGISTRIES
from airlift.site.deploy.removal import Removal
from airlift.site.deploy.settings import Wish

NOTE: Final = PurePosixPath("var/lib/rancher/k3s/airlift-node.json")
SERVER_ONLY: Final = PurePosixPath("var/lib/rancher/k3s/server")
_INSTALL_S: Final = 600
_COMMAND_S: Final = 300
_ASK_S: Final = 30
_READY: Final = "ready"
_STARTS: Final = (b"activating", b"reloading")
_SURPLUS: Final = "newer ones are there, and no drop of the site needs it"
_LOOK: Final = "journalctl -u k3s (or k3s-agent) says more; run the same command again when it is mended"


@dataclass(frozen=True, slots=True)
class Step:
    """A command that is run on the machine.

    Attributes:
        command: program and arguments.
        environment: what is added to its environment.
        why: for a person.
    """

    command: tuple[str, ...]
    why: str
    environment: Mapping[str, str]

    def __str__(self) -> str:
        return " ".join([*(f"{key}={value}" for key, value in self.environment.items()), *self.command])


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What is to be done to a machine.

    Attributes:
        plan: images, registries, charts and releases.
        program: K3s.
        settings: its settings.
        wish: what the machine is to be.
        findings: what was looked at.
        before: commands that are run before the first file is written.
        copies: whether the SQLite datastore is copied after `before`.
        after: commands that are run after the last file was written.
        removal: what earlier drops brought and goes when the node is ready.
        surplus: copies of the datastore that go then, because newer ones are there.
        started_with: what the note will say.
        waits: whether K3s was started with it by a run that did not see the node ready.
    """

    plan: Plan
    program: Program
    settings: tuple[PlannedFile, ...]
    wish: Wish
    findings: tuple[Finding, ...]
    before: tuple[Step, ...]
    copies: bool
    after: tuple[Step, ...]
    removal: Removal
    started_with: JsonObject
    surplus: tuple[PurePosixPath, ...] = ()
    waits: bool = False

    @property
    def files(self) -> tuple[PlannedFile, ...]:
        """Every file, in the order in which they are written; the binary just before the releases."""
        return (*self.settings, *self.program.files, *self.plan.files)

    @property
    def manifests(self) -> tuple[PlannedFile, ...]:
        """The releases: they are written when the node is ready."""
        return tuple(item for item in self.files if item.path.parent == MANIFESTS)

    @property
    def uninstalls(self) -> tuple[Step, ...]:
        """The commands that take releases of earlier drops out of the cluster."""
        return tuple(step for path in self.removal.manifests for step in uninstall(path))

    @property
    def forgets(self) -> tuple[Step, ...]:
        """The commands that remove snapshots of etcd: K3s keeps a list of them."""
        command = (f"/{program.BINARY}", "etcd-snapshot", "delete")
        return () if self.copies else tuple(Step((*command, item.name), _SURPLUS, {}) for item in self.surplus)

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to do."""
        return bool(
            self.waits
            or self.before
            or self.after
            or self.removal.files
            or any(item.action is not Action.UNCHANGED for item in self.files)
        )

    def to_json(self) -> JsonObject:
        """Return what ``--json`` says."""
        whole = k3s.Plan(
            self.plan.root, self.files, self.plan.kept, self.plan.pins, self.plan.notes, self.plan.restart
        ).to_json()
        return {
            **whole,
            "changed": self.is_changed,
            "restart": False,
            "role": self.wish.role.value,
            "checks": [item.to_json() for item in self.findings],
            "before": [str(step) for step in self.before],
            "copies_datastore": self.copies,
            "after": [str(step) for step in (*self.after, *self.uninstalls, *self.forgets)],
            "removed": [f"/{path}" for path in (*self.removal.files, *self.surplus)],
        }


def uninstall(manifest: PurePosixPath) -> tuple[Step, ...]:
    """Return the commands that take the release of a manifest out of the cluster."""
    name = removal.release_of(manifest)
    return (
        Step(kubectl.delete(SYSTEM, "helmchart.helm.cattle.io", name), "no active drop deploys it", {}),
        # K3s skips a manifest whose digest its AddOn still has, also when it comes back with a later drop.
        Step(kubectl.delete(SYSTEM, "addon.k3s.cattle.io", f"{PREFIX}{name}"), "so that it can be deployed again", {}),
    )


def make_plan(
    machine: Machine,
    plan: Plan,
    kubernetes: Program,
    wish: Wish,
    *,
    now: datetime,
    not_before: datetime | None,
    kept: Iterable[Digest] = (),
    prune: bool = False,
) -> NodePlan:
    """Check the machine and say what would be done; nothing is.

    Args:
        machine: which.
        plan: the files of the active drops for it.
        kubernetes: K3s for it.
        wish: what it is to be.
        now: the machine's time.
        not_before: a time that has passed for certain, or None.
        kept: the K3s of every drop that the site can go back to.
        prune: whether what earlier drops brought goes.

    Raises:
        UsageError: the wish contradicts itself.
        DeployError: the machine cannot become such a node, or a file of others is in the way.
        StoreError: a disk has no room, or cannot be read.
    """
    settings.check(wish)
    root = machine.root
    is_running = _is_running(machine, wish)
    last = _last(machine)
    findings = (
        *prechecks.look(root, wish.role, is_running=is_running, has_etcd=wish.has_etcd, now=now, not_before=not_before),
        node_name.look(root),
        *skew.look(machine, wish.role, kubernetes, last.get("version"), is_running=is_running),
    )
    prechecks.refuse(findings)
    own = settings.plan(root, wish, route=not prechecks.has_default_route(root))
    here = _for_role(plan, wish.role)
    wanted = _started_with(wish, kubernetes, own, here)
    starts = not is_running or any(last.get(key) != value for key, value in wanted.items() if key != "version")
    before = (
        _snapshot(machine, wish, kubernetes, is_running=is_running) if starts and _is_other(last, kubernetes) else ()
    )
    copies = any(step.command[:2] == ("systemctl", "stop") for step in before)
    written = [item for item in (*own, *kubernetes.files, *here.files) if item.action is not Action.UNCHANGED]
    copied = [(datastore.FOLDER / "copy", datastore.size(root))] if before else []
    files.check_space(root, [*files.sizes(written), *copied])
    after = _start(wish, kubernetes, own) if starts else ()
    gone = Removal()
    if prune:
        planned = (*kubernetes.files, *here.files)
        gone = removal.plan(root, planned, here.kept, has_cluster=wish.role is Role.SERVER)
        here = replace(here, kept=tuple(path for path in here.kept if path not in gone.files))
    waits = not starts and last.get(_READY) is False
    surplus = datastore.surplus(root, kept) if before else ()
    return NodePlan(here, kubernetes, own, wish, findings, before, copies, after, gone, wanted, surplus, waits)


def _is_running(machine: Machine, wish: Wish) -> bool:
    """Say whether K3s runs, or is about to: it has its ports by then."""
    state = machine.run(["systemctl", "is-active", wish.unit], {}, timeout=_ASK_S)
    if state.code == 0 or state.output.strip() not in _STARTS:
        return state.code == 0
    # One that ends at once is about to be started again, too, and perhaps because others have its ports.
    inner = machine.run(["systemctl", "show", "--property=SubState", "--value", wish.unit], {}, timeout=_ASK_S)
    return inner.output.strip() != b"auto-restart"


def _for_role(plan: Plan, role: Role) -> Plan:
    # What a person has to do after files were written, is done here.
    notes = tuple(note for note in plan.notes if note not in k3s.FOR_WRITTEN_FILES)
    if role is Role.SERVER:
        return replace(plan, notes=notes)
    # An agent has no API server: releases are a server's.
    return replace(
        plan,
        files=tuple(item for item in plan.files if SERVER_ONLY not in item.path.parents),
        kept=tuple(path for path in plan.kept if SERVER_ONLY not in path.parents),
        notes=(),
    )


def _started_with(wish: Wish, kubernetes: Program, own: Sequence[PlannedFile], plan: Plan) -> JsonObject:
    read_at_start = {f"/{item.path}": item.digest for item in (*own, *plan.files) if _is_read_at_start(item)}
    version = None if kubernetes.version is None else kubernetes.version.text
    return {
        "role": wish.role.value,
        "binary": kubernetes.binary.digest,
        "version": version,
        "files": read_at_start,
    }


def _is_read_at_start(item: PlannedFile) -> bool:
    return item.path in (settings.CONFIG, settings.TOKEN, REGISTRIES) or item.path.suffix == ".pem"


def _last(machine: Machine) -> JsonObject:
    place = files.locate(machine.root, NOTE)
    if not place.is_file():
        return {}
    try:
        value = json.loads(fs.read_bounded(place, limits.DOCUMENT))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_other(last: JsonObject, kubernetes: Program) -> bool:
    return kubernetes.binary.action is Action.REPLACE or last.get("binary") not in (None, kubernetes.binary.digest)


def _snapshot(machine: Machine, wish: Wish, kubernetes: Program, *, is_running: bool) -> tuple[Step, ...]:
    if wish.role is Role.AGENT:
        return ()
    name = datastore.name(kubernetes.binary.digest)
    if datastore.has_sqlite(machine.root):
        return (Step(("systemctl", "stop", wish.unit), "so that the datastore can be copied", {}),)
    if datastore.has_etcd(machine.root) and is_running:
        save = (f"/{program.BINARY}", "etcd-snapshot", "save", "--name", name)
        return (Step(save, "before another K3s opens the datastore", {}),)
    if datastore.has_etcd(machine.root):
        raise DeployError(
            "another K3s is to be installed, and no snapshot of etcd can be made, because K3s does not run",
            hint=f"systemctl start {wish.unit}, then run the same command again",
        )
    return ()


def _start(wish: Wish, kubernetes: Program, own: Sequence[PlannedFile]) -> tuple[Step, ...]:
    steps = []
    if any(item.path == settings.ROUTE_UNIT for item in own):
        steps.append(Step(("systemctl", "daemon-reload"), "to see the route's unit", {}))
        enable = ("systemctl", "enable", "--now", settings.ROUTE_UNIT.name)
        steps.append(Step(enable, "K3s finds its address by the default route", {}))
    environment = {
        # The script then compares no digests: that was done here.
        "INSTALL_K3S_SKIP_DOWNLOAD": "true",
        "INSTALL_K3S_SKIP_SELINUX_RPM": "true",
        "INSTALL_K3S_EXEC": wish.role.value,
        # By itself it starts nothing when only a settings file changed, or when somebody stopped K3s.
        "INSTALL_K3S_FORCE_RESTART": "true",
    }
    install = ("/bin/sh", f"/{kubernetes.script.path}")
    return (*steps, Step(install, "makes the unit and starts K3s", environment))


def apply(
    made: NodePlan,
    machine: Machine,
    *,
    timeout: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    progress: Progress,
) -> None:
    """Do it, and wait until the node is ready.

    May be repeated after a crash; what is done already is left as it is.

    Args:
        made: the plan.
        machine: the machine that it was made for.
        timeout: how many seconds the node has to become ready.
        clock: seconds that only grow.
        sleep: waits.
        progress: listener.

    Raises:
        DeployError: a command fails, or the node does not become ready.
        IntegrityError, StoreError, FetchError: a file cannot be written as planned.
    """
    if not made.is_changed:
        return
    root = machine.root
    for step in made.before:
        _run(machine, step, progress, timeout=_COMMAND_S)
    if made.copies:
        copy = _copy(made, root)
        progress.note(f"the datastore was copied to {copy}")
    files.remove_parts_of(root, (*made.settings, *made.program.files))
    first = tuple(item for item in made.files if item not in made.manifests)
    k3s.write(Plan(root, first, (), {}, (), restart=False), progress=progress)
    for step in made.after:
        _run(machine, step, progress, timeout=_INSTALL_S)
    _note(made, root, is_ready=False)
    ready.wait(machine, made.wish, timeout=timeout, clock=clock, sleep=sleep, progress=progress)
    # Not before: K3s would start an upgrade just when it is restarted, and an aborted one waits for a person.
    k3s.write(Plan(root, made.manifests, (), {}, (), restart=False), progress=progress)
    for path in made.removal.manifests:
        removal.hide(root, path)
        for step in uninstall(path):
            _run(machine, step, progress, timeout=_COMMAND_S)
        removal.remove(root, (path, removal.skip_of(path)))
    removal.remove(root, made.removal.rest)
    _note(made, root, is_ready=True)
    if made.copies:
        datastore.remove(root, made.surplus)
    for step in made.forgets:
        try:
            _run(machine, step, progress, timeout=_COMMAND_S)
        except DeployError as error:
            progress.note(error.message)  # one more snapshot than there need be is no reason to say that it failed


def _note(made: NodePlan, root: Path, *, is_ready: bool) -> None:
    files.make_directories(root, NOTE.parent)
    fs.write(files.locate(root, NOTE), canonical.encode({**made.started_with, _READY: is_ready}), mode=0o600)


def _copy(made: NodePlan, root: Path) -> Path:
    try:
        return datastore.copy_sqlite(root, made.program.binary.digest)
    except StoreError as error:
        stopped = f"K3s is stopped meanwhile, and unchanged: systemctl start {made.wish.unit} lets it go on"
        error.hint = stopped if error.hint is None else f"{error.hint}\n{stopped}"
        raise


def _run(machine: Machine, step: Step, progress: Progress, *, timeout: float) -> None:
    progress.note(f"{step}: {step.why}")
    try:
        done = machine.run(step.command, step.environment, timeout=timeout)
    except LateError as error:
        error.hint = _LOOK
        raise
    if done.code:
        said = " ".join(done.said.split())[-1000:] or done.output[-1000:].decode("utf-8", "replace") or "without a word"
        raise DeployError(
            f"{step} ended with {done.code}: {said}",
            hint=_LOOK,
        )
