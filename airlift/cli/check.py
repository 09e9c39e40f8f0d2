"""``airlift check``: compare a site with its drops, object by object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from airlift.bundle.reader import BundleReader
from airlift.cli import console, environment, options
from airlift.cli import exit as exits
from airlift.errors import AirliftError, DeliveryError, IntegrityError, TrustError
from airlift.site import inspection, repair
from airlift.site.config import load_site
from airlift.site.inspection import Place

_SHOWN: Final = 5
"""How many artifacts are named that have one damaged blob in common, and how many drops of each; JSON names all."""

_TOLD: Final = 100
"""How many findings are told; JSON has all."""


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.option("--deep", is_flag=True, help="Read every blob of the external registry whole, and hash it.")
@click.option("--repair", "is_repair", is_flag=True, help="Mend from the store, or from BUNDLE.")
@click.argument("bundle", type=options.EXISTING, required=False)
@options.as_json
@options.passphrase
def command(
    folder: Path, deep: bool, is_repair: bool, bundle: Path | None, as_json: bool, passphrase_file: Path | None
) -> int:
    """Hash every blob again, and compare names, files and the external registry with the drops.

    With --repair what is wrong is mended, from the store or from BUNDLE, and compared once more.
    """
    if bundle is not None and not is_repair:
        raise click.UsageError("a BUNDLE was given without --repair")
    if bundle is not None:
        # Before anything is hashed, and also where nothing turns out to be wrong.
        BundleReader(bundle).close()
    site = load_site(folder)
    progress, http = console.progress(), environment.http_settings()
    findings = repair.check(site, progress=progress, http=http, is_deep=deep)
    mended: list[inspection.Finding] = []
    if is_repair and findings:
        before = findings
        try:
            findings = repair.repair(
                site,
                findings,
                bundle,
                now=environment.now(),
                passphrase=environment.passphrase(passphrase_file or site.passphrase_file),
                progress=progress,
                http=http,
                is_deep=deep,
            )
        except AirliftError:
            if not as_json:
                _tell(before)
            raise
        left = {(item.place, item.subject) for item in findings}
        mended = [item for item in before if (item.place, item.subject) not in left]
    if as_json:
        told = dict(inspection.summary(findings))
        if is_repair:
            told["mended"] = [item.to_json() for item in mended]
        console.result_json(told)
    else:
        for item in mended[:_TOLD]:
            console.answer(f"mended   {item.place.value}: {item.subject}{_of(item)}")
        _tell_rest(mended, "mended")
        _tell(findings)
        console.answer(console.count(len(findings), "finding") if findings else "clean: everything is as the drops say")
    return _code({item.place for item in findings})


def _code(places: set[Place]) -> int:
    """Return that of the gravest finding: damage here, a mirror that differs, what is whole but not accepted."""
    if places - {Place.REGISTRY, Place.INDEX, Place.TREE, Place.TRUST}:
        return exits.CODES[IntegrityError]
    if places - {Place.TRUST}:
        return exits.CODES[DeliveryError]
    return exits.CODES[TrustError] if places else exits.OK


def _tell(findings: list[inspection.Finding]) -> None:
    for item in findings[:_TOLD]:
        console.answer(f"{item.place.value:8} {item.subject}: {item.problem}{_of(item)}")
        console.answer(f"         do: {item.remedy}")
    _tell_rest(findings, "found")


def _tell_rest(findings: list[inspection.Finding], what: str) -> None:
    """Count what is not told one by one, by place."""
    rest = Counter(item.place.value for item in findings[_TOLD:])
    for place, number in sorted(rest.items()):
        console.answer(f"{place:8} and {number} more {what}; --json has them all")


def _of(item: inspection.Finding) -> str:
    """Say on a line of its own whose the object is, when somebody's it is."""
    named = [f"{kind} {name} of {_first(drops, ', ')}" for (kind, name), drops in item.artifacts.items()]
    whose = _first(named, "; ") or _first(item.drops, ", ")
    return f"\n         of: {whose}" if whose else ""


def _first(words: Sequence[str], between: str) -> str:
    more = [f"{len(words) - _SHOWN} more"] if len(words) > _SHOWN else []
    return between.join([*words[:_SHOWN], *more])
