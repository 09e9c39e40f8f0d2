"""``airlift schema``: JSON Schema of the documents that people write."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import click

from airlift.cli import console
from airlift.manifest import Manifest
from airlift.site.site_yaml import SiteConfig

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@click.command()
@click.argument("document", type=click.Choice(["manifest", "site", "trust"]), default="manifest")
def command(document: str) -> None:
    """Print the JSON Schema of a manifest, of site.yaml or of the trust file, for editors and checkers."""
    schema: dict[str, Any]
    if document == "manifest":
        schema = Manifest.model_json_schema()
    elif document == "site":
        schema = SiteConfig.model_json_schema()
    else:
        schema = json.loads(resources.files("airlift.trust").joinpath("trust.schema.json").read_bytes())
    console.result_json({"$schema": _DIALECT, **schema})
