"""How notices get through to people: what Slack refuses for now waits, what it will never take is set aside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bot.approvals.proposing import Asked
from bot.core.policy import Policy
from bot.core.proposal import Proposal
from bot.reconciler import Reconciler
from bot.slack.connection import web_client
from bot.slack.notifier import SlackNotifier
from bot.slack.rush import Rush
from tests.fakes.slack import SlackServer
from tests.world import POLICY, Bot, FixedPolicy, World
from tools.progress import Progress
from tools.spec import parse_spec


@dataclass(frozen=True, kw_only=True)
class Place:
    slack: SlackServer
    world: World
    bot: Bot

    async def propose(self) -> Proposal:
        asked = Asked(team="T1", channel="C1", thread="", requester="U1", prompt="train digits", event_id="e1")
        return await self.bot.proposing.propose(asked, parse_spec("digits", {}))

    async def deliver(self, times: int = 1) -> None:
        for _ in range(times):
            await self.bot.reconciler.deliver()
            self.world.clock.forward(minutes=6)

    async def waiting(self) -> int:
        return len(await self.bot.store.undelivered(["T1"], due=False))

    def cards(self) -> int:
        return sum("sb_details" in one.buttons for one in self.slack.messages("C1"))


@asynccontextmanager
async def place(folder: Path, **policy: Any) -> AsyncIterator[Place]:
    """A bot's outbox before the strict fake."""

    async def curve(name: str, progress: Progress) -> None:
        return None

    async def digest(channel: str, of: date) -> dict[str, Any]:
        raise AssertionError("no digest is due")

    world = World(f"sqlite:///{folder / 'signalbox.db'}", policy=Policy.parse(POLICY | {"approvers": ["U2"]} | policy))
    async with SlackServer(rates=60) as slack, world.bot() as bot:
        policies = FixedPolicy(world.policy)
        client = web_client(slack.bot_token, slack.api_url)
        client.retry_handlers = []  # the outbox is to be patient by itself
        notifier = SlackNotifier(
            rush=Rush(),
            store=bot.store,
            cards=bot.cards,
            policies=policies,
            client=client,
            team="T1",
            curve=curve,
            log_lines=world.engine.logs,
            digest=digest,
        )
        bot.reconciler = Reconciler(bot.store, world.engine, world.runs, bot.pricing, policies, notifier)
        yield Place(slack=slack, world=world, bot=bot)


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "conversations.history", "error": "is_archived"},
        {"method": "chat.postMessage", "error": "not_in_channel"},
        {"method": "chat.postMessage", "error": "invalid_auth"},
        {"method": "conversations.history", "drop": True},
    ],
    ids=["archived", "not in the channel", "a token that is void", "cut"],
)
async def test_what_may_pass_is_waited_for(tmp_path: Path, fault: dict[str, Any]) -> None:
    async with place(tmp_path) as here:
        spoilt = here.slack.fail(times=10_000, **fault)
        await here.propose()
        await here.deliver(12)
        assert await here.waiting() == 1 and here.cards() == 0
        here.slack.api.faults.remove(spoilt)
        await here.deliver()
        assert await here.waiting() == 0 and here.cards() == 1


async def test_what_slack_will_never_take_is_set_aside(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        here.slack.fail("chat.postMessage", error="invalid_arguments", times=10_000)
        await here.propose()
        await here.deliver(12)
        assert await here.waiting() == 0 and here.cards() == 0


DIRECT = {"approvers": ["U2", "UGONE", "U3"], "tell_approvers": "dm"}


def told(here: Place, user: str) -> int:
    """How often a person was asked for a decision directly."""
    own = here.slack.home_team.im(user).messages.values()
    return sum("waits for your decision" in one.words for one in own)


@pytest.mark.parametrize("reason", ["user_not_found", "user_disabled", "cannot_dm_bot", "channel_not_found"])
async def test_an_approver_who_cannot_be_told_keeps_nobody_else_waiting(tmp_path: Path, reason: str) -> None:
    async with place(tmp_path, **DIRECT) as here:
        here.slack.fail("chat.postMessage", error=reason, channel=here.slack.home_team.im("U2").id, times=100)
        await here.propose()
        await here.deliver(3)
        assert [told(here, user) for user in ("U2", "U3")] == [0, 1]
        assert await here.waiting() == 0 and here.cards() == 1


async def test_who_was_told_is_not_told_again_when_the_next_could_not_be(tmp_path: Path) -> None:
    async with place(tmp_path, **DIRECT) as here:
        here.slack.fail("chat.postMessage", error="internal_error", channel=here.slack.home_team.im("U3").id, times=2)
        await here.propose()
        await here.deliver(2)
        assert [told(here, user) for user in ("U2", "U3")] == [1, 0] and await here.waiting() == 1
        await here.deliver()
        assert [told(here, user) for user in ("U2", "U3")] == [1, 1] and await here.waiting() == 0
