"""How calls to an external registry are made while it is overburdened."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from airlift.errors import DeliveryError

_TRIES: Final = 3
"""How often a call is made alone; each repeats its requests as the client does, so all of it takes about a minute."""
_PATIENCE_S: Final = 60.0


class Patience:
    """Lets calls run side by side until the registry is overburdened, from then on one by one, and ends for all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._alone = threading.Lock()
        self._is_pressed = threading.Event()
        self._ended: DeliveryError | None = None

    def call(self, call: Callable[[], object]) -> None:
        """Make a call, and alone when one failed for a passing reason."""
        if not self._is_pressed.is_set():
            try:
                call()
            except DeliveryError as error:
                if not error.temporary:
                    raise
                self._is_pressed.set()
            else:
                return
        with self._alone:
            self._insist(call)

    def _insist(self, call: Callable[[], object]) -> None:
        """Make a call a few times; once one has failed so for a passing reason, none is made any more."""
        begun = self._clock()
        for left in reversed(range(_TRIES)):
            if self._ended is not None:
                raise self._ended
            try:
                call()
            except DeliveryError as error:
                if not error.temporary:
                    raise
                if not left or self._clock() - begun > _PATIENCE_S:
                    self._ended = error
                    raise
            else:
                return
