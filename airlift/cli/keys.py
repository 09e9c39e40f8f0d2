"""``airlift keys``: key pairs of signers and of recipients."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from airlift.cli import console, environment, options
from airlift.errors import UsageError
from airlift.trust import keys, suites


@click.group()
def command() -> None:
    """Make key pairs."""


@command.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(["signer", "identity"]), required=True, help="Sign bundles, or open them.")
@click.option("--suite", type=click.Choice(sorted(suites.SUITES)), default=suites.DEFAULT, show_default=True)
@click.option("--out", type=options.FOLDER, default=Path(), help="Directory; default: here.")
@click.option("--passphrase-file", type=options.EXISTING, help="Its first line protects the private key.")
@click.option("--no-passphrase", is_flag=True, help="Leave the private key unprotected, on a disk that protects it.")
def generate(
    name: str,
    kind: Literal["signer", "identity"],
    suite: str,
    out: Path,
    passphrase_file: Path | None,
    no_passphrase: bool,
) -> None:
    """Write NAME.key (keep it) and NAME.pub (give it away)."""
    if no_passphrase == (passphrase_file is not None):
        raise UsageError("how is the private key protected?", hint="give --passphrase-file FILE or --no-passphrase")
    secret = environment.passphrase(passphrase_file)() if passphrase_file else None
    key = keys.generate(kind, suite=suite)
    private, public = keys.write_key(out, name, key, passphrase=secret)
    console.say(f"{kind} {key.key_id}: private key in {private}, public key in {public}")
