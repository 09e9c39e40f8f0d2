"""Options that several verbs share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import click

from airlift import fs
from airlift.bundle import layout
from airlift.cli import console, environment
from airlift.connected.source import Settings
from airlift.errors import UsageError

CommandT = TypeVar("CommandT", bound=Callable[..., object])


def existing(given: str | os.PathLike[str], name: str) -> Path:
    """Return the path of a file that is there.

    Args:
        given: what was typed.
        name: the option or argument that it was typed for.

    Raises:
        UsageError: there is no such file, or it is a directory.
        StoreError: the disk does not tell.
    """
    _refuse_home(given, name)
    path = Path(given)
    try:
        is_folder = path.is_dir() if path.exists() else None
    except OSError as error:
        raise fs.store_error("looking for", error) from None
    if is_folder:
        raise UsageError(f"{name} {path}: a directory, expected a file", hint=f"choose one of those in {path}")
    if is_folder is None:
        _refuse_torn(path, f"{name} {path}")
        folder = path.absolute().parent
        is_away = f"there is no directory {folder} either; is the medium mounted?"
        raise UsageError(
            f"{name} {path}: no such file", hint=f"see what is in {folder}" if folder.is_dir() else is_away
        )
    return path


def _refuse_home(given: str | os.PathLike[str], name: str) -> None:
    """Refuse ``~``, which only a shell expands, and only where a word begins: not in ``--identity=~/site.key``."""
    if os.fspath(given).startswith("~"):
        raise UsageError(
            f"{name} {given}: ~ stands for no directory here",
            hint="write the whole path, or a space in place of =, so that the shell expands it; ./~ begins the name of"
            " a file that begins with ~",
        )


def _refuse_torn(path: Path, said: str) -> None:
    with fs.guarded("looking at"):
        if path.is_symlink() and not path.exists():
            raise UsageError(
                f"{said}: a link to {path.readlink()}, which is not there",
                hint="is its disk mounted? else remove the link, or make what it leads to",
            )


def refuse_torn(output: Path) -> None:
    """Refuse an output that is a link to nothing: what it leads to may lie on a disk that is not mounted.

    Raises:
        UsageError: it is one.
        StoreError: the disk does not tell.
    """
    _refuse_torn(output, str(output))


def refuse_to_replace(path: Path, is_own: Callable[[Path], bool], what: str) -> None:
    """Refuse an output whose name something else has than an earlier output: it would be gone.

    Args:
        path: where the output is to be.
        is_own: says of a file whether it is such an output.
        what: the output's name for people.

    Raises:
        UsageError: something else is there.
        StoreError: the disk does not tell.
    """
    refuse_torn(path)
    with fs.guarded("looking at"):
        if not path.exists() or (path.is_file() and (path.stat().st_size == 0 or is_own(path))):
            return
    raise UsageError(f"{path} is there and is no {what}", hint="choose a new name, or remove it")


def is_bundle(path: Path) -> bool:
    """Say whether a file begins as a bundle does.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return stream.read(layout.BLOCK) == layout.header(layout.ENVELOPE, layout.SLOTS[layout.ENVELOPE])


class _Named(click.Path):
    """A path that may be there: an empty one, or one that the disk does not look for, is refused for every verb."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not os.fspath(value):
            raise UsageError(f"{_name(param)}: the path is empty", hint="is a variable of the shell not set?")
        _refuse_home(value, _name(param))
        try:
            os.lstat(value)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise fs.store_error("looking for", error) from None
        super().convert(value, param, ctx)
        return Path(value)


class _Existing(_Named):
    """A file that has to be there: without one, every verb says the same and ends with the same code."""

    def convert(self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return existing(value, _name(param)) if os.fspath(value) else super().convert(value, param, ctx)


def _name(param: click.Parameter | None) -> str:
    name = "" if param is None else max(param.opts, key=len)
    return name if name.startswith("-") else name.upper()


PATH = _Named(path_type=Path)
FILE = _Named(path_type=Path, dir_okay=False)
EXISTING = _Existing(path_type=Path, dir_okay=False)
FOLDER = _Named(path_type=Path, file_okay=False)


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
