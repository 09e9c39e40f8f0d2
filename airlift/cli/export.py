"""``airlift export``: the mirrors of a site as a tree for another web server."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, options
from airlift.site import static_tree
from airlift.site.config import load_site


@click.command()
@click.option("--static", "target", type=options.FOLDER, required=True, help="The link that the web server serves.")
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@options.as_json
def command(target: Path, folder: Path, as_json: bool) -> None:
    """Write package index, charts, models and files as a static tree, and switch to it in one step."""
    done = static_tree.export(load_site(folder), target.absolute(), console.progress())
    for mirror, reason in done.skipped.items():
        console.warn(f"{mirror} are not in the tree: {reason}")
    if as_json:
        console.result_json(
            {
                "changed": done.changed,
                "files": done.files,
                "generation": str(done.generation),
                "skipped": done.skipped,
                "state": done.state,
            }
        )
        return
    console.answer(f"{target}: {console.count(done.files, 'file')}, {'switched' if done.changed else 'nothing to do'}")
