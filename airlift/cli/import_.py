"""``airlift import``: take a bundle into a site."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from airlift.cli import console, environment, options
from airlift.cli.drop_lines import change_line
from airlift.site.config import load_site
from airlift.site.importer import Imported, import_bundle


@click.command()
@click.argument("bundle", type=options.EXISTING)
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--dry-run", is_flag=True, help="Verify everything, say what would change, write nothing.")
@options.as_json
@options.passphrase
def command(bundle: Path, folder: Path, dry_run: bool, as_json: bool, passphrase_file: Path | None) -> None:
    """Verify BUNDLE, take it in, and let clients see it.

    Nothing is seen before everything is verified. A killed import goes on with the same command.
    """
    site = load_site(folder)
    console.say(f"trust of {folder}, fingerprint {site.trust.fingerprint}")
    imported = import_bundle(
        site,
        bundle,
        now=environment.now(),
        passphrase=environment.passphrase(passphrase_file or site.passphrase_file),
        progress=console.progress(),
        http=environment.http_settings(),
        dry_run=dry_run,
    )
    if as_json:
        console.result_json({**imported.to_json(), "dry_run": dry_run})
    else:
        _tell(imported, dry_run=dry_run)


def _tell(imported: Imported, *, dry_run: bool) -> None:
    drop = imported.drop
    if imported.was_here:
        done = "it would become the active one" if dry_run else "it is the active one again"
        did = done if imported.switched else "nothing was written"
        console.answer(f"drop {drop.channel}/{drop.sequence} is here already and complete, {did}")
    elif not dry_run and not drop.active:
        console.answer(
            f"drop {drop.channel}/{drop.sequence} is complete again and not active, since a later one was accepted:"
            f" {console.count(imported.new_blobs, 'new blob')} ({console.size(imported.new_bytes)});"
            " airlift drops activate chooses it"
        )
    else:
        counts = Counter(item.change for item in imported.changes)
        if dry_run:
            for item in imported.changes:
                console.answer(change_line(item))
        console.answer(
            f"drop {drop.channel}/{drop.sequence} {'is good and would be imported' if dry_run else 'imported, active'}:"
            f" {console.count(drop.artifacts, 'artifact')}, {console.count(imported.new_blobs, 'new blob')}"
            f" ({console.size(imported.new_bytes)})"
        )
        console.answer(
            f"  names: {counts['new']} new, {counts['changed']} changed, {counts['same']} as before,"
            f" {counts['gone']} gone"
        )
    console.answer(f"  release {drop.release}")
    console.answer(f"  content-id {drop.content_id}, signed by {', '.join(imported.summary['signers'])}")
