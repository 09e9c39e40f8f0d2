"""``airlift deploy``: what makes a cluster run the active drops."""

from __future__ import annotations

import platform as machine
from collections.abc import Sequence
from pathlib import Path

import click

from airlift.artifact import DropConfig
from airlift.canonical import JsonObject
from airlift.cli import console, deploy_status, environment
from airlift.errors import UsageError
from airlift.oci import Platform, parse_platform
from airlift.site import drops
from airlift.site.config import Site, load_site
from airlift.site.deploy import active
from airlift.site.deploy import k3s as deployment
from airlift.site.deploy.files import Action
from airlift.site.deploy.k3s import Plan

_PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_DONE = {Action.CREATE: "created", Action.REPLACE: "replaced", Action.UNCHANGED: "unchanged"}


@click.group()
def command() -> None:
    """Write what a cluster needs to run the active drops."""


@command.command()
@click.option("--site", "site_dir", type=click.Path(path_type=Path, file_okay=False), required=True, help="The site.")
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), required=True, help="What stands for / of the node."
)
@click.option("--platform", "wanted", help="The node's platform, such as linux/arm64; default: this machine's.")
@click.option("--dry-run", is_flag=True, help="Write nothing; print every file that would be written.")
@click.option("--json", "as_json", is_flag=True, help="Give the result as JSON on standard output.")
def k3s(site_dir: Path, root: Path, wanted: str | None, dry_run: bool, as_json: bool) -> None:
    """Write the files of a K3s node: images, registries.yaml, charts, releases."""
    site = load_site(site_dir)
    plan = _plan(site, root, wanted)
    if not dry_run:
        deployment.write(plan, progress=console.progress())
    _answer(plan, {}, dry_run=dry_run, as_json=as_json)


@command.command()
@click.option("--site", "site_dir", type=click.Path(path_type=Path, file_okay=False), required=True, help="The site.")
@click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), required=True, help="What stands for / of the node."
)
@click.option("--channel", help="Needed where the site has more than one.")
@click.option("--platform", "wanted", help="The node's platform, such as linux/arm64; default: this machine's.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print every file that would be written.")
@click.option("--json", "as_json", is_flag=True, help="Give the result as JSON on standard output.")
def rollback(site_dir: Path, root: Path, channel: str | None, wanted: str | None, dry_run: bool, as_json: bool) -> None:
    """Take the active drop and its releases back: clients and cluster get the kept drop before it.

    Everything is checked before the first name moves. Releases that only the newer drop has stay, and are listed.
    """
    site = load_site(site_dir)
    present, target = drops.before(site, channel)
    plan = _plan(site, root, wanted, active.drops_after(site, present, target))
    if not dry_run:
        drops.activate(site, target.release, progress=console.progress(), http=environment.http_settings())
        deployment.write(plan, progress=console.progress())
    if not as_json:
        verb = "would go" if dry_run else "went"
        console.answer(f"{verb} from {target.channel}/{present.sequence} back to {target.channel}/{target.sequence}")
    _answer(plan, {"from": present.release, "to": target.release}, dry_run=dry_run, as_json=as_json)


def _plan(site: Site, root: Path, wanted: str | None, these: Sequence[DropConfig] | None = None) -> Plan:
    return active.plan_for_site(
        site,
        root=root,
        platform=_platform(wanted),
        http=environment.http_settings(),
        progress=console.progress(),
        environment=environment.variables(),
        architecture=_platform(None).architecture,
        drops=these,
    )


def _answer(plan: Plan, more: JsonObject, *, dry_run: bool, as_json: bool) -> None:
    for note in plan.notes:
        console.say(f"note: {note}")
    if as_json:
        console.result_json({**plan.to_json(), **more, "dry_run": dry_run})
    else:
        console.answer("\n".join(_lines(plan, dry_run=dry_run)))


command.add_command(deploy_status.status)
command.add_command(deploy_status.diff)


def _platform(wanted: str | None) -> Platform:
    if wanted is None:
        return Platform("linux", _PROCESSORS.get(machine.machine(), machine.machine()))
    try:
        return parse_platform(wanted)
    except ValueError as error:
        raise UsageError(f"--platform: {error}") from None


def _lines(plan: Plan, *, dry_run: bool) -> list[str]:
    lines = []
    for item in plan.files:
        what = item.action.value if dry_run else _DONE[item.action]
        lines.append(f"{what} /{item.path} ({console.size(item.size)}, mode {item.mode:04o}, {item.digest})")
        if dry_run and item.text is not None and item.action is not Action.UNCHANGED:
            lines += [f"    {line}" for line in item.text.splitlines()]
    lines += [f"kept /{path} (of an earlier drop)" for path in plan.kept]
    lines += [f"image {name} is {digest}" for name, digest in plan.pins.items()]
    if not plan.changes:
        lines.append("nothing to change")
    return lines
