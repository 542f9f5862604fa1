"""Days and months of a time zone, over the changes of its clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from bot.core.periods import day, month, parse_period

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 24, 23, 30, tzinfo=UTC)  # 25 November in Berlin


def test_days_have_23_24_or_25_hours() -> None:
    lengths = [day(of, BERLIN) for of in (date(2026, 3, 29), date(2026, 6, 1), date(2026, 10, 25))]
    assert [one.end - one.start for one in lengths] == [timedelta(hours=hours) for hours in (23, 24, 25)]


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("today", "2026-11-24T23:00", "2026-11-25T23:00"),
        ("yesterday", "2026-11-23T23:00", "2026-11-24T23:00"),
        ("this month", "2026-10-31T23:00", "2026-11-30T23:00"),
        ("last month", "2026-09-30T22:00", "2026-10-31T23:00"),
        ("2026-02", "2026-01-31T23:00", "2026-02-28T23:00"),
        ("2026-07-01", "2026-06-30T22:00", "2026-07-01T22:00"),
        ("last week", "2026-11-15T23:00", "2026-11-22T23:00"),
    ],
)
def test_periods_in_words(text: str, start: str, end: str) -> None:
    found = parse_period(text, NOW, BERLIN)
    assert (f"{found.start:%Y-%m-%dT%H:%M}", f"{found.end:%Y-%m-%dT%H:%M}") == (start, end)


def test_months_follow_each_other_without_a_gap() -> None:
    assert month(date(2026, 12, 31), BERLIN).end == month(date(2027, 1, 1), BERLIN).start


@pytest.mark.parametrize("text", ["soon", "2026-13", "2026-02-30", "'; drop table"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_period(text, NOW, BERLIN)
