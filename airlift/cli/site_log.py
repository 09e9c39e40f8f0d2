"""``airlift site log``: what was done to a site."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, options
from airlift.site import kept
from airlift.site.config import load_site


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@options.as_json
def log(folder: Path, as_json: bool) -> None:
    """Say what was done to the site: drops that came, were shown and went, and whom it believed.

    The last digest stands for all entries: write it down, and see later that nothing before it was changed.
    """
    site = load_site(folder)
    unknown = kept.warn_of_older_journal(site, console.progress())
    with site.journal() as journal:
        found = journal.history.entries()
    if as_json:
        listed = [entry.to_json() for entry in found]
        console.result_json({"entries": listed, "unknown_to_journal": [kept.told(release) for release in unknown]})
        return
    for entry in found:
        drop = f"{entry.channel}/{entry.sequence}  {entry.release}" if entry.release else entry.channel
        words = [entry.time or "at an unknown time", f"{entry.what:12}", drop, entry.detail]
        console.answer(f"{entry.number:5}  {'  '.join(filter(None, words))}")
    if found:
        console.answer(f"{len(found)} {'entry' if len(found) == 1 else 'entries'}, digest {found[-1].digest}")
    else:
        console.say("nothing was noted here yet")
