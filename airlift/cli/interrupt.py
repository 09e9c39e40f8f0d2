"""What SIGINT and SIGTERM do to a command: it cleans up and ends, and where it cannot in time it is ended.

The first signal breaks off every request, and raises KeyboardInterrupt in the main thread; a second one, or `GRACE_S`
without an end, ends the process as it is. Everything that airlift writes stands that, as it stands a kill. A server
that goes on with what it has begun (``airlift serve``) takes the signals over while it runs.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from airlift.cli import exit as exits

GRACE_S: Final = 2.0
SAID: Final = "interrupted; run the same command again to go on"
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_HTTP: Final = "airlift.transport.http"


def watch() -> None:
    """Let the signals end this process; for the main thread."""
    heard, rung = os.pipe()
    os.set_blocking(rung, False)
    for number in _SIGNALS:
        # What was started to ignore it, as a shell does with a job in the background, goes on ignoring it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    # Written by the C handler at once, also while the main thread is in a call that no signal ends, such as a look-up
    # of a name.
    signal.set_wakeup_fd(rung, warn_on_full_buffer=False)
    threading.Thread(target=_wait, args=(heard,), name="interrupt", daemon=True).start()


def over() -> None:
    """Let signals do nothing any more: the command has its result, and a late one must not change its code."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait(heard: int) -> None:
    while not _is_ours(os.read(heard, 1)):
        pass
    # Looked up, since a command that asks nobody has not loaded it.
    if _HTTP in sys.modules:
        importlib.import_module(_HTTP).give_up_all()
    while select.select([heard], [], [], GRACE_S)[0]:
        if _is_ours(os.read(heard, 1)):
            break
    _end()


def _is_ours(read: bytes) -> bool:
    return bool(read) and read[0] in _SIGNALS


def _end() -> NoReturn:
    for child in _children():
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGTERM)
    # Not through the console: the thread that holds its lock may be the one that hangs.
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"airlift: {SAID}\n".encode())
    os._exit(exits.INTERRUPTED)


def _children() -> list[int]:
    """Return the programs that this process started and that still run."""
    with contextlib.suppress(OSError):
        texts = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
        return [int(word) for text in texts for word in text.split()]
    return []
