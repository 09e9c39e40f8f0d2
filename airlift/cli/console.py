"""Talking to a person (stderr, ``airlift:``) and answering a program (stdout)."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import unicodedata
from collections.abc import Collection
from typing import Any, TextIO

from tqdm import tqdm

from airlift.errors import AirliftError
from airlift.progress import Progress

_UNITS = ("B", "KB", "MB", "GB", "TB")


def say(message: str) -> None:
    """Tell a person, on stderr."""
    for line in message.splitlines() or [""]:
        try:
            tqdm.write(f"airlift: {_harmless(line)}", file=sys.stderr)
        except OSError:
            # A log on a full disk, or a reader that is gone, is no reason to stop half way.
            _lead_nowhere(sys.stderr)


def _harmless(text: str) -> str:
    """Return a text without what a server or a file's name brings into it, and would steer the terminal."""
    return "".join("?" if char not in "\t\n" and unicodedata.category(char).startswith("C") else char for char in text)


def warn(message: str) -> None:
    """Tell a person what to act on, on stderr."""
    say(f"warning: {message}")


def fail(error: AirliftError) -> None:
    """Tell a person what went wrong and what to do, on stderr."""
    say(f"error: {error.message}")
    if error.hint:
        say(f"hint: {error.hint}")


def open_streams() -> None:
    """Make the standard streams fit for everything that is written to them.

    Those that are closed lead nowhere: the next file to be opened would take their place. A letter that one cannot show
    is written in another way.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free.
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _lead_nowhere(stream: TextIO) -> None:
    # What a stream still holds would fail once more when Python ends, with an exit code of its own.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def answer(text: str) -> None:
    """Give a result to a person, on stdout.

    Raises:
        AirliftError: stdout does not take it; a reader that is gone is a `BrokenPipeError`.
    """
    document(_harmless(text))


def document(text: str) -> None:
    """Give a document as it is, on stdout, with an end of line.

    Raises:
        AirliftError: stdout does not take it; a reader that is gone is a `BrokenPipeError`.
    """
    try:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _lead_nowhere(sys.stdout)
        raise AirliftError(
            f"writing to standard output: {error.strerror}",
            hint="the answer is lost; what the command had to change is changed",
        ) from None


def result_json(value: Any) -> None:
    """Give a result to a program, on stdout, in ASCII: every stream takes that, and a name may be no text."""
    document(json.dumps(value, indent=2, sort_keys=True))


def count(amount: int, noun: str) -> str:
    """Return a number of things for people: ``1 drop``, ``2 drops``."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def channels(names: Collection[str]) -> str:
    """Return channels for people: ``channel stable``, ``channels edge, stable``."""
    return f"channel{'' if len(names) == 1 else 's'} {', '.join(names)}"


def size(amount: float) -> str:
    """Return a size for people, such as ``1.3 GB`` (powers of 1000)."""
    for unit in _UNITS:
        if amount < 1000 or unit == _UNITS[-1]:  # noqa: PLR2004 - SI
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError


class _Bars:
    """tqdm bars with totals and ETA; for terminals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bar: tqdm[Any] | None = None

    def start(self, label: str, total: int, *, unit: str = "B") -> None:
        with self._lock:
            self._close()
            self._bar = tqdm(
                total=total or None,
                desc=label,
                unit=unit,
                unit_scale=unit == "B",
                file=sys.stderr,
                dynamic_ncols=True,
                leave=False,
                mininterval=0.2,
            )

    def advance(self, amount: int) -> None:
        with self._lock:
            if self._bar is not None:
                self._bar.update(amount)

    def finish(self) -> None:
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def note(self, message: str) -> None:
        say(message)

    def warn(self, message: str) -> None:
        warn(message)


class _Lines:
    """A line when a phase begins; for logs."""

    def start(self, label: str, total: int, *, unit: str = "B") -> None:
        what = "" if not total else f", {size(total)}" if unit == "B" else f", {count(total, unit.removesuffix('s'))}"
        say(f"{label}{what}")

    def advance(self, amount: int) -> None:
        """Nothing: a log wants no bar."""

    def finish(self) -> None:
        """Nothing: the next line says it."""

    def note(self, message: str) -> None:
        say(message)

    def warn(self, message: str) -> None:
        warn(message)


def progress() -> Progress:
    """Return bars on a terminal, quiet lines elsewhere."""
    return _Bars() if sys.stderr.isatty() else _Lines()
