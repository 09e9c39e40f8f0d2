"""The real Harbor that a tester names, and what is done so that nothing stays there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from tests.support import real_harbor
from tests.support.real_harbor import HarborUnderTest


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def named_harbor() -> Iterator[HarborUnderTest]:
    """The Harbor of AIRLIFT_TEST_HARBOR; what the run made in it is removed at the end, also when it is terminated."""
    harbor = real_harbor.named()
    if harbor is None:
        pytest.skip(f"no Harbor is named: {real_harbor.URL}, {real_harbor.USER} and {real_harbor.PASSWORD}")
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        with real_harbor.clearing(harbor):
            yield harbor
    finally:
        signal.signal(signal.SIGTERM, before)
