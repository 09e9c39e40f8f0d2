"""``airlift deploy``: what makes a cluster run the active drops."""

from __future__ import annotations

import platform as machine
from collections.abc import Sequence
from pathlib import Path

import click

from airlift.artifact import DropConfig
from airlift.canonical import JsonObject
from airlift.cli import console, deploy_node, deploy_status, environment, options
from airlift.errors import UsageError
from airlift.oci import Platform, parse_platform
from airlift.site import drops
from airlift.site.config import Site, load_site
from airlift.site.deploy import active, going_back
from airlift.site.deploy import k3s as deployment
from airlift.site.deploy.k3s import Plan
from airlift.site.deploy.prechecks import Role

_PROCESSORS = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@click.group()
def command() -> None:
    """Write what a cluster needs to run the active drops."""


@command.command()
@click.option("--site", "site_dir", type=options.FOLDER, required=True, help="The site.")
@click.option("--root", type=options.FOLDER, help="Write files only, below this; without it, this machine is a node.")
@click.option(
    "--role",
    type=click.Choice([item.value for item in Role]),
    default="server",
    show_default=True,
    help="What this machine is.",
)
@click.option("--server", help="URL of the server to join, such as https://10.0.0.2:6443.")
@click.option("--token-file", type=options.EXISTING, help="Its first line is the token to join with.")
@click.option("--node-ip", help="This machine's address in the cluster; default: that of the default route.")
@click.option("--cluster-init", is_flag=True, help="Start etcd on the first server, so that servers can join.")
@click.option("--prune", is_flag=True, help="Remove what earlier drops brought, releases with their data too.")
@click.option("--platform", "wanted", help="The node's platform, such as linux/arm64; default: this machine's.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print all that would be written and run.")
@options.as_json
def k3s(
    site_dir: Path,
    root: Path | None,
    role: str,
    server: str | None,
    token_file: Path | None,
    node_ip: str | None,
    cluster_init: bool,
    prune: bool,
    wanted: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make this machine a node of K3s that runs the active drops; with --root write a node's files only.

    Everything is checked before the first change. A second run changes nothing.
    """
    site = load_site(site_dir)
    if root is None:
        wish = deploy_node.wish(role, server, token_file, node_ip, cluster_init=cluster_init)
        deploy_node.make(site, wish, _platform(wanted), prune=prune, dry_run=dry_run, as_json=as_json)
        return
    if server or token_file or node_ip or cluster_init or prune or role != Role.SERVER:
        raise UsageError(
            "--root writes the files of the drops only; --role, --server, --token-file, --node-ip, --cluster-init and "
            "--prune are for the machine itself"
        )
    with deploy_node.alone(root, dry_run=dry_run), deploy_node.unchanged(site, dry_run=dry_run):
        plan = _plan(site, root, wanted)
        if not dry_run:
            deployment.write(plan, progress=console.progress())
            going_back.forget(site)
    _answer(plan, {}, dry_run=dry_run, as_json=as_json)


@command.command()
@click.option("--site", "site_dir", type=options.FOLDER, required=True, help="The site.")
@click.option("--root", type=options.FOLDER, required=True, help="What stands for / of the node.")
@click.option("--channel", help="Needed where the site has more than one.")
@click.option("--platform", "wanted", help="The node's platform, such as linux/arm64; default: this machine's.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print every file that would be written.")
@click.option("--json", "as_json", is_flag=True, help="Give the result as JSON on standard output.")
def rollback(site_dir: Path, root: Path, channel: str | None, wanted: str | None, dry_run: bool, as_json: bool) -> None:
    """Take the active drop and its releases back: clients and cluster get the kept drop before it.

    Everything is checked before the first name moves. Releases that only the newer drop has stay, and are listed.
    """
    site = load_site(site_dir)
    progress = console.progress()
    left: tuple[str, ...] = ()
    with deploy_node.alone(root, dry_run=dry_run):
        with deploy_node.unchanged(site, dry_run=dry_run):
            present, target = going_back.choose(site, channel)
            plan = _plan(site, root, wanted, active.drops_after(site, target))
            if not dry_run:
                going_back.note(site, present, target)
        if not dry_run:
            http = environment.http_settings()
            left = drops.activate(site, target.release, progress=progress, http=http).tags_left
            with deploy_node.unchanged(site, dry_run=False):
                going_back.write(site, target, plan, progress)
    if not as_json:
        verb = "would go" if dry_run else "went"
        console.answer(f"{verb} from {target.channel}/{present.sequence} back to {target.channel}/{target.sequence}")
    more = {"from": present.release, "to": target.release, "tags_left": list(left)}
    _answer(plan, more, dry_run=dry_run, as_json=as_json)


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
        console.answer("\n".join(deploy_node.plan_lines(plan, dry_run=dry_run)))


command.add_command(deploy_status.status)
command.add_command(deploy_status.diff)


def _platform(wanted: str | None) -> Platform:
    if wanted is None:
        return Platform("linux", _PROCESSORS.get(machine.machine(), machine.machine()))
    try:
        return parse_platform(wanted)
    except ValueError as error:
        raise UsageError(f"--platform: {error}") from None
