"""Commits that go wrong for all who share them, reading beside writing, and money in SQL beside the same in Python."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
import sqlalchemy as sa

from bot.core.errors import Misconfigured, Unavailable
from bot.core.job import Job, JobPhase
from bot.core.periods import month
from bot.policies import PolicyFile
from bot.store.audit import verify
from bot.store.commit import Commit
from bot.store.store import Message, Store
from bot.store.writing import Writing
from tests.world import CHANNEL, TEAM, World, opened, race
from tools.cost import Amount, Interval, Resources, clip


def said(text: str, size: int = 1) -> Message:
    return Message(team=TEAM, event_id=text, channel=CHANNEL, thread="t", user="rae", text=text * size)


async def together(store: Store, *messages: Message) -> list[object]:
    """All of them in one commit: the writer is busy until the last has queued."""
    free = threading.Event()
    holding = asyncio.create_task(store.database.write(lambda _: free.wait(5)))
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(store.receive(message)) for message in messages]
    await asyncio.sleep(0.05)
    free.set()
    await holding
    return await race(*waiting)


async def test_a_commit_that_fails_acknowledges_nothing(tmp_path: Path) -> None:
    """A disk that is full: the duplicate's verdict falls with the message that it was a duplicate of."""
    async with opened(f"sqlite:///{tmp_path / 'x.db'}") as store:

        def fill(commit: Commit) -> None:
            pages = commit.connection.exec_driver_sql("PRAGMA page_count").scalar()
            commit.connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

        await store.database.write(fill)
        answers = await together(store, said("a"), said("a"), said("big", 200_000), said("b"))
        assert [type(one) for one in answers] == [Unavailable] * 4, answers
        assert all("full" in str(one) for one in answers), answers
        assert await store.unanswered(TEAM) == []
        assert await store.receive(said("a")), "and the next one is taken"


async def test_a_connection_that_dies_acknowledges_nothing(postgres: str, tmp_path: Path) -> None:
    name = f"dies{abs(hash(str(tmp_path)))}"
    with psycopg.connect(f"{postgres}postgres", autocommit=True) as other:
        other.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        async with opened(f"{postgres}{name}") as store:

            def die(commit: Commit) -> None:
                pid = commit.connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
                other.execute("SELECT pg_terminate_backend(%s)", (pid,))
                commit.connection.execute(sa.text("SELECT 1"))

            free = threading.Event()
            holding = asyncio.create_task(store.database.write(lambda _: free.wait(5)))
            await asyncio.sleep(0.05)
            acts: list[Any] = [store.receive(said("a")), store.receive(said("a")), store.database.write(die)]
            waiting = [asyncio.create_task(act) for act in acts]
            await asyncio.sleep(0.05)
            free.set()
            await holding
            answers = await race(*waiting)
            assert [type(one) for one in answers] == [Unavailable] * 3, answers
            assert await store.unanswered(TEAM) == []
            assert await store.receive(said("a"))


async def test_a_closed_database_answers_every_write(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path / 'x.db'}") as store:
        await store.receive(said("a"))
    for text in ("b", "c"):
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(store.receive(said(text)), 3)


@pytest.mark.parametrize("accident", [StopIteration, asyncio.CancelledError])
async def test_no_accident_of_one_keeps_the_others_waiting(url: str, accident: type[BaseException]) -> None:
    async with opened(url) as store:

        def fail(_: Commit) -> None:
            raise accident

        answers = await asyncio.wait_for(
            race(store.receive(said("a")), store.database.write(fail), store.receive(said("b"))), 5
        )
        assert answers[0] is True and answers[2] is True and isinstance(answers[1], BaseException)


async def test_an_audit_beside_a_busy_bot_is_whole(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot, world.bot() as auditor:
        over = asyncio.Event()

        async def busy() -> None:
            while not over.is_set():
                await bot.approve(await bot.propose())

        working = asyncio.create_task(busy())
        for _ in range(30):
            report = await verify(auditor.store)
            assert report.whole, report.findings
        over.set()
        await working


def _moved(before: Job, after: Job, writing: Writing) -> None:
    writing.move(before, after, kind="x", actor="test")


async def test_money_summed_in_sql_is_the_money_of_every_interval(url: str) -> None:
    """Random intervals over a month's borders, with fractions that round badly, and clocks that were set back."""
    chance, zone = random.Random(7), ZoneInfo("Europe/Berlin")
    period = month(datetime(2026, 10, 15).date(), zone)
    edges = [period.start, period.end, datetime(2026, 10, 25, 1, tzinfo=UTC)]
    fractions = [0, 1, 499_999, 999_499, 999_500, 999_999]
    world = World(url=url)
    world.policy = world.policy.model_copy(update={"budget_per_month": None})
    async with world.bot() as bot:
        held: list[Interval] = []
        for _ in range(12):
            proposal = await bot.propose()
            await bot.approve(proposal)
            job = await bot.store.job(proposal.id)
            assert job is not None
            begun = chance.choice(edges) + timedelta(
                seconds=chance.randint(-90_000, 90_000), microseconds=chance.choice(fractions)
            )
            intervals = []
            for attempt in range(1, 6):
                ended = begun + timedelta(seconds=chance.randint(-5, 20_000), microseconds=chance.choice(fractions))
                intervals.append(
                    Interval(
                        attempt=attempt,
                        started_at=begun,
                        ended_at=ended,
                        resources=Resources(cpu_cores=Decimal(4)),
                        rate_version="r1",
                        hourly=Amount(dollars=Decimal(chance.choice(["0.20", "3600", "7.77"]))),
                    )
                )
                begun = ended
            after = job.changed(phase=JobPhase.FAILED, started_at=begun, finished_at=begun, intervals=tuple(intervals))
            await bot.store.write(
                lambda writing, job=job, after=after: writing.move(job, after, kind="x", actor="test")
            )
            held += intervals
        for now in (period.end, period.end + timedelta(days=3), period.end - timedelta(microseconds=1)):
            wanted = sum((clip(one, period.start, period.end, now).dollars for one in held), Decimal(0))
            spent, _ = (await bot.store.spending(TEAM, period, now)).of(None)
            assert abs(spent.dollars - wanted) < Decimal("1e-15"), now


async def test_a_changed_policy_is_read_though_its_reader_was_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("approvers: [ann]\n")
    policies = PolicyFile(path)
    path.write_text("approvers: [bob, cleo]\n")
    reading = asyncio.create_task(policies.whole())
    await asyncio.sleep(0)  # it waits for the thread that reads
    reading.cancel()
    deadline = time.monotonic() + 5
    while (await policies.whole()).approvers != {"bob", "cleo"}:
        assert time.monotonic() < deadline, "the old approvers keep the right"
        await asyncio.sleep(0.1)
    path.write_text("approvers: 7 # wrong\n")
    await asyncio.sleep(0.6)
    assert (await policies.whole()).approvers == {"bob", "cleo"}
    with pytest.raises(Misconfigured):
        PolicyFile(path)
