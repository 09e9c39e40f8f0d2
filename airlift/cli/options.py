"""Options that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import click

from airlift import fs
from airlift.cli import console, environment
from airlift.connected.source import Settings
from airlift.errors import UsageError

CommandT = TypeVar("CommandT", bound=Callable[..., object])


def existing(given: str | Path, name: str) -> Path:
    """Return the path of a file that is there.

    Args:
        given: what was typed.
        name: the option or argument that it was typed for.

    Raises:
        UsageError: there is no such file, or it is a directory.
        StoreError: the disk does not tell.
    """
    path = Path(given)
    try:
        is_folder = path.is_dir() if path.exists() else None
    except OSError as error:
        raise fs.store_error("looking for", error) from None
    if is_folder:
        raise UsageError(f"{name} {path}: a directory, expected a file", hint=f"choose one of those in {path}")
    if is_folder is None:
        folder = path.absolute().parent
        is_away = f"there is no directory {folder} either; is the medium mounted?"
        raise UsageError(
            f"{name} {path}: no such file", hint=f"see what is in {folder}" if folder.is_dir() else is_away
        )
    return path


class _Existing(click.Path):
    """A file that has to be there: without one, every verb says the same and ends with the same code."""

    def convert(
        self,
        value: str | os.PathLike[str],
        param: click.Parameter | None,
        ctx: click.Context | None,  # noqa: ARG002 - click's signature
    ) -> Path:
        name = "" if param is None else max(param.opts, key=len)
        return existing(os.fspath(value), name if name.startswith("-") else name.upper())


FILE = click.Path(path_type=Path, dir_okay=False)
EXISTING = _Existing(path_type=Path, dir_okay=False)
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
        "--passphrase-file", type=EXISTING, help="Its first line opens the private keys that have a passphrase."
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
