"""A turn that can no longer be sure of its message ends before another process begins one."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psycopg
import pytest

from bot.inbox import LOOK_SECONDS, RENEW_SECONDS, Inbox, Lost
from bot.store.store import Message
from bot.store.writing import LEASE
from tests.world import CHANNEL, TEAM, World, opened

SAID = Message(team=TEAM, event_id="e", channel=CHANNEL, thread="t", user="rae", text="train digits")


async def test_a_turn_whose_message_another_took_ends(url: str) -> None:
    if url.startswith("sqlite"):
        pytest.skip("no replicas")
    world = World(url=url)
    async with world.bot() as one, world.bot() as other:
        await one.store.receive(SAID)
        with pytest.raises(Lost):
            async with Inbox(one.store).held(SAID):
                world.clock.forward(minutes=1)  # as if it had stood still so long
                assert await Inbox(other.store).take_up(TEAM) == [SAID]
                await asyncio.sleep(2 * RENEW_SECONDS)
        with pytest.raises(Lost):
            async with Inbox(one.store).held(SAID):
                raise AssertionError("it began once more")
        async with Inbox(other.store).held(SAID) as answered:
            await asyncio.sleep(2 * RENEW_SECONDS)
            answered()
            await other.store.answered(TEAM, SAID.event_id)
            await asyncio.sleep(2 * RENEW_SECONDS)  # to record it may take its time
        world.clock.forward(minutes=1)
        assert await Inbox(one.store).take_up(TEAM) == []


async def test_what_is_being_answered_here_or_failed_here_is_not_taken_up_here(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        inbox = Inbox(bot.store)
        await bot.store.receive(SAID)
        with pytest.raises(ZeroDivisionError):
            async with inbox.held(SAID):
                world.clock.forward(minutes=1)
                assert await inbox.take_up(TEAM) == []
                raise ZeroDivisionError
        world.clock.forward(minutes=1)
        assert await inbox.take_up(TEAM) == []
        assert await Inbox(bot.store).take_up(TEAM) == [SAID]


async def test_no_two_answer_while_the_database_is_away(postgres: str, tmp_path: Path) -> None:
    """A turn that cannot renew ends in time; one whose person has the answer goes on, and is first when it is back."""
    name = f"inbox{abs(hash(str(tmp_path)))}"
    other_said = Message(team=TEAM, event_id="f", channel=CHANNEL, thread="t", user="rae", text="help")
    with psycopg.connect(f"{postgres}postgres", autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        async with opened(f"{postgres}{name}") as store, opened(f"{postgres}{name}") as another:
            taken: list[Message] = []
            watching = asyncio.create_task(Inbox(another).watch(TEAM, taken.append))
            inbox = Inbox(store)
            ended: list[float] = []

            async def turn(message: Message, *, said: bool) -> None:
                async with inbox.held(message) as answered:
                    if said:
                        answered()
                    begun.set()
                    try:
                        await asyncio.sleep(LEASE.total_seconds() + 4 * LOOK_SECONDS)
                    finally:
                        ended.append(time.monotonic())

            for message in (SAID, other_said):
                await store.receive(message)
            begun = asyncio.Event()
            silent = asyncio.create_task(turn(SAID, said=False))
            shown = asyncio.create_task(turn(other_said, said=True))
            await begun.wait()
            await asyncio.sleep(0.5)
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')  # type: ignore[arg-type]
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            away = time.monotonic()
            await asyncio.sleep(LEASE.total_seconds() + 1)
            assert silent.done() and isinstance(silent.exception(), Lost), "it was over before its lease"
            assert ended[0] - away < LEASE.total_seconds() - 2
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')  # type: ignore[arg-type]
            await asyncio.sleep(3 * LOOK_SECONDS)
            assert taken == [SAID], "and taken up when the database was back; the one that was said was not"
            await shown
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
