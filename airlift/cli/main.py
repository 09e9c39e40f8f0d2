"""``airlift``: the group of verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Final

import click

import airlift
from airlift.cli import console, interrupt
from airlift.cli import exit as exits
from airlift.errors import AirliftError

VERBS: Final = {
    "init": "init",
    "schema": "schema",
    "keys": "keys",
    "trust": "trust",
    "resolve": "resolve",
    "build": "build",
    "push": "push",
    "pull": "pull",
    "inspect": "inspect",
    "verify": "verify",
    "open": "open",
    "kit": "kit",
    "site": "site",
    "preflight": "preflight",
    "import": "import_",
    "serve": "serve",
    "export": "export",
    "drops": "drops",
    "check": "check",
    "status": "status",
    "deploy": "deploy",
}
"""Verb to module of `airlift.cli`; each is loaded when it is asked for, since a site lacks what the builder needs."""


class _Verbs(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        try:
            module = importlib.import_module(f"airlift.cli.{VERBS[name]}")
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("airlift"):
                raise
            text = f"needs the Python package {error.name}, which is not installed here"
            return click.Command(name, help=f"({text})", callback=_missing(text), context_settings=_ANY)
        command = module.command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module.__name__}.command")
        return command


_ANY = {"ignore_unknown_options": True, "allow_extra_args": True}


def _missing(text: str) -> Callable[[], None]:
    def run() -> None:
        raise AirliftError(f"this command {text}", hint="on the connected side install airlift[build]")

    return run


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        console.answer(f"airlift {airlift.__version__} (writes bundle format 1, reads bundle format 1, lock format 1)")
        ctx.exit()


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print versions.")
def group() -> None:
    """Build signed, encrypted air-gap bundles; serve them where there is no network."""


def main() -> None:
    """Run a verb and exit with its code."""
    console.open_streams()
    interrupt.watch()
    code = run(sys.argv[1:])
    interrupt.over()
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a verb and return its exit code; everything that is to be said has been said."""
    try:
        result = group.main(arguments, prog_name="airlift", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except AirliftError as error:
        console.fail(error)
        return exits.code_of(error)
    except (KeyboardInterrupt, click.Abort):
        console.say(interrupt.SAID)
        return exits.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return exits.FAILURE
    return result if isinstance(result, int) else exits.OK
