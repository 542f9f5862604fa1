"""Whoever was heard gets an answer from the running bot, whatever failed on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bot.slack.connection import web_client
from bot.slack.conversation import SORRY, Conversation
from bot.store.store import Message, Store
from tests.fakes.slack import SlackServer
from tests.world import World
from tools.desk import Caller


@dataclass
class Agent:
    """Says what it was told; counts how often."""

    asked: list[str] = field(default_factory=list)

    async def answer(self, text: str, caller: Caller, on_text: Callable[[str], Awaitable[None]] | None = None) -> str:
        self.asked.append(text)
        return f"You said: {text}"


@dataclass(frozen=True, kw_only=True)
class Talk:
    slack: SlackServer
    store: Store
    conversation: Conversation
    answers: asyncio.Future[Any]
    agent: Agent
    message: Message

    def said(self) -> list[str]:
        return [one.words for one in self.slack.messages("C1") if one.user == self.slack.bot.id]

    async def done(self, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while await self.store.unanswered("T1"):
                await asyncio.sleep(0.05)


@asynccontextmanager
async def heard(folder: Path, words: str = "help") -> AsyncIterator[Talk]:
    """A message in the inbox; its turn is still to begin, and the agent to be opened."""
    world = World(f"sqlite:///{folder / 'signalbox.db'}")
    async with SlackServer(rates=60) as slack, world.bot() as bot:
        client = web_client(slack.bot_token, slack.api_url)
        answers: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        conversation = Conversation(bot.store, client, answers, lambda: None)
        root = await slack.user("U1").say("C1", words)
        message = Message(team="T1", event_id="Ev1", channel="C1", thread=root.ts, user="U1", text=words)
        assert await bot.store.receive(message)
        yield Talk(
            slack=slack, store=bot.store, conversation=conversation, answers=answers, agent=Agent(), message=message
        )
        await conversation.close(5)


async def test_a_status_that_is_not_answered_ends_no_turn(tmp_path: Path) -> None:
    async with heard(tmp_path) as talk:
        talk.slack.fail("assistant.threads.setStatus", drop=True, times=3)
        talk.answers.set_result(talk.agent)
        talk.conversation.begin(talk.message)
        await talk.done(20)
        assert len(talk.said()) == 1


async def test_an_answer_that_slack_did_not_take_is_said_later_by_the_same_process(tmp_path: Path) -> None:
    async with heard(tmp_path) as talk:
        talk.slack.fail("chat.postMessage", error="fatal_error")
        talk.answers.set_result(talk.agent)
        talk.conversation.begin(talk.message)
        await talk.done(20)
        assert len(talk.said()) == 1 and talk.agent.asked == ["help"], "the agent is not asked twice"


@pytest.mark.parametrize("reason", ["thread_not_found", "channel_not_found"])
async def test_who_can_never_be_answered_counts_as_answered(tmp_path: Path, reason: str) -> None:
    async with heard(tmp_path) as talk:
        talk.slack.fail("chat.postMessage", error=reason, times=100)
        talk.answers.set_result(talk.agent)
        talk.conversation.begin(talk.message)
        await talk.done(10)
        assert not talk.said()


async def test_without_an_agent_people_are_told_so_once_and_answered_later(tmp_path: Path) -> None:
    async with heard(tmp_path) as talk:
        talk.conversation.begin(talk.message)
        talk.conversation.without_agent()
        await talk.slack.until(talk.said, 10, "a word in the thread")
        await asyncio.sleep(0.5)
        assert talk.said() == [SORRY]
        talk.answers.set_result(talk.agent)
        await talk.done(10)
        assert len(talk.said()) == 2 and "You said: help" in talk.said()[1]


async def test_a_turn_that_only_waits_does_not_hold_the_end_up(tmp_path: Path) -> None:
    async with heard(tmp_path) as talk:
        talk.conversation.begin(talk.message)
        talk.conversation.without_agent()
        await talk.slack.until(talk.said, 10, "a word in the thread")
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        await talk.conversation.close(30)
        assert time.monotonic() - begun < 5
        assert await talk.store.take_up("T1") == [talk.message], "another replica, or the next start, answers it"
