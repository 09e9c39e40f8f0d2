"""How calls to an external registry are made while it is overburdened."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from airlift.errors import DeliveryError


class Patience:
    """Lets calls run side by side until the registry is overburdened, and from then on one by one."""

    def __init__(self) -> None:
        self._alone = threading.Lock()
        self._is_pressed = threading.Event()

    def call(self, call: Callable[[], object]) -> None:
        """Make a call, once more and alone when it failed for a passing reason."""
        was_pressed = self._is_pressed.is_set()
        with self._alone if was_pressed else contextlib.nullcontext():
            try:
                call()
            except DeliveryError as error:
                if not error.temporary or was_pressed:
                    raise
                self._is_pressed.set()
            else:
                return
        with self._alone:
            call()
