"""``airlift site recover``: a lost journal is made again."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, options
from airlift.site import recovery
from airlift.site.config import load_site


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option(
    "--fingerprint", metavar="HEX", help="Of the site's trust file, from paper; with another nothing is done."
)
@click.option(
    "--min-sequence",
    "given",
    multiple=True,
    metavar="CHANNEL=N",
    help="The lowest sequence that is accepted from now on; give it twice for every channel.",
)
@options.as_json
def recover(folder: Path, fingerprint: str | None, given: tuple[str, ...], as_json: bool) -> None:
    """Make a lost state.db again, from the store and drops/. No drop is active afterwards.

    Take N from the paper records: it is what keeps an old bundle from being accepted once more. The trust file is
    pinned anew: compare its fingerprint with paper.
    """
    site = load_site(folder)
    if fingerprint is not None:
        site.trust.check_fingerprint(fingerprint)
    console.say(f"trust of {folder}, fingerprint {site.trust.fingerprint}; compare with paper")
    done = recovery.recover(site, recovery.minimums(given, site.trust.channels), console.progress())
    for release, reason in done.left_out.items():
        console.warn(f"{release} is left out: {reason}; import its bundle again")
    if as_json:
        console.result_json(done.to_json())
        return
    for drop in done.drops:
        console.answer(f"{drop.channel}/{drop.sequence}  {drop.release}")
    console.answer(
        f"{console.count(len(done.drops), 'drop')} here again, none is active; choose one with airlift drops activate"
    )
