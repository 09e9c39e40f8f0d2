"""``airlift site trust``: another trust file for a site."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from airlift.cli import console, environment, options
from airlift.site import pin

_SHOWN: Final = 10


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--trust", "trust_file", type=options.EXISTING, required=True, help="Whom to believe from now on.")
@click.option("--fingerprint", metavar="HEX", required=True, help="Of this file, from paper.")
def trust(folder: Path, trust_file: Path, fingerprint: str) -> None:
    """Pin another trust file, when keys or persons change. What was imported stays."""
    done = pin.pin(folder, trust_file, fingerprint, console.progress(), now=environment.now())
    for drop in done.unproven[:_SHOWN]:
        console.warn(
            f"{drop.channel}/{drop.sequence} is not signed as this file demands: it stays, and would be left out when"
            " state.db is lost"
        )
    if len(done.unproven) > _SHOWN:
        console.warn(f"nor are {len(done.unproven) - _SHOWN} more; airlift check names them all")
    console.say(f"pinned before: {done.before or 'not noted'}")
    console.answer(f"fingerprint {done.fingerprint}")
