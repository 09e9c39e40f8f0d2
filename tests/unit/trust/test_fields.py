from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from airlift.errors import BundleError, UsageError
from airlift.trust.fields import format_time, parse_time


@pytest.mark.parametrize(
    "value",
    [datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 11, 25, 12, 0, 0, 999_999, UTC), datetime(9999, 12, 31, tzinfo=UTC)],
)
def test_a_time_comes_back_from_its_text(value: datetime) -> None:
    assert parse_time(format_time(value)) == value.replace(microsecond=0)


def test_a_time_is_written_in_utc_and_needs_a_zone() -> None:
    lima = timezone(timedelta(hours=-5))
    assert format_time(datetime(2026, 11, 25, 22, 30, tzinfo=lima)) == "2026-11-26T03:30:00Z"
    with pytest.raises(UsageError, match=r"has no time zone$"):
        format_time(datetime(2026, 11, 25))  # noqa: DTZ001 - that is what is refused


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T12:00:00",
        "2026-11-25 12:00:00Z",
        "2026-11-25T12:00:00z",
        "2026-11-25T12:00:00+00:00",
        "2026-11-25T12:00:00.0Z",
        "26-11-25T12:00:00Z",
        "2026-11-25T12:00:00Z\n",
        "\uff12\uff10\uff12\uff16-11-25T12:00:00Z",
        "\u0662\u0660\u0662\u0666-11-25T12:00:00Z",
        "2026-02-29T12:00:00Z",
        "2026-11-25T24:00:00Z",
        "2026-11-25T12:00:60Z",
        "0000-01-01T00:00:00Z",
    ],
)
def test_a_time_that_is_written_in_another_way_or_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"^time: .* (is not written as YYYY-MM-DDTHH:MM:SSZ|does not exist)$"):
        parse_time(text)
