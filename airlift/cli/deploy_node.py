"""``airlift deploy k3s`` without ``--root``: this machine becomes a node of K3s."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path

from airlift.cli import console, environment
from airlift.errors import UsageError
from airlift.oci import Platform
from airlift.site import drops, kept
from airlift.site.config import Site
from airlift.site.deploy import active, files, going_back, node, program, settings
from airlift.site.deploy.files import Action, PlannedFile
from airlift.site.deploy.k3s import Plan
from airlift.site.deploy.machine import LocalMachine
from airlift.site.deploy.node import NodePlan
from airlift.site.deploy.prechecks import Level, Role
from airlift.site.deploy.settings import Wish

READY_S = 300
_DONE = {Action.CREATE: "created", Action.REPLACE: "replaced", Action.UNCHANGED: "unchanged"}


def wish(role: str, server: str | None, token_file: Path | None, node_ip: str | None, *, cluster_init: bool) -> Wish:
    """Return what the options ask for.

    Raises:
        UsageError: there is no token in the file.
        StoreError: the file cannot be read.
    """
    token = None if token_file is None else settings.read_token(token_file)
    return Wish(Role(role), server, token, node_ip, cluster_init)


def alone(root: Path, *, dry_run: bool) -> AbstractContextManager[None]:
    """Keep other deployments away from a node's files; a dry run writes nothing and waits for nobody."""
    return nullcontext() if dry_run else files.alone(root, console.progress())


def unchanged(site: Site, *, dry_run: bool) -> AbstractContextManager[object]:
    """Keep the site as it is until what it deploys is written; a dry run waits for nobody.

    Raises:
        StoreError: the journal is older than the site, or cannot be opened.
    """
    if not dry_run:
        return kept.changing(site, "deploying", console.progress())
    with site.journal() as journal:
        kept.refuse_older_journal(site, journal)
    return nullcontext()


def make(site: Site, wanted: Wish, platform: Platform, *, prune: bool, dry_run: bool, as_json: bool) -> None:
    """Check this machine, make it the node that is wanted, and say what was done.

    Raises:
        UsageError: it is not run as root.
        AirliftError: see `airlift.site.deploy.node`.
    """
    settings.check(wanted)
    if os.geteuid() != 0 and not dry_run:
        raise UsageError("making this machine a node needs root", hint="use sudo, or write files only with --root DIR")
    progress = console.progress()
    machine = LocalMachine(environment.variables())
    with alone(machine.root, dry_run=dry_run), unchanged(site, dry_run=dry_run):
        # First, because without K3s in the drop there is no need to look at the rest.
        kubernetes = program.plan(machine.root, active.required_drops(site), platform, site.store)
        made = node.make_plan(
            machine,
            active.plan_for_site(
                site,
                root=machine.root,
                platform=platform,
                http=environment.http_settings(),
                progress=progress,
                environment=environment.variables(),
            ),
            kubernetes,
            wanted,
            now=environment.now(),
            not_before=_imported(site),
            kept=active.programs(site, platform),
            prune=prune,
        )
        if not dry_run:
            node.apply(made, machine, timeout=READY_S, clock=time.monotonic, sleep=time.sleep, progress=progress)
            going_back.forget(site)
    for note in made.plan.notes:
        console.say(f"note: {note}")
    if as_json:
        console.result_json({**made.to_json(), "dry_run": dry_run})
    else:
        console.answer("\n".join(node_lines(made, dry_run=dry_run)))


def _imported(site: Site) -> datetime | None:
    # Of a drop that a recovery found again no time is known.
    known = [drop.imported for drop in drops.list_drops(site) if drop.active and drop.imported]
    return max(map(datetime.fromisoformat, known), default=None)


def node_lines(made: NodePlan, *, dry_run: bool) -> list[str]:
    """Return for people what is to be done, or was, in the order in which it is."""
    lines = [f"{item.level.value} {item.check}: {item.message}" for item in made.findings if item.level is not Level.OK]
    verb = "run" if dry_run else "ran"
    lines += [f"{verb} {step} ({step.why})" for step in made.before]
    if made.copies:
        lines.append("copy the datastore" if dry_run else "copied the datastore")
    lines += file_lines((item for item in made.files if item not in made.manifests), dry_run=dry_run)
    lines += [f"{verb} {step} ({step.why})" for step in made.after]
    lines += file_lines(made.manifests, dry_run=dry_run)
    gone = "remove" if dry_run else "removed"
    for path in made.removal.manifests:
        lines += [*(f"{verb} {step} ({step.why})" for step in node.uninstall(path)), f"{gone} /{path}"]
    lines += [f"{gone} /{path}" for path in made.removal.rest]
    lines += [f"{verb} {step} ({step.why})" for step in made.forgets]
    lines += [f"{gone} /{path} (an earlier copy of the datastore)" for path in made.surplus if made.copies]
    lines += rest_lines(made.plan)
    if not made.is_changed:
        lines.append("nothing to change")
    return lines


def file_lines(planned: Iterable[PlannedFile], *, dry_run: bool) -> list[str]:
    """Return a line for each file, and in a dry run the text that it would get."""
    lines = []
    for item in planned:
        what = item.action.value if dry_run else _DONE[item.action]
        lines.append(
            f"{what} /{item.path} ({console.size(item.size)}, mode {item.mode:04o}, {item.shown_digest or 'secret'})"
        )
        if dry_run and item.text is not None and item.action is not Action.UNCHANGED:
            lines += [f"    {line}" for line in item.text.splitlines()]
    return lines


def plan_lines(plan: Plan, *, dry_run: bool) -> list[str]:
    """Return for people what is to be written, or was."""
    lines = [*file_lines(plan.files, dry_run=dry_run), *rest_lines(plan)]
    return lines if plan.changes else [*lines, "nothing to change"]


def rest_lines(plan: Plan) -> list[str]:
    """Return what earlier drops left, and what runs by which digest."""
    lines = [f"kept /{path} (of an earlier drop)" for path in plan.kept]
    return [*lines, *(f"image {name} is {digest}" for name, digest in plan.pins.items())]
