"""Who spent what in a period, from recorded intervals alone. Read by the desk's answers and the daily digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from bot.core.periods import Period
from bot.store.store import Charge, Store
from tools.cost import Amount, clip


@dataclass(frozen=True, kw_only=True)
class Spend:
    """Dollars inside a period, whole and by whom and what; largest first."""

    period: Period
    total: Amount
    by_requester: tuple[tuple[str, Amount], ...]
    by_recipe: tuple[tuple[str, Amount], ...]
    by_device: tuple[tuple[str, Amount], ...]


async def spend(store: Store, team: str, period: Period, now: datetime) -> Spend:
    """The spend of a workspace, with what still runs charged up to `now`."""
    charges = await store.charges(team, period.start, period.end)
    costs = [(charge, clip(charge.interval, period.start, period.end, now)) for charge in charges]
    return Spend(
        period=period,
        total=sum((cost for _, cost in costs), start=Amount()),
        by_requester=_by(costs, lambda charge: charge.requester),
        by_recipe=_by(costs, lambda charge: charge.recipe),
        by_device=_by(costs, _device),
    )


def _by(costs: list[tuple[Charge, Amount]], key: Callable[[Charge], str]) -> tuple[tuple[str, Amount], ...]:
    sums: dict[str, Amount] = {}
    for charge, cost in costs:
        sums[key(charge)] = sums.get(key(charge), Amount()) + cost
    return tuple(sorted(sums.items(), key=lambda item: (-item[1].dollars, item[0])))


def _device(charge: Charge) -> str:
    resources = charge.interval.resources
    return f"{resources.gpu_product or 'GPU'}" if charge.gpus else "CPU"
