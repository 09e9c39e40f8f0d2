"""``airlift drops show``, ``sbom`` and ``diff``: what a kept drop holds, who signed it, how it differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from airlift import fs, limits
from airlift.cli import console, options
from airlift.cli.drop_lines import change_line, line
from airlift.site import drop_facts, drops
from airlift.site.config import load_site


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.argument("release")
@options.as_json
def show(folder: Path, release: str, as_json: bool) -> None:
    """Say what RELEASE holds: its artifacts, and below each the names that clients see of it, as in drops diff."""
    site = load_site(folder)
    found = drop_facts.show(site, release)
    if as_json:
        console.result_json(found)
    else:
        console.answer(line(drops.find(site, release)))
        console.answer(f"  {_signed(found)}")
        for item in found["contents"]:
            console.answer(f"  {item['kind']:7} {item['name']}  {item['digest']}")
            for name in item["names"]:
                size = "" if name["size"] is None else f"  {console.size(name['size'])}"
                console.answer(f"            {name['name']}  {name['digest']}{size}")


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.argument("release")
@click.option("-o", "--output", type=options.FILE, help="Where to; default: standard output.")
def sbom(folder: Path, release: str, output: Path | None) -> None:
    """Give the SBOM that came with RELEASE (CycloneDX, JSON), compared with what the import noted."""
    data = drop_facts.sbom(load_site(folder), release)
    if output is None:
        console.document(data.decode(errors="replace"))
    else:
        options.refuse_to_replace(output, _is_sbom, "SBOM")
        fs.write(output, data)


@click.command()
@click.option("--site", "folder", type=options.FOLDER, required=True, help="The site's directory.")
@click.argument("old")
@click.argument("new")
@options.as_json
def diff(folder: Path, old: str, new: str, as_json: bool) -> None:
    """Say name by name what changes for clients from OLD to NEW."""
    found = drop_facts.diff(load_site(folder), old, new)
    if as_json:
        console.result_json({"changes": [item.to_json() for item in found]})
    else:
        changed = [item for item in found if item.change != "same"]
        for item in changed:
            console.answer(change_line(item))
        if not changed:
            console.say(f"clients see no difference: {console.count(len(found), 'name')}, all with the same content")


def _is_sbom(path: Path) -> bool:
    if path.stat().st_size > limits.INDEX_DOCUMENT:
        return False
    try:
        value = json.loads(fs.read_bounded(path, limits.INDEX_DOCUMENT))
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("bomFormat") == "CycloneDX"


def _signed(found: Mapping[str, Any]) -> str:
    imported = f"imported {found['imported'] or 'at a time that is not known'}"
    if found["not_verified"] is not None:
        return f"signatures not accepted: {found['not_verified']}; {imported}"
    issued = f"issued {found['issued']}, " if found["issued"] else ""
    expires = f"expires {found['expires']}, " if found["expires"] else ""
    return f"signed by {', '.join(found['signers'])}; {issued}{expires}{imported}"
