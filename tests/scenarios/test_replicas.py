"""Two bots on one PostgreSQL, both connected to Slack: every proposal one card, one decision, one job; one digest.

Slack gives each click to one of their connections, by chance. `SIGNALBOX_TEST_PROPOSALS=500` is the size that counts.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from bot.store.writing import LEASE
from tests.fakes import trainer
from tests.fakes.openai_server import KEY, OpenAIServer, Reply, says
from tests.fakes.slack import Delivery, Message, SlackServer
from tests.scenarios.test_slack import bot

PROPOSALS = int(os.environ.get("SIGNALBOX_TEST_PROPOSALS", "40"))
PEOPLE = 20  # who ask
WARM_SECONDS = 8  # until both have imported MLflow, which on two cores shared by three processes slows all else down
CARDS_AT_ONCE = 8  # that two approvers press within the same moment
AGAIN = LEASE.total_seconds() + 40  # seconds until a killed bot's message is answered, on two slow cores
WAIT = 30 + 0.6 * PROPOSALS  # seconds, for each phase, on two slow cores
POLICY = """
approvers: [U1, U2]
quorum: [{approvals: 1}]
budget_per_month: "1000000"
open_proposals_per_person: 1000
open_proposals_per_channel: 1000
tell_approvers: "no"
remind_before_minutes: null
"""


@pytest.fixture
def database(postgres: str, tmp_path: Path) -> str:
    name = f"replicas{abs(hash(str(tmp_path)))}"
    with psycopg.connect(f"{postgres}postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"{postgres}{name}"


@asynccontextmanager
async def two_bots(slack: SlackServer, folder: Path, database: str) -> AsyncIterator[list[int]]:
    """Both at once, migrating the empty database and opening the same home together; answers their process ids."""
    program, _ = trainer.install(folder, "hang")
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    more: Any = {"DATABASE_URL": database, "SIGNALBOX_DIGEST_CHANNEL": "C3", "SIGNALBOX_DIGEST_HOUR": "0"}
    started: list[psutil.Process] = []
    try:
        async with bot(slack, folder, program, **more) as one, bot(slack, folder, program, **more) as other:
            yield [one.pid, other.pid]
            for process in (one, other):
                started += psutil.Process(process.pid).children(recursive=True)
    finally:
        for child in started:  # supervisors and trainers outlive a bot, by design
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue


async def rows(database: str, query: str) -> list[Any]:
    connection = await psycopg.AsyncConnection.connect(database)
    async with connection:
        return await (await connection.execute(query)).fetchall()


async def one(database: str, query: str) -> int:
    return int((await rows(database, query))[0][0])


def cards(slack: SlackServer) -> list[Message]:
    return [message for message in slack.messages("C1") if mark(message)]


def mark(message: Message) -> str:
    """The proposal whose card a message is; empty if it is none."""
    marks = [str(block.get("block_id", "")) for block in message.blocks]
    return next((each for each in marks if each.startswith("card:")), "")


async def reached(what: str, database: str, query: str, wanted: int, log: Path) -> float:
    """Waits until the query counts so many; the seconds it took."""
    begun = time.monotonic()
    while (count := await one(database, query)) < wanted:
        if time.monotonic() - begun > WAIT:
            raise AssertionError(f"{what}: {count} of {wanted} after {WAIT:.0f} s\n{log.read_text()[-3000:]}")
        await asyncio.sleep(0.3)
    return time.monotonic() - begun


async def test_two_replicas_share_every_proposal(tmp_path: Path, database: str) -> None:
    log = tmp_path / "bot.log"
    pending_notices = "SELECT count(*) FROM outbox WHERE delivered_at IS NULL AND set_aside_at IS NULL"
    figures: dict[str, object] = {}
    async with SlackServer(rates=None) as slack:
        people = [slack.add_user(f"U{100 + index}") for index in range(PEOPLE)]
        slack.add_channel("C1", "training")
        slack.add_channel("C3", "digests")
        async with two_bots(slack, tmp_path, database) as processes:
            asked = await asyncio.gather(
                *(
                    people[index % PEOPLE].mention("C1", f"train digits seed {index} for 2 epochs")
                    for index in range(PROPOSALS)
                )
            )
            assert len(asked) == PROPOSALS
            made = await reached("proposals", database, "SELECT count(*) FROM proposal", PROPOSALS, log)
            figures["proposed_s"] = round(made, 1)
            shown = await reached(
                "cards", database, "SELECT count(*) FROM card WHERE message IS NOT NULL", PROPOSALS, log
            )
            figures["cards_s"] = round(shown, 1)
            # Yesterday is told of only if there was something yesterday; both clocks look again within half a minute.
            older = "UPDATE proposal SET created_at = created_at - interval '1 day' WHERE number = 1"
            await rows_changed(database, older)

            await asyncio.sleep(WARM_SECONDS)
            waiting = cards(slack)
            random.shuffle(waiting)
            begun = time.monotonic()
            done = await pressed(slack, waiting)
            figures["clicks"] = len(done)
            figures["clicks_s"] = round(time.monotonic() - begun, 1)
            silent = [click.payload["actions"][0]["action_ts"] for click in done if not click.acknowledged]
            assert not silent, f"{len(silent)} clicks of {len(done)} were not acknowledged in 3 s"
            slowest = sorted(click.seconds or 0 for click in done)
            figures["click_p50_s"], figures["click_max_s"] = (round(slowest[at], 3) for at in (len(done) // 2, -1))
            figures["connections"] = sorted(Counter(click.connections[0] for click in done).values())
            assert len({click.connections[0] for click in done}) >= 2, "both bots took clicks"

            figures["settled_s"] = round(await settled(database, pending_notices, log), 1)
            await slack.message("C3", containing="Digest", timeout=45)
            await asyncio.sleep(2)
            figures["rss_mib"] = [psutil.Process(pid).memory_info().rss // 2**20 for pid in processes]
            figures["cpu_s"] = [round(sum(psutil.Process(pid).cpu_times()[:2]), 1) for pid in processes]

        of_a_proposal = Counter(mark(card) for card in cards(slack))
        assert len(of_a_proposal) == PROPOSALS
        assert set(of_a_proposal.values()) == {1}, "a proposal has two cards"
        assert len([m for m in slack.messages("C3") if "Digest" in m.words]) == 1, "one digest"

        # The loser of each race, and nobody else, was told so privately.
        told = [m for m in slack.home_team.ephemerals if m.ephemeral_to in ("U1", "U2")]
        figures["losers_told"] = len(told)
        assert len(told) == PROPOSALS

        # What people see is what is recorded.
        stale = [card for card in cards(slack) if "sb_approve" in str(card.blocks)]
        assert not stale, f"{len(stale)} decided cards still have buttons"

    assert await one(database, "SELECT count(*) FROM proposal WHERE state = 'approved'") == PROPOSALS
    assert await one(database, "SELECT count(*) FROM vote") == PROPOSALS
    decisions = "SELECT count(*) FROM event WHERE entity LIKE 'proposal:%%' AND kind = 'approved'"
    assert await one(database, decisions.replace("%%", "%")) == PROPOSALS
    assert await one(database, "SELECT count(*) FROM job") == PROPOSALS
    assert await one(database, "SELECT count(DISTINCT proposal_id) FROM job") == PROPOSALS
    assert await one(database, "SELECT count(*) FROM digest") == await one(
        database, "SELECT count(*) FROM outbox WHERE kind = 'digest'"
    )
    assert await one(database, "SELECT count(*) FROM outbox WHERE set_aside_at IS NOT NULL") == 0
    starts = (tmp_path / "starts").read_text().splitlines()
    figures["starts"] = len(starts)
    assert len(starts) == len(set(starts)), "a training was started twice"
    print("\n", PROPOSALS, "proposals:", figures)


async def test_a_slow_answer_is_given_by_one_and_after_its_death_by_the_other(tmp_path: Path, database: str) -> None:
    program, _ = trainer.install(tmp_path)
    never = asyncio.Event()
    replies = [Reply(text="too late", gate=never), says("Here I am.")]
    async with OpenAIServer(replies) as model, SlackServer(rates=60) as slack:
        more = {"DATABASE_URL": database, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": model.url}
        async with bot(slack, tmp_path, program, killed=True, **more) as first:
            asked = await slack.user("U1").mention("C1", "tell me about trains")
            await slack.until(lambda: model.requests, 30, "the turn's beginning")
            async with bot(slack, tmp_path, program, **more):
                await asyncio.sleep(LEASE.total_seconds() + 10)
                assert len(model.requests) == 1, "both answer"
                first.kill()
                await slack.message("C1", containing="Here I am.", thread_ts=asked.ts, timeout=AGAIN)
                await asyncio.sleep(10)
                assert len(model.requests) == 2
                assert await one(database, "SELECT count(*) FROM inbox WHERE answered_at IS NULL") == 0
        never.set()


async def test_a_message_is_let_go_of_by_a_replica_that_leaves(tmp_path: Path, database: str) -> None:
    """As in a rolling upgrade: the other need not wait for a lease."""
    program, _ = trainer.install(tmp_path)
    never = asyncio.Event()
    replies = [Reply(text="too late", gate=never), says("Here I am.")]
    async with OpenAIServer(replies) as model, SlackServer(rates=60) as slack:
        more = {"DATABASE_URL": database, "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": model.url}
        async with bot(slack, tmp_path, program, **more):
            asked = await slack.user("U1").mention("C1", "tell me about trains")
            await slack.until(lambda: model.requests, 30, "the turn's beginning")
        assert await one(database, "SELECT count(*) FROM inbox WHERE claimed_by IS NOT NULL") == 0
        async with bot(slack, tmp_path, program, **more):
            await slack.message("C1", containing="Here I am.", thread_ts=asked.ts, timeout=AGAIN)
        never.set()


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
async def test_a_killed_bot_that_is_started_again_answers_what_it_had_begun(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One on a SQLite file at once; with PostgreSQL there could be another that answers, so the lease ends first."""
    program, _ = trainer.install(tmp_path)
    never = asyncio.Event()
    replies = [Reply(text="too late", gate=never), says("Here I am.")]
    async with OpenAIServer(replies) as model, SlackServer(rates=60) as slack:
        more = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": model.url}
        if where == "postgresql":
            more["DATABASE_URL"] = request.getfixturevalue("database")
        async with bot(slack, tmp_path, program, killed=True, **more) as process:
            asked = await slack.user("U1").mention("C1", "tell me about trains")
            await slack.until(lambda: model.requests, 30, "the turn's beginning")
            process.kill()
        dead = holder(tmp_path) if where == "sqlite" else ""
        async with bot(slack, tmp_path, program, **more):
            if where == "sqlite":
                await slack.until(
                    lambda: holder(tmp_path) not in ("", dead), LEASE.total_seconds() / 2, "its taking up"
                )
            await slack.message("C1", containing="Here I am.", thread_ts=asked.ts, timeout=AGAIN)
            assert len(model.requests) == 2
        never.set()


