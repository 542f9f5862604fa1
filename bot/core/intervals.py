"""An engine's attempts as the intervals that are charged. Pure.

An attempt has no name that outlives its pod: what is recorded and what is seen are taken for one by when they began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from bot.core.proposal import Offer
from tools.cost import Interval, Resources
from tools.engines.base import Attempt, Machine
from tools.rates import Rates

# How a recorded interval is known to be an attempt that is seen, the surest first: one that has ended, one that runs on
# or ended meanwhile, one whose end is known better now. Two nodes may begin in the same second.
_SAME: tuple[Callable[[Interval, Attempt], bool], ...] = (
    lambda held, seen: held.ended_at == seen.ended_at,
    lambda held, _: held.ended_at is None,
    lambda *_: True,
)


def charged(
    recorded: Sequence[Interval], attempts: Sequence[Attempt], offer: Offer, rates: Rates | None
) -> tuple[Interval, ...]:
    """The attempts as intervals at the approved `rates` (None: these are not to be had any more).

    Times before the bot's own restart are as observed. Each node's attempts are its own. What was recorded and cannot
    be observed any more (a drained node took its pod along) was held all the same: it stays, and ended at the latest
    when another began in its place.
    """
    known, unseen = _paired(recorded, attempts)
    seen = [_interval(held, attempt, offer, rates) for held, attempt in zip(known, attempts, strict=True)]
    found = sorted((*seen, *unseen), key=lambda interval: interval.started_at)
    return tuple(replace(one, attempt=number) for number, one in enumerate(_replaced(found, unseen, offer), 1))


def is_recorded(recorded: Sequence[Interval], attempts: Sequence[Attempt]) -> bool:
    """Whether every attempt has its interval, as it is seen."""
    known, _ = _paired(recorded, attempts)
    return all(
        held is not None
        and (held.ended_at, held.estimated) == (attempt.ended_at, attempt.estimated)
        and _may_be_on(attempt.machine, held.resources)
        for held, attempt in zip(known, attempts, strict=True)
    )


def closed(interval: Interval, at: datetime) -> Interval:
    """An interval whose end nobody saw ended then at the latest, marked as estimated."""
    if interval.ended_at is not None and (not interval.estimated or interval.ended_at <= at):
        return interval
    return replace(interval, ended_at=max(at, interval.started_at), estimated=True)


def _interval(held: Interval | None, seen: Attempt, offer: Offer, rates: Rates | None) -> Interval:
    """An attempt at the price of its machine; at the approved one where that is what was approved, or nobody knows.

    `held`: as it is recorded, whose price stays as long as nothing else is seen.
    """
    approved = offer.resources.each
    resources = _on(seen.machine, held.resources if held is not None else approved)
    if held is not None and held.resources == resources:
        hourly = held.hourly
    elif rates is None or resources == approved:
        hourly = offer.hourly.shared(offer.resources.nodes)
    else:
        hourly = rates.hourly(resources)
    return Interval(
        attempt=seen.number,
        started_at=seen.started_at,
        ended_at=seen.ended_at,
        resources=resources,
        rate_version=offer.rate_version,
        hourly=hourly,
        estimated=seen.estimated,
        began_at=seen.began_at or (held.began_at if held is not None else None),
        preempted=seen.preempted or (held is not None and held.preempted),
    )


def _on(machine: Machine, resources: Resources) -> Resources:
    """The same on that machine; what is not known of it stays as it was approved, or seen before."""
    product = (machine.gpu_product or resources.gpu_product) if resources.gpus else None
    spot = resources.spot if machine.spot is None else machine.spot
    return replace(resources, gpu_product=product, spot=spot)


def _may_be_on(machine: Machine, resources: Resources) -> bool:
    return _on(machine, resources) == resources


def _paired(recorded: Sequence[Interval], attempts: Sequence[Attempt]) -> tuple[list[Interval | None], list[Interval]]:
    """The interval of each attempt, on its own machine if there is a choice, and those that are none's."""
    left = list(recorded)
    known: list[Interval | None] = [None] * len(attempts)
    for same in _SAME:
        for place, seen in enumerate(attempts):
            alike = [held for held in left if held.started_at == seen.started_at and same(held, seen)]
            if known[place] is None and alike:
                held = next((one for one in alike if _may_be_on(seen.machine, one.resources)), alike[0])
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
