"""``airlift build``: a lock becomes a bundle."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from airlift import lock as locks
from airlift.cli import console, environment, options
from airlift.connected import builder, places
from airlift.errors import UsageError
from airlift.trust import keys


@click.command()
@click.argument("lock", type=options.EXISTING)
@click.option("-o", "--output", type=options.FILE, required=True, help="The bundle.")
@click.option("--sequence", type=click.IntRange(min=1), required=True, help="Higher than every earlier one.")
@click.option(
    "--signer", "signers", type=options.EXISTING, multiple=True, required=True, help="A private key (repeat)."
)
@click.option("--recipient", "recipients", type=options.EXISTING, multiple=True, help="A site's public key (repeat).")
@click.option("--plain", is_flag=True, help="Do not encrypt: whoever holds the medium can read all of it.")
@click.option("--previous", type=options.EXISTING, help="The last drop's lock, to say what is new.")
@click.option("--issued", help="Signed time of issue; default: SOURCE_DATE_EPOCH, else none.")
@click.option("--expires", help="Signed time after which no site takes it.")
@click.option("--reports", type=options.FOLDER, help="Directory for a readable SBOM; keep it away from the bundle.")
@options.passphrase
@options.cache
@options.as_json
def command(
    lock: Path,
    output: Path,
    sequence: int,
    signers: tuple[Path, ...],
    recipients: tuple[Path, ...],
    plain: bool,
    previous: Path | None,
    issued: str | None,
    expires: str | None,
    reports: Path | None,
    passphrase_file: Path | None,
    cache_dir: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Seal everything that LOCK names into one signed, encrypted bundle."""
    if not output.parent.is_dir():
        raise UsageError(f"{output.parent} is not a directory")
    options.refuse_to_replace(output, options.is_bundle, "bundle")
    pinned = locks.load(lock)
    before = locks.load(previous) if previous else None
    secret = environment.passphrase(passphrase_file)
    signing = [keys.load_signer(path, secret) for path in signers]
    sealing = [keys.load_recipient(path) for path in recipients]
    settings = options.settings(lock.parent, output.parent, pinned.platforms, cache_dir, no_cache=no_cache)
    base = places.recall(environment.cache_folder(cache_dir), pinned.encode(), lock)
    settings = options.with_base(settings, base)
    issued_at = _moment(issued, "--issued") or environment.source_date()
    expires_at = _moment(expires, "--expires")
    if expires_at is not None and expires_at <= environment.now():
        console.warn(f"--expires {expires} is past: no site whose clock is right will take the bundle")
    for share in builder.shares(pinned, before):
        new = "" if share.new is None else f", {console.size(share.new)} new"
        console.say(f"{share.kind}: {console.count(share.artifacts, 'artifact')}, {console.size(share.size)}{new}")
    if plain:
        console.warn("the bundle is not encrypted: whoever holds the medium can read all of it")
    built = builder.build(
        pinned,
        output,
        settings,
        sequence=sequence,
        signers=signing,
        recipients=sealing,
        is_plain=plain,
        issued=issued_at,
        expires=expires_at,
        reports=reports,
    )
    console.say(f"{output}: {console.size(built.size)}, channel {pinned.channel}, sequence {sequence}")
    console.say(f"release {built.release.digest}")
    console.say(f"content-id {built.content_id}")
    if as_json:
        console.result_json(
            {
                "bundle": str(output),
                "release": built.release.digest,
                "content_id": built.content_id,
                "channel": pinned.channel,
                "sequence": sequence,
                "size": built.size,
                "blobs": built.blobs,
                "encrypted": not plain,
                "signers": [signer.key_id for signer in signing],
            }
        )


def _moment(text: str | None, option: str) -> datetime | None:
    return environment.moment(text, option) if text else None
