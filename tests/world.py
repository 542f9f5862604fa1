"""A bot in a test: real use cases and reconciler over a real database, with fakes only at the far ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from bot.approvals.deciding import Deciding, Hand
from bot.approvals.pricing import Pricing
from bot.approvals.proposing import Asked, Proposing
from bot.cards import Cards
from bot.core.policy import Policy
from bot.core.proposal import Proposal, Verdict
from bot.policies import Policies
from bot.reconciler import Reconciler
from bot.steps import Steps
from bot.store.database import Database
from bot.store.store import Store
from tests.fakes.engine import FakeEngine
from tests.fakes.surface import FakeRuns, FakeSurface
from tools.rates import RateCard
from tools.spec import parse_spec

TEAM, CHANNEL = "local", "terminal"
RATES = RateCard.parse(
    {
        "versions": [
            {
                "version": "r1",
                "effective_from": "2026-01-01T00:00:00Z",
                "cpu_core_hour": "0.05",
                "gpu_hour": {"any": "0.25"},
            }
        ]
    }
)
POLICY = {
    "approvers": ["ann", "bob", "cleo"],
    "quorum": [
        {"up_to_dollars": "1", "up_to_gpus": 0, "approvals": 1},
        {"up_to_dollars": "50", "approvals": 2},
    ],
    "budget_per_month": "1000",
    "open_proposals_per_person": 50,
}


class FixedPolicy:
    """One policy for all."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def of(self, team: str, channel: str) -> Policy:
        return self._policy.in_channel(channel)

    async def whole(self) -> Policy:
        return self._policy


@dataclass
class Clock:
    """The time in a test; it goes on a little at every look, as time does."""

    now: datetime = datetime(2026, 11, 24, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now

    def forward(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class World:
    """What outlives the bot: the clock, the database's address and the far ends. `bot()` is one life of the bot."""

    url: str
    clock: Clock = field(default_factory=Clock)
    policy: Policy = field(default_factory=lambda: Policy.parse(POLICY))
    surface: FakeSurface = field(default_factory=FakeSurface)
    runs: FakeRuns = field(default_factory=FakeRuns)
    rates: RateCard = RATES
    events: int = 0

    def __post_init__(self) -> None:
        self.engine = FakeEngine(self.clock)

    @asynccontextmanager
    async def bot(self) -> AsyncIterator[Bot]:
        async with opened(self.url, self.clock) as store:
            yield Bot(self, store)


@asynccontextmanager
async def opened(url: str, clock: Callable[[], datetime] | None = None) -> AsyncIterator[Store]:
    """The store at an address, by its own clock unless another is given."""
    database = Database(url)
    await database.open()
    try:
        yield Store(database, clock)
    finally:
        await database.close()


class Bot:
    def __init__(self, world: World, store: Store) -> None:
        self.world = world
        self.store = store
        policies = FixedPolicy(world.policy)
        self.pricing = Pricing(store, world.engine, world.rates, ZoneInfo("UTC"))
        self.proposing = Proposing(store, self.pricing, policies)
        self.deciding = Deciding(store, self.pricing, policies, lambda: None)
        self.cards = Cards(store, self.pricing, policies)
        self.reconciler = Reconciler(store, world.engine, world.runs, self.pricing, policies, world.surface)

    def steps(self, policies: Policies | None = None) -> Steps:
        """The steps alone, for who takes them when."""
        world = self.world
        policies = policies or FixedPolicy(world.policy)
        return Steps(self.store, world.engine, world.runs, self.pricing, policies, world.surface, lambda: None)

    async def propose(
        self, requester: str = "rae", recipe: str = "digits", event: str | None = None, **parameters: object
    ) -> Proposal:
        self.world.events += 1
        asked = Asked(
            team=TEAM,
            channel=CHANNEL,
            thread="t",
            requester=requester,
            prompt=f"train {recipe}",
            event_id=event or f"e{self.world.events}",
        )
        return await self.proposing.propose(asked, parse_spec(recipe, parameters))

    async def approve(self, proposal: Proposal, voter: str = "ann", seen: str | None = None) -> Proposal:
        return await self.deciding.decide(hand(voter), proposal.number, Verdict.APPROVE, seen_digest=seen)

    async def reject(self, proposal: Proposal, voter: str = "ann", reason: str = "too dear") -> Proposal:
        return await self.deciding.decide(hand(voter), proposal.number, Verdict.REJECT, reason=reason)

    async def revise(self, proposal: Proposal, author: str, changes: Mapping[str, object]) -> Proposal:
        return (await self.deciding.revise(hand(author), proposal.number, changes)).proposal

    async def fresh(self, proposal: Proposal) -> Proposal:
        found = await self.store.proposal_by_id(proposal.id)
        assert found is not None
        return found

    async def settle(self, ticks: int = 12) -> None:
        """Reconcile until nothing moves any more; past every back-off."""
        for _ in range(ticks):
            await self.reconciler.tick()
            self.world.clock.forward(seconds=61)


def hand(user: str) -> Hand:
    return Hand(team=TEAM, channel=CHANNEL, user=user)


async def race(*acts: Awaitable[object]) -> list[object]:
    """All at once; what each returned or raised."""
    return list(await asyncio.gather(*acts, return_exceptions=True))
