"""``airlift site recover``: a lost journal is made again."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, environment, options
from airlift.site import recovery
from airlift.site.config import load_site


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--fingerprint", metavar="HEX", required=True, help="Of the site's trust file, from paper.")
@click.option(
    "--min-sequence",
    "given",
    multiple=True,
    metavar="CHANNEL=N",
    help="The lowest sequence that is accepted from now on; give it twice for every channel, also for one that the"
    " trust file does not list any more.",
)
@options.as_json
def recover(folder: Path, fingerprint: str, given: tuple[str, ...], as_json: bool) -> None:
    """Make a lost state.db again, from the store and drops/. No drop is active afterwards.

    Take N from the paper records: it is what keeps an old bundle from being accepted once more. The pin of the trust
    file was in the lost state.db, so the fingerprint has to come from paper too; with another one nothing is done.
    """
    site = load_site(folder)
    site.trust.check_fingerprint(fingerprint)
    done = recovery.recover(
        site, recovery.minimums(given, recovery.channels(site)), console.progress(), now=environment.now()
    )
    for release, reason in done.left_out.items():
        console.warn(f"{release} is left out: {reason}")
    if as_json:
        console.result_json(done.to_json())
        return
    for drop in done.drops:
        console.answer(f"{drop.channel}/{drop.sequence}  {drop.release}")
    console.answer(
        f"{console.count(len(done.drops), 'drop')} here again, none is active; choose one with airlift drops activate"
    )
