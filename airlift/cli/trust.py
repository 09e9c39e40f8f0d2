"""``airlift trust``: the file that says whom a site believes."""

from __future__ import annotations

from pathlib import Path

import click

from airlift import fs
from airlift.cli import console, options
from airlift.errors import UsageError
from airlift.trust import keys, roots


@click.group()
def command() -> None:
    """Say whom a site believes."""


@command.command()
@click.option("-o", "--output", type=options.FILE, required=True)
@click.option(
    "--channel", "channels", multiple=True, required=True, help="A channel that the site takes; may be repeated."
)
@click.option(
    "--signer", "signers", multiple=True, required=True, metavar="PERSON=PUB...", help="A person's public keys."
)
@click.option("--threshold", type=click.IntRange(min=1), default=1, show_default=True, help="Persons who have to sign.")
@click.option("--min-sequence", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--allow-plain", is_flag=True, help="Take bundles that are not encrypted.")
def init(
    output: Path,
    channels: tuple[str, ...],
    signers: tuple[str, ...],
    threshold: int,
    min_sequence: int,
    allow_plain: bool,
) -> None:
    """Write a trust file and print its fingerprint.

    Write PERSON=PUB1,PUB2 or repeat --signer for a person with more keys.
    """
    if output.exists():
        raise UsageError(f"{output} exists", hint="a trust file is not replaced by this command; choose another name")
    persons: dict[str, list[bytes]] = {}
    for item in signers:
        person, equals, files = item.partition("=")
        if not equals or not person or not files:
            raise UsageError(f"--signer {item!r}: expected PERSON=PUB, such as alice=alice.pub")
        for name in files.split(","):
            path = options.existing(name, "--signer")
            persons.setdefault(person, []).append(keys.load_signer_public(path).pem)
    trust = roots.make_trust(
        channels, list(persons.items()), threshold=threshold, min_sequence=min_sequence, allow_plain=allow_plain
    )
    fs.write(output, roots.dump_trust(trust))
    console.say(f"trust file {output}: {threshold} of {len(persons)} must sign for {console.channels(channels)}")
    console.answer(f"fingerprint {trust.fingerprint}")
