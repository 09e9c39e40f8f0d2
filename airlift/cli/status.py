"""``airlift status``: what a site is, what it has, and what clients need to know."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, options
from airlift.cli.drop_lines import tell
from airlift.site import drops
from airlift.site.clients import CLIENTS, client_config
from airlift.site.config import load_site


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--client", type=click.Choice(list(CLIENTS)), help="Print this client's configuration instead.")
@options.as_json
def command(folder: Path, client: str | None, as_json: bool) -> None:
    """Say what the site is and has, or how a client is configured for it."""
    site = load_site(folder)
    if client is not None:
        text = client_config(site, client)
        if as_json:
            console.result_json({"client": client, "config": text})
        else:
            console.answer(text)
        return
    state = drops.status(site, console.progress())
    if as_json:
        console.result_json(state)
        return
    console.answer(f"site {folder} at {state['url']}, trust {state['trust']}")
    if state["registry"]:
        console.answer(f"  images and charts are in {state['registry']}")
    if state["python"]:
        console.answer(f"  wheels are in {state['python']} too")
    for tree in state["trees"]:
        console.answer(f"  a static tree is at {tree}")
    for channel, seen in state["channels"].items():
        # Of a recovered site a person said what the lowest one is; what is kept is the one below.
        known = f"{seen['sequence']} is the highest that was accepted"
        given = f"{seen['sequence'] + 1} is the lowest that is accepted"
        console.answer(f"  channel {channel}: sequence {known if seen['release'] else given}")
    tell(drops.list_drops(site))
