"""Days and months of a time zone as windows in UTC: what budgets and digests count by. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True, kw_only=True)
class Period:
    """The half-open window [start, end) and its name for people."""

    name: str
    start: datetime
    end: datetime


def day(of: date, zone: ZoneInfo) -> Period:
    """Local midnight to local midnight: 23, 24 or 25 hours."""
    return Period(name=of.isoformat(), start=_midnight(of, zone), end=_midnight(of + timedelta(days=1), zone))


def days(first: date, last: date, zone: ZoneInfo, name: str) -> Period:
    """From the first day's midnight to the end of the last."""
    return Period(name=name, start=_midnight(first, zone), end=_midnight(last + timedelta(days=1), zone))


def month(of: date, zone: ZoneInfo) -> Period:
    """The calendar month that holds this date."""
    first = of.replace(day=1)
    following = (first + timedelta(days=32)).replace(day=1)
    return Period(name=f"{of:%B %Y}", start=_midnight(first, zone), end=_midnight(following, zone))


def parse_period(text: str, now: datetime, zone: ZoneInfo) -> Period:
    """`today`, `yesterday`, `week`, `last week`, `month`, `last month`, `all`, `2026-11-23`, `2026-11`.

    Raises ValueError for anything else.
    """
    today = now.astimezone(zone).date()
    word = " ".join(text.lower().replace("_", " ").removeprefix("this ").removeprefix("the ").split())
    monday = today - timedelta(days=today.weekday())
    match word:
        case "today":
            return day(today, zone)
        case "yesterday":
            return day(today - timedelta(days=1), zone)
        case "week":
            return days(monday, today, zone, "this week")
        case "last week":
            return days(monday - timedelta(days=7), monday - timedelta(days=1), zone, "last week")
        case "month" | "":
            return month(today, zone)
        case "last month":
            return month(today.replace(day=1) - timedelta(days=1), zone)
        case "all" | "ever" | "all time" | "total":
            return days(date(2000, 1, 1), today, zone, "all time")
    try:
        return day(_sane(date.fromisoformat(word)), zone)
    except ValueError:
        return month(_sane(date.fromisoformat(f"{word}-01")), zone)


def _sane(of: date) -> date:
    """Only dates that have a neighbour on either side in every time zone."""
    if not 1970 <= of.year <= 9000:
        raise ValueError(f"{of} is out of range")
    return of


def _midnight(of: date, zone: ZoneInfo) -> datetime:
    return datetime.combine(of, time(), tzinfo=zone).astimezone(UTC)
