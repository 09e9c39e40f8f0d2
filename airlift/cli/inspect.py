"""``airlift inspect``: what a bundle says of itself, unverified."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.bundle.reader import BundleReader
from airlift.cli import console, environment, options
from airlift.trust import keys


@click.command()
@click.argument("bundle", type=options.EXISTING)
@click.option("--identity", type=options.EXISTING, help="A private key; with it the content-id is told too.")
@options.passphrase
@options.as_json
def command(bundle: Path, identity: Path | None, passphrase_file: Path | None, as_json: bool) -> None:
    """Say what BUNDLE claims to be. Nothing of it is verified: use verify before you believe it."""
    key = keys.load_identity(identity, environment.passphrase(passphrase_file)) if identity else None
    with BundleReader(bundle) as reader:
        facts = {"verified": False, **reader.inspect(key)}
    if as_json:
        console.result_json(facts)
    else:
        console.answer(f"{bundle}: NOT VERIFIED")
        for name, value in facts.items():
            if name != "verified" and value is not None:
                console.answer(f"  {name}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
