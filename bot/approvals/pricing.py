"""What a training would run as and cost, and what the month's budget still bears: the terms of a proposal."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from bot.core.errors import Refused, Unavailable
from bot.core.periods import Period, month
from bot.core.policy import Budget, Policy
from bot.core.proposal import Offer
from bot.store.store import Store
from tools.cost import Amount, RateCard, actual, clip, estimate
from tools.engines.base import Engine, EngineRefused, EngineUnavailable
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
        return Offer(
            spec=spec,
            manifest=manifest,
            resources=resources,
            rate_version=rates.version,
            hourly=rates.hourly(resources),
            estimate=estimate(spec, resources, rates, await self._store.history()),
        )

    async def budget(
        self, policy: Policy, team: str, channel: str, now: datetime, *, apart_from: str | None = None
    ) -> Budget:
        """This month's budget, the channel's where that is the tighter one.

        `apart_from` leaves out what one proposal's own job has committed.
        """
        whole = await self._budget(policy.budget_per_month, team, None, now, apart_from)
        if policy.channel_budget_per_month is None:
            return whole
        own = await self._budget(policy.channel_budget_per_month, team, channel, now, apart_from)
        assert own.left is not None
        return own if whole.left is None or own.left <= whole.left else whole

    async def _budget(
        self, limit: Decimal | None, team: str, channel: str | None, now: datetime, apart_from: str | None
    ) -> Budget:
        period = month(now.astimezone(self.zone).date(), self.zone)
        committed = Decimal(0)
        for job, ceiling in await self._store.commitments(team, apart_from=apart_from):
            if channel in (None, job.channel):
                committed += max(Decimal(0), ceiling.dollars - actual(job.intervals, now).amount.dollars)
        spent = (await self._spent(team, channel, period, now)).dollars
        return Budget(limit=limit, spent=spent, committed=committed, of=" of this channel" if channel else "")

    async def _spent(self, team: str, channel: str | None, period: Period, now: datetime) -> Amount:
        """What the intervals inside a period cost."""
        charges = await self._store.charges(team, period.start, period.end, channel=channel)
        costs = (clip(charge.interval, period.start, period.end, now) for charge in charges)
        return sum(costs, start=Amount())
