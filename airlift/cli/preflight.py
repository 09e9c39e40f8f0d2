"""``airlift preflight``: what can be known before an import begins."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import click

from airlift.cli import console, environment, options
from airlift.cli import exit as exits
from airlift.site.config import load_site
from airlift.site.preflight import Flight
from airlift.site.preflight_findings import Finding, Severity, gravest


@click.command()
@click.argument("bundle", type=options.EXISTING)
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@options.as_json
@options.passphrase
def command(bundle: Path, folder: Path, as_json: bool, passphrase_file: Path | None) -> int:
    """Say whether BUNDLE can be imported: signatures, sequence, space, credentials, certificates, clock, time.

    Nothing is written, and only the bundle's beginning is read. The exit code is that of the gravest finding.
    """
    site = load_site(folder)
    found = Flight(
        site,
        bundle,
        now=environment.now(),
        passphrase=environment.passphrase(passphrase_file or site.passphrase_file),
        http=environment.http_settings(),
        progress=console.progress(),
        clock=time.monotonic,
    ).run()
    worst = gravest(found)
    if as_json:
        console.result_json({"ready": worst is None, "findings": [item.to_json() for item in found]})
    else:
        for item in found:
            console.answer(f"{item.severity.value:8} {item.check}: {item.message}")
            if item.remedy and item.severity is not Severity.OK:
                console.answer(f"         do: {item.remedy}")
        console.answer(_verdict(found))
    return exits.OK if worst is None else exits.code_of(worst)


def _verdict(found: list[Finding]) -> str:
    counts = Counter(item.severity for item in found)
    said = [console.count(counts[kind], kind.value) for kind in (Severity.ERROR, Severity.WARNING) if counts[kind]]
    return ", ".join(["not ready to import" if counts[Severity.ERROR] else "ready to import", *said])
