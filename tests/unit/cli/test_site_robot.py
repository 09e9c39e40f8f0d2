from __future__ import annotations

import pytest

from airlift.cli import site_robot


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "without an end"),
        (1_800_000_000, "until 2027-01-15T08:00:00Z"),
        (2**53, f"until {2**53} seconds after 1970"),
        (2**80, f"until {2**80} seconds after 1970"),
    ],
)
def test_the_end_of_a_robot_is_said_whatever_a_harbor_takes_for_a_time(seconds: int, said: str) -> None:
    assert site_robot._until(seconds) == said
