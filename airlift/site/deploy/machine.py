"""The machine that becomes a node: its files, and the programs that are run on it."""

from __future__ import annotations

import subprocess  # noqa: TID251 - this file runs K3s's own script and systemctl
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from airlift import fs, limits
from airlift.errors import DeployError

_SAID: Final = 64 * limits.MIB
"""More than all nodes of a large cluster take in JSON."""
_OF_K3S: Final = ("KUBECONFIG", "K3S_", "INSTALL_K3S_")
"""How the names of variables begin that would make K3s, its script or its kubectl do something else than is planned."""


class LateError(DeployError):
    """A program did not end in time."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a program ended.

    Attributes:
        code: its exit code.
        output: what it printed.
        said: what it said on standard error.
    """

    code: int
    output: bytes
    said: str


class Machine(Protocol):
    """What is needed of a machine."""

    @property
    def root(self) -> Path:
        """What stands for its ``/``; facts about it are read below, from ``proc`` and ``sys`` as well."""

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        """Run a program of the machine, found on its PATH or by its path on the machine, to its end."""


@dataclass(frozen=True, slots=True)
class LocalMachine:
    """The machine that this runs on.

    Attributes:
        environment: for every program, without what is about another K3s or another cluster.
        root: ``/``.
    """

    environment: Mapping[str, str] = field(repr=False)
    root: Path = Path("/")

    def run(self, command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
        """Run a program.

        Raises:
            LateError: it does not end in time.
            DeployError: it is not there, or prints too much.
        """
        given = {name: value for name, value in self.environment.items() if not name.startswith(_OF_K3S)}
        return run_bounded(command, {**given, **environment}, timeout=timeout)


def run_bounded(command: Sequence[str], environment: Mapping[str, str], *, timeout: float) -> Ran:
    """Run a program with bounds on time and on what is kept of its output.

    Raises:
        LateError: it does not end in time.
        DeployError: it is not there, or prints too much.
    """
    with fs.guarded("running"), tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            done = subprocess.run(  # noqa: S603 - K3s's script and systemctl, no shell
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(environment),
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError:
            raise DeployError(f"{command[0]} is not on this machine") from None
        except subprocess.TimeoutExpired:
            raise LateError(f"{' '.join(command)[:500]} did not end in {timeout:.0f} s") from None
        out.seek(0)
        err.seek(0)
        output = out.read(_SAID + 1)
        if len(output) > _SAID:
            raise DeployError(f"{' '.join(command)[:500]} printed more than {_SAID} bytes")
        return Ran(done.returncode, output, err.read(limits.ERROR_BODY).decode("utf-8", "replace"))
