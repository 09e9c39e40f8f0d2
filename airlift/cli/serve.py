"""``airlift serve``: all mirrors of a site on one port."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import click

from airlift.cli import console, options
from airlift.errors import UsageError
from airlift.site.config import load_site, split_listen
from airlift.site.server.app import serve


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--listen", metavar="HOST:PORT", help="Default: what site.yaml says. Port 0 lets the system choose.")
@click.option("--quiet", is_flag=True, help="Do not log requests.")
def command(folder: Path, listen: str | None, quiet: bool) -> None:
    """Serve registry, package index, charts, models and files until SIGTERM."""
    site = load_site(folder)
    address = listen or site.config.listen
    try:
        split_listen(address)
    except ValueError as error:
        raise UsageError(f"--listen: {error}") from None
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING if quiet else logging.INFO,
        format="airlift: %(asctime)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    asyncio.run(serve(site, address, lambda url: console.say(f"serving {folder} at {url}")))
    console.say("stopped")
