"""``airlift drops``: what a site has, and which of it clients see."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, environment, options
from airlift.site import drops
from airlift.site.config import load_site
from airlift.site.journal import READY, Drop


@click.group()
def command() -> None:
    """List a site's drops, and choose which one clients see."""


@command.command("list")
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@options.as_json
def list_(folder: Path, as_json: bool) -> None:
    """List the drops by channel and sequence; * marks those that clients see."""
    found = drops.list_drops(load_site(folder))
    if as_json:
        console.result_json({"drops": [drop.to_json() for drop in found]})
    else:
        for drop in found:
            console.answer(line(drop))


@command.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.argument("release")
@options.as_json
def activate(folder: Path, release: str, as_json: bool) -> None:
    """Let clients see the names of RELEASE: its digest, the beginning of that, or CHANNEL/SEQUENCE.

    Digests of the other drops stay served.
    """
    site = load_site(folder)
    drop = drops.activate(site, release, progress=console.progress(), http=environment.http_settings())
    if as_json:
        console.result_json({"drops": [item.to_json() for item in drops.list_drops(site)]})
    else:
        console.answer(line(drop))


def line(drop: Drop) -> str:
    """Return a drop in one line for people."""
    state = "" if drop.state == READY else f"  not complete ({drop.state}); import its bundle again"
    if drop.pending:
        state = "  tags are not all moved; activate it again"
    mark = "*" if drop.active else " "
    return f"{mark} {drop.channel}/{drop.sequence}  {drop.release}  {drop.artifacts} artifacts{state}"
