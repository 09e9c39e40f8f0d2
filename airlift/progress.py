"""How long work reports how far it is. The library reports; `airlift.cli.console` draws."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener. All methods may be called from any thread and must not raise."""

    def start(self, label: str, total: int, *, unit: str = "B") -> None:
        """A phase begins: `total` units (bytes unless `unit` says otherwise; 0 when not known)."""

    def advance(self, amount: int) -> None:
        """Some units of the current phase are done."""

    def finish(self) -> None:
        """The current phase is over."""

    def note(self, message: str) -> None:
        """Something a person should read, in one line."""

    def warn(self, message: str) -> None:
        """Something a person should act on, in one line."""


class Silent:
    """A listener that keeps nothing."""

    def start(self, label: str, total: int, *, unit: str = "B") -> None:
        """Ignore it."""

    def advance(self, amount: int) -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""

    def note(self, message: str) -> None:
        """Ignore it."""

    def warn(self, message: str) -> None:
        """Ignore it."""
