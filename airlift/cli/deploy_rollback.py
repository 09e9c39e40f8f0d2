"""``airlift deploy rollback``: a drop and its releases are taken back in one command."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, deploy_files, deploy_node, deploy_running, environment, options
from airlift.site import drops
from airlift.site.config import load_site
from airlift.site.deploy import active, going_back
from airlift.site.left_behind import Left


@click.command()
@click.option("--site", "site_dir", type=options.FOLDER, required=True, help="The site.")
@click.option("--root", type=options.FOLDER, required=True, help="What stands for / of the node.")
@click.option("--channel", help="Needed where the site has more than one.")
@click.option("--platform", "wanted", help="The node's platform, such as linux/arm64; default: this machine's.")
@click.option("--kubeconfig", type=options.EXISTING, help=deploy_running.WHICH)
@click.option("--dry-run", is_flag=True, help="Change nothing; print every file that would be written.")
@options.as_json
def rollback(
    site_dir: Path,
    root: Path,
    channel: str | None,
    wanted: str | None,
    kubeconfig: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take the active drop and its releases back: clients and cluster get the kept drop before it.

    Everything is checked before the first name moves. Releases that only the newer drop has stay, and are listed. Ends
    with 18 when pods keep what the newer drop had under a tag, and says what to type; it has gone back all the same.
    """
    site = load_site(site_dir)
    cluster = deploy_running.cluster_of(root, kubeconfig)
    progress = console.progress()
    left = Left()
    with deploy_node.alone(root, dry_run=dry_run):
        with deploy_node.unchanged(site, dry_run=dry_run):
            present, target = going_back.choose(site, channel)
            plan = deploy_files.plan(site, root, wanted, active.drops_after(site, target))
            if not dry_run:
                going_back.note(site, present, target)
        if not dry_run:
            http = environment.http_settings()
            left = drops.activate(site, target.release, progress=progress, http=http, now=environment.now()).left
            with deploy_node.unchanged(site, dry_run=False):
                going_back.write(site, target, plan, progress)
    if not as_json:
        verb = "would go" if dry_run else "went"
        console.answer(f"{verb} from {target.channel}/{present.sequence} back to {target.channel}/{target.sequence}")
    more = {"from": present.release, "to": target.release, **left.to_json()}
    deploy_files.answer(plan, more, dry_run=dry_run, as_json=as_json)
    if not dry_run:
        with going_back.ending(site):
            if cluster is not None:
                deploy_running.compare(site, cluster)
