"""``airlift drops``: what a site has, and which of it clients see."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, drops_prune, drops_show, environment, options
from airlift.cli.drop_lines import line, tell
from airlift.site import drops, kept
from airlift.site.config import Site, load_site
from airlift.site.drops import Activated


@click.group()
def command() -> None:
    """List a site's drops, and choose which one clients see."""


@command.command("list")
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@options.as_json
def list_(folder: Path, as_json: bool) -> None:
    """List the drops by channel and sequence; * marks those that clients see."""
    site = load_site(folder)
    unknown = kept.warn_of_older_journal(site, console.progress())
    found = drops.list_drops(site)
    if as_json:
        listed = [drop.to_json() for drop in found]
        console.result_json({"drops": listed, "unknown_to_journal": [kept.told(release) for release in unknown]})
    else:
        tell(found)


@command.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.argument("release")
@options.as_json
def activate(folder: Path, release: str, as_json: bool) -> None:
    """Let clients see the names of RELEASE: its digest, the beginning of that, or CHANNEL/SEQUENCE.

    Digests of the other drops stay served.
    """
    site = load_site(folder)
    done = drops.activate(
        site, release, progress=console.progress(), http=environment.http_settings(), now=environment.now()
    )
    _report(site, done, as_json=as_json)


@command.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--channel", help="Needed where the site has more than one.")
@options.as_json
def rollback(folder: Path, channel: str | None, as_json: bool) -> None:
    """Take the active drop back: clients see the kept drop before it."""
    site = load_site(folder)
    done = drops.rollback(
        site, channel, progress=console.progress(), http=environment.http_settings(), now=environment.now()
    )
    _report(site, done, as_json=as_json)


@command.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.argument("channel")
@options.as_json
def deactivate(folder: Path, channel: str, as_json: bool) -> None:
    """Let clients see nothing of CHANNEL, until one of its drops is activated or imported.

    Digests of its drops stay served.
    """
    site = load_site(folder)
    done = drops.deactivate(
        site, channel, progress=console.progress(), http=environment.http_settings(), now=environment.now()
    )
    _report(site, done, as_json=as_json)
    if not as_json:
        console.answer(f"clients see no drop of channel {channel} now; airlift drops activate brings one back")


def _report(site: Site, done: Activated, *, as_json: bool) -> None:
    if as_json:
        listed = [item.to_json() for item in drops.list_drops(site)]
        console.result_json({"drops": listed, **done.left.to_json()})
    else:
        console.answer(line(done.drop))


for _one in (drops_prune.prune, drops_show.show, drops_show.sbom, drops_show.diff):
    command.add_command(_one)
