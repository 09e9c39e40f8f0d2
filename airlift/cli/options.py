"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import click

from airlift.cli import console, environment
from airlift.connected.source import Settings

CommandT = TypeVar("CommandT", bound=Callable[..., object])

FILE = click.Path(path_type=Path, dir_okay=False)
EXISTING = click.Path(path_type=Path, dir_okay=False, exists=True)
FOLDER = click.Path(path_type=Path, file_okay=False)


def cache(function: CommandT) -> CommandT:
    """Add ``--cache DIR | --no-cache``."""
    function = click.option("--no-cache", is_flag=True, help="Keep no copy of what is fetched.")(function)
    return click.option("--cache", "cache_dir", type=FOLDER, help="Default: $XDG_CACHE_HOME/airlift.")(function)


def as_json(function: CommandT) -> CommandT:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Give the result as JSON on standard output.")(function)


def passphrase(function: CommandT) -> CommandT:
    """Add ``--passphrase-file``."""
    return click.option(
        "--passphrase-file", type=FILE, help="Its first line opens the private keys that have a passphrase."
    )(function)


def settings(base: Path, work: Path, platforms: tuple[str, ...], cache_dir: Path | None, *, no_cache: bool) -> Settings:
    """Return what sources are told of this machine."""
    return Settings(
        base=base,
        work=work,
        cache=environment.cache(cache_dir, disabled=no_cache),
        platforms=platforms,
        http=environment.http_settings(),
        docker_config=environment.docker_config(),
        environment=environment.variables(),
        progress=console.progress(),
    )


def with_base(settings: Settings, base: Path) -> Settings:
    """Return the settings with another directory for relative paths."""
    return replace(settings, base=base)
