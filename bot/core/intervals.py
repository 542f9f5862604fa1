"""An engine's attempts as the intervals that are charged. Pure.

An attempt has no name that outlives its pod: what is recorded and what is seen are taken for one by when they began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from bot.core.proposal import Offer
from tools.cost import Interval
from tools.engines.base import Attempt

# How a recorded interval is known to be an attempt that is seen, the surest first: one that has ended, one that runs on
# or ended meanwhile, one whose end is known better now. Two nodes may begin in the same second.
_SAME: tuple[Callable[[Interval, Attempt], bool], ...] = (
    lambda held, seen: held.ended_at == seen.ended_at,
    lambda held, _: held.ended_at is None,
    lambda *_: True,
)


def charged(recorded: Sequence[Interval], attempts: Sequence[Attempt], offer: Offer) -> tuple[Interval, ...]:
    """The attempts as intervals at the approved rates. Times before the bot's own restart are as observed.

    Each node's attempts are its own. What was recorded and cannot be observed any more (a drained node took its pod
    along) was held all the same: it stays, and ended at the latest when another began in its place.
    """
    _, unseen = _paired(recorded, attempts)
    seen = [
        Interval(
            attempt=attempt.number,
            started_at=attempt.started_at,
            ended_at=attempt.ended_at,
            resources=offer.resources.each,
            rate_version=offer.rate_version,
            hourly=offer.hourly.shared(offer.resources.nodes),
            estimated=attempt.estimated,
        )
        for attempt in attempts
    ]
    found = sorted((*seen, *unseen), key=lambda interval: interval.started_at)
    return tuple(replace(one, attempt=number) for number, one in enumerate(_replaced(found, unseen, offer), 1))


def is_recorded(recorded: Sequence[Interval], attempts: Sequence[Attempt]) -> bool:
    """Whether every attempt has its interval, as it is seen."""
    known, _ = _paired(recorded, attempts)
    return all(
        held is not None and (held.ended_at, held.estimated) == (attempt.ended_at, attempt.estimated)
        for held, attempt in zip(known, attempts, strict=True)
    )


def closed(interval: Interval, now: datetime) -> Interval:
    """An interval whose end nobody saw ends now, marked as estimated."""
    if interval.ended_at is not None:
        return interval
    return replace(interval, ended_at=max(now, interval.started_at), estimated=True)


def _paired(recorded: Sequence[Interval], attempts: Sequence[Attempt]) -> tuple[list[Interval | None], list[Interval]]:
    """The interval of each attempt, and those that are none's."""
    left = list(recorded)
    known: list[Interval | None] = [None] * len(attempts)
    for same in _SAME:
        for place, seen in enumerate(attempts):
            alike = (held for held in left if held.started_at == seen.started_at and same(held, seen))
            if known[place] is None and (held := next(alike, None)) is not None:
                known[place] = held
                left.remove(held)
    return known, left


def _replaced(found: Sequence[Interval], unseen: Sequence[Interval], offer: Offer) -> list[Interval]:
    """With no more open at once than there are nodes: of those that nobody sees, the oldest gave way to the newest."""
    made: list[Interval] = []
    lost: list[int] = []
    for place, interval in enumerate(found):
        made.append(interval)
        if interval.ended_at is None and any(interval is one for one in unseen):
            lost.append(place)
        while lost and _held(made, interval.started_at) > offer.resources.nodes:
            oldest = lost.pop(0)
            made[oldest] = closed(made[oldest], interval.started_at)
    return made


def _held(intervals: Sequence[Interval], at: datetime) -> int:
    """How many of those that have begun are held then."""
    return sum(one.ended_at is None or one.ended_at > at for one in intervals)
