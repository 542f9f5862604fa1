"""What a training would run as and cost, and what the month's budget still bears: the terms of a proposal."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from bot.core.errors import Refused, Unavailable
from bot.core.periods import Period, month
from bot.core.policy import Budget, Policy
from bot.core.proposal import Offer
from bot.store.spending import Spending
from bot.store.store import Store
from tools.cost import estimate
from tools.engines.base import Engine, EngineRefused, EngineUnavailable
from tools.rates import RateCard, Rates
from tools.spec import TrainingSpec


class Pricing:
    """Prices by the rate card in force, history from the store, the budget from both."""

    def __init__(self, store: Store, engine: Engine, rates: RateCard, zone: ZoneInfo) -> None:
        self._store = store
        self._engine = engine
        self._rates = rates
        self.zone = zone

    async def offer(self, spec: TrainingSpec, now: datetime) -> Offer:
        """The exact manifest with its estimate. `Refused` if the engine could never run it."""
        try:
            await self._engine.preflight(spec)
            resources = self._engine.resources(spec)
            manifest = self._engine.render(spec)
        except EngineRefused as error:
            raise Refused(str(error)) from error
        except EngineUnavailable as error:
            raise Unavailable(str(error)) from error
        rates = self._rates.at(now)
        hourly = rates.hourly(resources)
        return Offer(
            spec=spec,
            manifest=manifest,
            resources=resources,
            rate_version=rates.version,
            hourly=hourly,
            estimate=estimate(spec, resources, hourly, await self._store.history()),
        )

    def rates_of(self, offer: Offer) -> Rates | None:
        """The rates that it was approved at; None if the file has them no more, or says otherwise by now."""
        rates = self._rates.version(offer.rate_version)
        return rates if rates is not None and rates.hourly(offer.resources) == offer.hourly else None

    def month(self, now: datetime) -> Period:
        """The calendar month that budgets are kept for."""
        return month(now.astimezone(self.zone).date(), self.zone)

    async def budget(
        self, policy: Policy, team: str, channel: str, now: datetime, *, apart_from: str | None = None
    ) -> Budget:
        """This month's budget; `apart_from` leaves out what one proposal's own job has committed."""
        spending = await self._store.spending(team, self.month(now), now, apart_from=apart_from)
        return budget_in(spending, policy, channel)


def budget_in(spending: Spending, policy: Policy, channel: str) -> Budget:
    """The month's budget in a channel: the channel's own where that is the tighter one."""
    spent, committed = spending.of(None)
    whole = Budget(limit=policy.budget_per_month, spent=spent.dollars, committed=committed)
    if policy.channel_budget_per_month is None:
        return whole
    spent, committed = spending.of(channel)
    own = Budget(limit=policy.channel_budget_per_month, spent=spent.dollars, committed=committed, of=" of this channel")
    assert own.left is not None
    return own if whole.left is None or own.left <= whole.left else whole
