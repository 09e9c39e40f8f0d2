"""``airlift serve``: all mirrors of a site on one port."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path

import click

from airlift.cli import console, environment, options
from airlift.errors import UsageError
from airlift.site import kept
from airlift.site.config import load_site
from airlift.site.server import tls
from airlift.site.server.app import GRACE_S, serve
from airlift.site.site_yaml import split_listen


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--listen", metavar="HOST:PORT", help="Default: what site.yaml says. Port 0 lets the system choose.")
@click.option("--tls-cert", type=options.EXISTING, help="PEM chain to answer with; default: what site.yaml says.")
@click.option("--tls-key", type=options.EXISTING, help="Its PEM key. Both are read again on SIGHUP.")
@click.option(
    "--grace",
    type=click.IntRange(min=0),
    default=GRACE_S,
    show_default=True,
    metavar="SECONDS",
    help="How long transfers may go on after SIGTERM; a second one ends them.",
)
@click.option("--quiet", is_flag=True, help="Do not log requests.")
def command(
    folder: Path, listen: str | None, tls_cert: Path | None, tls_key: Path | None, grace: int, quiet: bool
) -> None:
    """Serve registry, package index, charts, models and files until SIGTERM.

    A socket that systemd listens on (socket activation) is taken in place of what site.yaml says.
    """
    site = load_site(folder)
    passed = environment.passed_socket()
    if passed is not None and listen is not None:
        raise UsageError("systemd passed a socket, and --listen names another address", hint="leave out --listen")
    address = passed or (site.config.listen if listen is None else listen)
    try:
        if isinstance(address, str):
            split_listen(address)
    except ValueError as error:
        raise UsageError(f"--listen: {error}") from None
    if (tls_cert is None) != (tls_key is None):
        raise UsageError("expected both --tls-cert and --tls-key, got one")
    certificate = tls.Certificate(tls_cert, tls_key) if tls_cert and tls_key else tls.of_site(site)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING if quiet else logging.INFO,
        format="airlift: %(asctime)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%SZ",
    )
    # As everywhere else, whatever the machine's zone is.
    logging.Formatter.converter = time.gmtime

    kept.warn_of_older_journal(site, console.progress())

    def started(url: str) -> None:
        console.say(f"serving {folder} at {url}")
        environment.tell_systemd_ready()

    cut = asyncio.run(serve(site, address, started, certificate=certificate, grace_s=grace))
    if cut:
        console.warn(f"{console.count(cut, 'transfer')} went on for longer than --grace and had to be cut")
    console.say("stopped")
