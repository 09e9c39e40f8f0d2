"""What the verbs share that write a node's files below ``--root``."""

from __future__ import annotations

import platform as machine
from collections.abc import Sequence
from pathlib import Path

from airlift.artifact import DropConfig
from airlift.canonical import JsonObject
from airlift.cli import console, deploy_node, environment
from airlift.errors import UsageError
from airlift.oci import Platform, parse_platform
from airlift.site.config import Site
from airlift.site.deploy import active
from airlift.site.deploy.k3s import Plan

_PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def plan(site: Site, root: Path, wanted: str | None, these: Sequence[DropConfig] | None = None) -> Plan:
    """Plan a node's files below a root, for the active drops or for these.

    Raises:
        AirliftError: see `active.plan_for_site`.
    """
    node = platform(wanted)
    made = active.plan_for_site(
        site,
        root=root,
        platform=node,
        http=environment.http_settings(),
        progress=console.progress(),
        environment=environment.variables(),
        architecture=platform(None).architecture,
        drops=these,
    )
    return active.with_words(made, site, node, these)


def answer(plan: Plan, more: JsonObject, *, dry_run: bool, as_json: bool) -> None:
    """Say what is to be written below a root, or was."""
    for note in plan.notes:
        console.say(f"note: {note}")
    if as_json:
        console.result_json({**plan.to_json(), **more, "dry_run": dry_run})
    else:
        console.answer("\n".join(deploy_node.plan_lines(plan, dry_run=dry_run)))


def platform(wanted: str | None) -> Platform:
    """Return the node's platform; None is this machine's.

    Raises:
        UsageError: it is none.
    """
    if wanted is None:
        return Platform("linux", _PROCESSORS.get(machine.machine(), machine.machine()))
    try:
        return parse_platform(wanted)
    except ValueError as error:
        raise UsageError(f"--platform: {error}") from None
