"""``airlift init``: a manifest to start from."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, options
from airlift.connected import starter


@click.command()
@click.argument("directory", type=options.PATH, default=Path(), metavar="[DIR]")
def command(directory: Path) -> None:
    """Write a commented starter manifest, DIR/drop.yaml. Nothing is ever overwritten."""
    path = starter.write(directory)
    console.say(f"wrote {path}; edit it, then: airlift resolve {path}")
