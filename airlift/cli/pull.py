"""``airlift pull``: a finished bundle out of an OCI registry."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, environment, options
from airlift.transport import bundles


@click.command()
@click.argument("source", metavar="oci://HOST/REPO:TAG")
@click.option("-o", "--output", type=options.FILE, required=True, help="The bundle's file.")
@options.as_json
def command(source: str, output: Path, as_json: bool) -> None:
    """Pull a bundle. Its digest is checked here; whom it is from is not: `airlift verify` does that."""
    reference = bundles.address(source)
    options.refuse_to_replace(output, options.is_bundle, "bundle")
    progress = console.progress()
    client = environment.registry(reference.registry, progress)
    digest = bundles.pull(reference, output, client, progress)
    if as_json:
        console.result_json({"reference": str(reference), "digest": digest, "size": output.stat().st_size})
    else:
        console.say(f"{output}: pulled, {digest}; verify it with `airlift verify`")
