"""``airlift deploy``: what makes a cluster run the active drops."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import (
    console,
    deploy_files,
    deploy_node,
    deploy_rollback,
    deploy_running,
    deploy_status,
    environment,
    options,
)
from airlift.errors import UsageError
from airlift.site.config import load_site
from airlift.site.deploy import going_back, kubectl
from airlift.site.deploy import k3s as deployment
from airlift.site.deploy.prechecks import Role


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
@click.option("--kubeconfig", type=options.EXISTING, help=deploy_running.WHICH)
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
    kubeconfig: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make this machine a node of K3s that runs the active drops; with --root write a node's files only.

    Everything is checked before the first change. A second run changes nothing. Ends with 18 when pods keep what
    another drop had under a tag, and says what to type.
    """
    site = load_site(site_dir)
    if root is None:
        wish = deploy_node.wish(role, server, token_file, node_ip, cluster_init=cluster_init)
        if kubeconfig is not None:
            raise UsageError("--kubeconfig is for --root DIR; this machine asks its own K3s")
        deploy_node.make(site, wish, deploy_files.platform(wanted), prune=prune, dry_run=dry_run, as_json=as_json)
        if wish.role is Role.SERVER and not dry_run:
            deploy_running.compare(site, kubectl.of_node(environment.variables()))
        return
    if server or token_file or node_ip or cluster_init or prune or role != Role.SERVER:
        raise UsageError(
            "--root writes the files of the drops only; --role, --server, --token-file, --node-ip, --cluster-init and "
            "--prune are for the machine itself"
        )
    cluster = deploy_running.cluster_of(root, kubeconfig)
    with deploy_node.alone(root, dry_run=dry_run), deploy_node.unchanged(site, dry_run=dry_run):
        plan = deploy_files.plan(site, root, wanted)
        if not dry_run:
            deployment.write(plan, progress=console.progress())
            going_back.forget(site)
    deploy_files.answer(plan, {}, dry_run=dry_run, as_json=as_json)
    if cluster is not None and not dry_run:
        deploy_running.compare(site, cluster)


command.add_command(deploy_rollback.rollback)
command.add_command(deploy_status.status)
command.add_command(deploy_status.diff)
