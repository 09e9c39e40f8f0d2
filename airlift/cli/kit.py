"""``airlift kit``: what a machine without a network needs to become a site."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, environment
from airlift.connected.kit import make_kit
from airlift.trust.keys import load_signer


@click.group()
def command() -> None:
    """Make the kit that a site is installed from."""


@command.command()
@click.option("-o", "output", type=click.Path(path_type=Path), required=True, help="New directory for the kit.")
@click.option("--signer", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Private key (P-256).")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="Its first line opens the private key.")
@click.option("--json", "as_json", is_flag=True, help="Give the result as JSON on standard output.")
def make(output: Path, signer: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Write the site side's wheels, SHA256SUMS and its signature."""
    key = load_signer(signer, environment.passphrase(passphrase_file))
    kit = make_kit(output, key, environment=environment.variables(), progress=console.progress())
    if as_json:
        console.result_json(
            {
                "path": str(kit.path),
                "signer": key.key_id,
                "fingerprint": kit.fingerprint,
                "files": [{"name": name, "size": size, "sha256": digest} for name, size, digest in kit.files],
            }
        )
        return
    console.say(
        f"{console.count(len(kit.files), 'file')}, {console.size(sum(size for _, size, _ in kit.files))} in {kit.path}"
    )
    console.say("fingerprint of the signer's key, for paper:")
    console.answer(kit.fingerprint)
