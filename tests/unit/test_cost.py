"""Estimates, ceilings and actual costs, to the last digit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tools.cost import (
    Amount,
    Interval,
    PastRun,
    Resources,
    actual,
    clip,
    dollars,
    estimate,
)
from tools.spec import TrainingSpec, parse_spec

CPU = Resources(cpu_cores=Decimal(4))
HOURLY = Amount(dollars=Decimal("0.20"))
T0 = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


def digits(**given: object) -> TrainingSpec:
    return parse_spec("digits", given)


def interval(minutes: float | None, rates: Amount = HOURLY) -> Interval:
    ended = T0 + timedelta(minutes=minutes) if minutes is not None else None
    return Interval(attempt=1, started_at=T0, ended_at=ended, resources=CPU, rate_version="old", hourly=rates)


def test_the_ceiling_is_maximum_runtime_times_rate() -> None:
    # 15 min × $0.20 = $0.05
    assert estimate(digits(), CPU, HOURLY, []).ceiling == Amount(dollars=Decimal("0.05"))
    assert estimate(digits(), CPU, HOURLY, []).p50 is None


def test_history_gives_p50_and_p90_from_five_runs_on() -> None:
    runs = [PastRun(spec=digits(epochs=4), gpu_product=None, seconds=Decimal(s)) for s in (10, 20, 30, 40, 50)]
    assert estimate(digits(epochs=4), CPU, HOURLY, runs[:4]).p50 is None
    found = estimate(digits(epochs=4), CPU, HOURLY, runs)
    assert (found.p50_seconds, found.p90_seconds) == (Decimal(30), Decimal(46))
    assert found.basis == "5 runs of the same size"


def test_a_wider_key_scales_by_epochs_and_never_mixes_devices() -> None:
    runs = [PastRun(spec=digits(epochs=2), gpu_product=None, seconds=Decimal(20)) for _ in range(5)]
    assert estimate(digits(epochs=6), CPU, HOURLY, runs).p50_seconds == 60
    on_gpu = Resources(cpu_cores=Decimal(4), gpus=1, gpu_product="L4")
    assert estimate(digits(epochs=6, gpus=1), on_gpu, HOURLY, runs).p50 is None


def test_the_actual_comes_from_intervals_and_running_ones_count_up_to_now() -> None:
    spent = actual([interval(30), interval(None)], T0 + timedelta(minutes=60))
    assert spent.amount.dollars == Decimal("0.30")  # 90 min × $0.20
    assert not spent.final


def test_clipping_counts_a_day_and_not_a_job() -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    one = interval(90)
    before = clip(one, midnight - timedelta(days=1), midnight, midnight)
    after = clip(one, midnight, midnight + timedelta(days=1), midnight)
    assert (before.dollars, after.dollars) == (Decimal("0.1"), Decimal("0.2"))


def test_what_has_no_rate_stays_unpriced() -> None:
    on_gpu = Resources(cpu_cores=Decimal(4), gpus=1, gpu_product="H100")
    found = estimate(digits(gpus=1), on_gpu, Amount(unpriced=("GPU H100",)), [])
    assert str(found.ceiling) == "unpriced: GPU H100"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [("0", "$0.00"), ("0.00001", "less than $0.0001"), ("0.00412", "$0.0041"), ("1234.5", "$1,234.50")],
)
def test_dollars_for_the_eye(amount: str, shown: str) -> None:
    assert dollars(Decimal(amount)) == shown


def test_every_node_is_charged_and_time_counts_once() -> None:
    both = Resources(cpu_cores=Decimal(4), nodes=2)
    assert HOURLY.times(Decimal(2)).shared(2) == HOURLY
    assert Resources.from_document(both.document()) == both and "nodes" not in both.each.document()

    def held(attempt: int, start: int, end: int | None) -> Interval:
        began = T0 + timedelta(minutes=start)
        ended = None if end is None else T0 + timedelta(minutes=end)
        return Interval(
            attempt=attempt,
            started_at=began,
            ended_at=ended,
            resources=both.each,
            rate_version="v1",
            hourly=Amount(dollars=Decimal(6)),
        )

    spent = actual([held(1, 0, 30), held(2, 10, 40), held(3, 60, None)], T0 + timedelta(minutes=70))
    assert (spent.amount.dollars, spent.seconds) == (Decimal(7), Decimal(50 * 60))
