"""``airlift open``: the plain OCI layout of a bundle."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.bundle.extract import extract
from airlift.bundle.reader import BundleReader
from airlift.cli import console, environment, options
from airlift.trust import keys
from airlift.trust.gate import Gate
from airlift.trust.roots import load_trust


@click.command()
@click.argument("bundle", type=options.EXISTING)
@click.option("--trust", "trust_file", type=options.EXISTING, required=True, help="Whom to believe.")
@click.option(
    "--identity", type=options.EXISTING, help="The private key of a recipient; not needed for a plain bundle."
)
@click.option("-o", "--output", type=options.PATH, required=True, help="X.tar, or a new directory.")
@options.passphrase
def command(bundle: Path, trust_file: Path, identity: Path | None, output: Path, passphrase_file: Path | None) -> None:
    """Verify and decrypt BUNDLE into an OCI archive or layout that skopeo reads."""
    options.refuse_torn(output)
    trust = load_trust(trust_file)
    key = keys.load_identity(identity, environment.passphrase(passphrase_file)) if identity else None
    progress = console.progress()
    with BundleReader(bundle) as reader:
        verified = Gate(trust, now=environment.now()).admit(reader.envelope, reader.roots)
        opened = reader.unlock(verified, key)
        progress.start("opening", verified.release.payload_size)
        content_id = extract(opened, output, progress)
        progress.finish()
    console.say(f"{output}: content-id {content_id}, signed by {', '.join(verified.signers)}")
