"""``airlift kit``: what a machine without a network needs to become a site."""

from __future__ import annotations

from pathlib import Path

import click

from airlift.cli import console, environment, options
from airlift.connected.kit import make_kit
from airlift.connected.kit_cargo import load_cargo
from airlift.errors import UsageError
from airlift.store import Store
from airlift.trust.keys import load_signer


@click.group()
def command() -> None:
    """Make the kit that a site is installed from."""


@command.command()
@click.option("-o", "output", type=options.PATH, required=True, help="New directory for the kit.")
@click.option("--signer", type=options.EXISTING, required=True, help="Private key (P-256).")
@options.passphrase
@click.option("--trust", "trust_file", type=options.EXISTING, help="The trust file that the site is to pin.")
@click.option("--ca", "ca_file", type=options.EXISTING, help="PEM certificates that the machine is to trust.")
@click.option("--lock", "lock_file", type=options.EXISTING, help="Carry the K3s of this lock, out of the cache.")
@click.option("--cache", "cache_dir", type=options.FOLDER, help="Where --lock finds it: $XDG_CACHE_HOME/airlift.")
@options.as_json
def make(
    output: Path,
    signer: Path,
    passphrase_file: Path | None,
    trust_file: Path | None,
    ca_file: Path | None,
    lock_file: Path | None,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Write wheels, provision.sh, systemd units, SHA256SUMS and its signature."""
    key = load_signer(signer, environment.passphrase(passphrase_file))
    if cache_dir is not None and lock_file is None:
        raise UsageError("--cache is for --lock, which is not given")
    cargo = load_cargo(trust_file, ca_file, lock_file, Store(environment.cache_folder(cache_dir)))
    kit = make_kit(output, key, environment=environment.variables(), progress=console.progress(), cargo=cargo)
    if as_json:
        console.result_json(
            {
                "path": str(kit.path),
                "signer": key.key_id,
                "fingerprint": kit.fingerprint,
                "trust": cargo.trust.fingerprint if cargo.trust else None,
                "files": [{"name": name, "size": size, "sha256": digest} for name, size, digest in kit.files],
            }
        )
        return
    console.say(
        f"{console.count(len(kit.files), 'file')}, {console.size(sum(size for _, size, _ in kit.files))} in {kit.path}"
    )
    console.say("fingerprint of the signer's key, for paper:")
    console.answer(kit.fingerprint)
    if cargo.trust is not None:
        console.say("fingerprint of the trust file, for paper:")
        console.answer(cargo.trust.fingerprint)
