"""Who spent what in a period, from recorded intervals alone. Read by the desk's answers and the daily digest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from bot.core.periods import Period
from bot.store.spending import Spent
from bot.store.store import Store
from tools.cost import Amount, Resources


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
    return spend_of(await store.spent(team, period, now), period)


def spend_of(spent: list[Spent], period: Period) -> Spend:
    """The same from what was read."""
    return Spend(
        period=period,
        total=sum((one.amount for one in spent), start=Amount()),
        by_requester=_by(spent, lambda one: one.requester),
        by_recipe=_by(spent, lambda one: one.recipe),
        by_device=_by(spent, lambda one: _device(one.resources)),
    )


def _device(held: Resources) -> str:
    name = held.gpu_product or ("GPU" if held.gpus else "CPU")
    return f"{name} spot" if held.spot else name


def _by(spent: list[Spent], key: Callable[[Spent], str]) -> tuple[tuple[str, Amount], ...]:
    sums: dict[str, Amount] = {}
    for one in spent:
        sums[key(one)] = sums.get(key(one), Amount()) + one.amount
    return tuple(sorted(sums.items(), key=lambda item: (-item[1].dollars, item[0])))
