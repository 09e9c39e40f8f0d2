"""``airlift push``: a finished bundle into an OCI registry."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.bundle.reader import BundleReader
from airlift.cli import console, environment, options
from airlift.transport import bundles, credentials
from airlift.transport.http import HttpClient
from airlift.transport.registry import RegistryClient


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
    login = credentials.find(environment.docker_config(), reference.registry, environment.variables())
    progress = console.progress()
    client = RegistryClient(
        reference.registry, http=HttpClient(environment.http_settings(), progress), credentials=login
    )
    digest = bundles.push(bundle, reference, client, progress)
    if as_json:
        console.result_json({"reference": str(reference), "digest": digest, "size": bundle.stat().st_size})
    else:
        console.say(f"{reference}: pushed, {digest}")