def holder(folder: Path) -> str:
    """Who answers the only message in a bot's SQLite file."""
    with closing(sqlite3.connect(folder / "home" / "signalbox.db")) as file:
        return file.execute("SELECT claimed_by FROM inbox").fetchone()[0] or ""


async def pressed(slack: SlackServer, waiting: list[Message]) -> list[Delivery]:
    """Both approvers press Approve on every card at the same moment, several cards at once."""
    hands = asyncio.Semaphore(CARDS_AT_ONCE)

    async def both(card: Message) -> list[Delivery]:
        async with hands:
            clicks = [await slack.user(person).click(card, "sb_approve", wait=False) for person in ("U1", "U2")]
            for click in clicks:
                await asyncio.wait_for(click.over.wait(), 10)
            return clicks

    return [click for pair in await asyncio.gather(*map(both, waiting)) for click in pair]


async def rows_changed(database: str, statement: str) -> None:
    connection = await psycopg.AsyncConnection.connect(database)
    async with connection:
        await connection.execute(statement)


async def settled(database: str, query: str, log: Path) -> float:
    """Waits until nothing is left to tell; the seconds it took."""
    begun = time.monotonic()
    while left := await one(database, query):
        if time.monotonic() - begun > WAIT:
            raise AssertionError(f"{left} notices are left after {WAIT:.0f} s\n{log.read_text()[-3000:]}")
        await asyncio.sleep(0.3)
    return time.monotonic() - begun
