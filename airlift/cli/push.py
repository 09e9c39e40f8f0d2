"""``airlift push``: a finished bundle into an OCI registry."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.bundle.reader import BundleReader
from airlift.cli import console, environment, options
from airlift.transport import bundles


@click.command()
@click.argument("bundle", type=options.EXISTING)
@click.argument("target", metavar="oci://HOST/REPO:TAG")
@options.as_json
def command(bundle: Path, target: str, as_json: bool) -> None:
    """Push the finished BUNDLE as one ORAS artifact. The login is docker's."""
    reference = bundles.address(target)
    with BundleReader(bundle):
        # What is no bundle is not pushed as one.
        pass
    progress = console.progress()
    client = environment.registry(reference.registry, progress)
    digest = bundles.push(bundle, reference, client, progress)
    if as_json:
        console.result_json({"reference": str(reference), "digest": digest, "size": bundle.stat().st_size})
    else:
        console.say(f"{reference}: pushed, {digest}")
