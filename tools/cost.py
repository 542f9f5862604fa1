"""What a training may cost, and what it did cost. Pure and in Decimal; no rounding before the eye.

Two values that never mix: an `Estimate` speaks before anything runs (P50/P90 from history, and always the hard
ceiling), an `Actual` comes from recorded intervals alone. What has no rate is named in `Amount.unpriced` and
is never taken as zero dollars. `tools.rates` says what an hour costs, docs/cost-model.md explains the formulae.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Self

from tools.spec import TrainingSpec

HOUR = Decimal(3600)
MIN_HISTORY = 5  # finished jobs of one key before P50/P90 are given


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job holds while it runs, as it is charged: CPU cores, GPUs of one product, memory in GiB, on each node.

    `gpu_product` is None where any may be taken; `spot`: on a machine that may be taken away.
    """

    cpu_cores: Decimal
    gpus: int = 0
    gpu_product: str | None = None
    memory_gib: Decimal = Decimal(0)
    nodes: int = 1
    spot: bool = False

    @property
    def each(self) -> Resources:
        """Those of one node."""
        return replace(self, nodes=1)

    def document(self) -> dict[str, Any]:
        """JSON-ready form; decimals as text."""
        return {
            "cpu_cores": str(self.cpu_cores),
            "gpus": self.gpus,
            "gpu_product": self.gpu_product,
            "memory_gib": str(self.memory_gib),
            **({"nodes": self.nodes} if self.nodes > 1 else {}),
            **({"spot": True} if self.spot else {}),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `document`."""
        return cls(
            cpu_cores=Decimal(document["cpu_cores"]),
            gpus=int(document["gpus"]),
            gpu_product=document["gpu_product"],
            memory_gib=Decimal(document["memory_gib"]),
            nodes=int(document.get("nodes", 1)),
            spot=bool(document.get("spot", False)),
        )


@dataclass(frozen=True, kw_only=True)
class Amount:
    """Dollars, and the names of resources that have no rate and are therefore not in them."""

    dollars: Decimal = Decimal(0)
    unpriced: tuple[str, ...] = ()

    def __add__(self, other: Amount) -> Amount:
        names = dict.fromkeys((*self.unpriced, *other.unpriced))
        return Amount(dollars=self.dollars + other.dollars, unpriced=tuple(names))

    def times(self, factor: Decimal) -> Amount:
        """This amount, `factor` times over (an hourly amount times hours)."""
        return Amount(dollars=self.dollars * factor, unpriced=self.unpriced)

    def shared(self, parts: int) -> Amount:
        """One of so many equal parts."""
        return self if parts == 1 else Amount(dollars=self.dollars / parts, unpriced=self.unpriced)

    def document(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {"dollars": str(self.dollars), "unpriced": list(self.unpriced)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `document`."""
        return cls(dollars=Decimal(document["dollars"]), unpriced=tuple(document["unpriced"]))

    def __str__(self) -> str:
        if not self.unpriced:
            return dollars(self.dollars)
        missing = f"unpriced: {', '.join(self.unpriced)}"
        return f"{dollars(self.dollars)} + {missing}" if self.dollars else missing


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """One finished training, as history for estimates."""

    spec: TrainingSpec
    gpu_product: str | None
    seconds: Decimal


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training is expected to take and cost, and the most it can cost before it is stopped."""

    ceiling: Amount
    ceiling_seconds: int
    p50: Amount | None = None
    p90: Amount | None = None
    p50_seconds: Decimal | None = None
    p90_seconds: Decimal | None = None
    basis: str = "no history yet"

    def document(self) -> dict[str, Any]:
        """JSON-ready form; what is not known is null."""
        return {
            "ceiling": self.ceiling.document(),
            "ceiling_seconds": self.ceiling_seconds,
            "p50": self.p50.document() if self.p50 else None,
            "p90": self.p90.document() if self.p90 else None,
            "p50_seconds": str(self.p50_seconds) if self.p50_seconds is not None else None,
            "p90_seconds": str(self.p90_seconds) if self.p90_seconds is not None else None,
            "basis": self.basis,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `document`."""
        return cls(
            ceiling=Amount.from_document(document["ceiling"]),
            ceiling_seconds=int(document["ceiling_seconds"]),
            p50=Amount.from_document(document["p50"]) if document["p50"] else None,
            p90=Amount.from_document(document["p90"]) if document["p90"] else None,
            p50_seconds=Decimal(document["p50_seconds"]) if document["p50_seconds"] is not None else None,
            p90_seconds=Decimal(document["p90_seconds"]) if document["p90_seconds"] is not None else None,
            basis=document["basis"],
        )


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One attempt's hold on its resources. `ended_at` is None while it runs; `estimated` where an end was repaired."""

    attempt: int
    started_at: datetime
    ended_at: datetime | None
    resources: Resources
    rate_version: str
    hourly: Amount  # snapshot, so that a changed file never changes a past cost
    estimated: bool = False
    # What it went into, as far as that was seen; written with the next change of the rest, so no change by itself.
    began_at: datetime | None = field(default=None, compare=False)  # its program; until then its image was pulled
    preempted: bool = field(default=False, compare=False)  # the cluster took its machine away

    def seconds(self, now: datetime) -> Decimal:
        """How long it held its resources, up to `now` if it still does."""
        return max(Decimal(0), _seconds((self.ended_at or now) - self.started_at))


@dataclass(frozen=True, kw_only=True)
class Actual:
    """What a training has cost, from its intervals alone."""

    amount: Amount
    seconds: Decimal  # that anything was held: several nodes at once count once
    final: bool  # False while an interval is still open
    estimated: bool  # True if any end was repaired rather than observed


def estimate(spec: TrainingSpec, resources: Resources, hourly: Amount, history: Sequence[PastRun]) -> Estimate:
    """Ceiling = maximum runtime × `hourly`, always; P50/P90 from at least five runs of the narrowest key that has them.

    Durations are normalised to seconds an epoch, except under the narrowest key, where the epochs are equal.
    """
    limit = Decimal(spec.max_runtime_minutes * 60)
    ceiling = hourly.times(limit / HOUR)
    for basis, key in _KEYS:
        wanted = key(spec, resources.gpu_product)
        alike = [run for run in history if key(run.spec, run.gpu_product) == wanted]
        if len(alike) >= MIN_HISTORY:
            per_epoch = sorted(run.seconds / run.spec.epochs for run in alike)
            p50, p90 = (min(limit, _quantile(per_epoch, share) * spec.epochs) for share in (50, 90))
            return Estimate(
                ceiling=ceiling,
                ceiling_seconds=int(limit),
                p50=hourly.times(p50 / HOUR),
                p90=hourly.times(p90 / HOUR),
                p50_seconds=p50,
                p90_seconds=p90,
                basis=f"{len(alike)} runs of {basis}",
            )
    return Estimate(ceiling=ceiling, ceiling_seconds=int(limit))


def actual(intervals: Sequence[Interval], now: datetime) -> Actual:
    """The sum over every attempt's interval of hours × hourly amount."""
    amount = Amount()
    seconds = Decimal(0)
    until: datetime | None = None
    for interval in sorted(intervals, key=lambda one: one.started_at):
        amount = amount + interval.hourly.times(interval.seconds(now) / HOUR)
        ended = max(interval.started_at, interval.ended_at or now)
        begun = interval.started_at if until is None else max(interval.started_at, until)
        seconds += max(Decimal(0), _seconds(ended - begun))
        until = ended if until is None else max(until, ended)
    return Actual(
        amount=amount,
        seconds=seconds,
        final=all(interval.ended_at is not None for interval in intervals),
        estimated=any(interval.estimated for interval in intervals),
    )


def clip(interval: Interval, start: datetime, end: datetime, now: datetime) -> Amount:
    """What an interval cost inside the window [start, end): digests and budgets count a day or month, not a job."""
    begun = max(interval.started_at, start)
    ended = min(interval.ended_at or now, end)
    return interval.hourly.times(max(Decimal(0), _seconds(ended - begun)) / HOUR)


def dollars(amount: Decimal) -> str:
    """Dollars for the eye: cents where they say it all or from one dollar up, else four places, never a false zero."""
    if amount == 0:
        return "$0.00"
    if abs(amount) >= 1:
        return f"${amount:,.2f}"
    if abs(amount) < Decimal("0.0001"):
        return "less than $0.0001"
    return f"${amount:.2f}" if amount == round(amount, 2) else f"${amount:.4f}"


def _seconds(span: Any) -> Decimal:
    return Decimal(span.days * 86400 + span.seconds) + Decimal(span.microseconds) / 1_000_000


def _quantile(ordered: Sequence[Decimal], percent: int) -> Decimal:
    return statistics.quantiles(ordered, n=100, method="inclusive")[percent - 1]


def _data(spec: TrainingSpec) -> tuple[Any, ...]:
    return (spec.recipe, getattr(spec, "model", None), getattr(spec, "dataset", None))


def _device(spec: TrainingSpec, product: str | None) -> tuple[Any, ...]:
    return (spec.gpus, spec.machines, product if spec.gpus else None)


def _size(spec: TrainingSpec, product: str | None) -> tuple[Any, ...]:
    return (*_same_data(spec, product), spec.batch_size, getattr(spec, "block_size", None))


def _same_data(spec: TrainingSpec, product: str | None) -> tuple[Any, ...]:
    return (*_data(spec), *_device(spec, product))


# From the narrowest key to the widest. A key never mixes devices: a GPU's seconds say nothing of a CPU's.
_KEYS: tuple[tuple[str, Callable[[TrainingSpec, str | None], tuple[Any, ...]]], ...] = (
    ("the same size", lambda spec, product: (*_size(spec, product), spec.epochs)),
    ("the same batch size", _size),
    ("the same data and device", _same_data),
    ("the same recipe and device", lambda spec, product: (spec.recipe, *_device(spec, product))),
)
