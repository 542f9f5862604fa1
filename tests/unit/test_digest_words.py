"""What a digest says of money that brought nothing, and of estimates that held."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from bot.core.job import Job, JobPhase
from bot.digests import Outcome, coverage, waste
from tests.slack.states import NOW, approved, job
from tools.cost import Amount, actual


def outcome(phase: JobPhase, *minutes: int, preempted: bool = False, pulled: int = 0) -> Outcome:
    """A job that held its resources so many minutes in each attempt, at $6.00 an hour; the first may be preempted."""
    proposal = approved()
    of: Job = job(proposal, phase)
    (held,) = of.intervals
    start, attempts = NOW - timedelta(hours=5), []
    for number, length in enumerate(minutes, 1):
        end = start + timedelta(minutes=length)
        hourly = Amount(dollars=Decimal(6))
        began = start + timedelta(minutes=pulled) if pulled else None
        made = replace(held, attempt=number, started_at=start, ended_at=end, hourly=hourly, began_at=began)
        attempts.append(replace(made, preempted=preempted and number == 1))
        start = end
    of = replace(of, intervals=tuple(attempts))
    estimate = proposal.offer.estimate
    return Outcome(job=of, recipe="digits", estimate=estimate, actual=actual(of.intervals, NOW))


def test_what_brought_nothing() -> None:
    """10 min cancelled are $1.00, 20 + 5 min failed $2.50, the first 30 min of one that succeeded $3.00."""
    ended = [
        outcome(JobPhase.SUCCEEDED, 60),
        outcome(JobPhase.SUCCEEDED, 30, 60),
        outcome(JobPhase.CANCELLED, 10),
        outcome(JobPhase.FAILED, 20, 5),
    ]
    assert waste(ended) == ("brought nothing: $6.50 (attempts that were repeated $3.00, cancelled $1.00, failed $2.50)")
    assert waste(ended[:1]) == ""


def test_what_the_cluster_took() -> None:
    """30 min preempted are $3.00, 20 more $2.00; 6 min of the 60 that brought a result pulled the image: $0.60."""
    ended = [
        outcome(JobPhase.SUCCEEDED, 30, 60, preempted=True, pulled=6),
        outcome(JobPhase.FAILED, 20, 5, preempted=True, pulled=6),
        outcome(JobPhase.SUCCEEDED, 60, preempted=True),
    ]
    assert waste(ended) == "brought nothing: $6.10 (failed $0.50, image pull $0.60, preempted $5.00)"


def test_how_often_the_estimate_held() -> None:
    p90 = outcome(JobPhase.SUCCEEDED, 1).estimate.p90_seconds
    assert p90 is not None and p90 < 60
    within = outcome(JobPhase.SUCCEEDED, 0)
    assert coverage([within, outcome(JobPhase.SUCCEEDED, 9), outcome(JobPhase.FAILED, 9)]) == (
        "estimates: 1 of 2 within their P90"
    )
    assert coverage([outcome(JobPhase.FAILED, 9)]) == ""
