"""``airlift verify``: is this bundle what the signers released, whole? Needs no private key and keeps no state."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.bundle.reader import BundleReader
from airlift.cli import console, environment, options
from airlift.trust.gate import Gate
from airlift.trust.roots import load_trust


@click.command()
@click.argument("bundle", type=options.EXISTING)
@click.option("--trust", "trust_file", type=options.EXISTING, required=True, help="Whom to believe.")
@options.as_json
def command(bundle: Path, trust_file: Path, as_json: bool) -> None:
    """Check BUNDLE's signatures and every byte of it."""
    trust = load_trust(trust_file)
    console.say(f"trust {trust_file}, fingerprint {trust.fingerprint}")
    with BundleReader(bundle) as reader:
        verified = Gate(trust, now=environment.now()).admit(reader.envelope, reader.roots)
        reader.verify(verified, console.progress())
        facts = {"verified": True, **reader.summary(verified)}
    for key_id in verified.unknown_signers:
        console.warn(f"a signature by {key_id} counts for nothing: nobody in the trust file has this key")
    if as_json:
        console.result_json(facts)
    else:
        release = verified.release
        console.answer(f"{bundle}: good, signed by {', '.join(verified.signers)}")
        console.answer(f"  channel {release.channel}, sequence {release.sequence}, release {release.digest}")
