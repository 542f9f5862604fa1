"""What is charged where pods come and go unseen: as many at once as there are nodes, each for its own time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from bot.core.job import Job
from bot.store.audit import verify
from tests.world import Bot, World
from tools.engines.base import Attempt, Machine
from tools.rates import RateCard

Minutes = tuple[int, float | None]  # of a beginning and an end, after the training's start


async def running(bot: Bot, nodes: int) -> Job:
    proposal = await bot.propose(recipe="distilgpt2", nodes=nodes, max_runtime_minutes=120)
    await bot.approve(proposal)
    await bot.reconciler.tick()
    (found,) = await bot.store.open_jobs()
    assert len(found.job.intervals) == 1
    return found.job


async def looked(bot: Bot, job: Job, attempts: Sequence[Minutes], spot: Sequence[bool | None] = ()) -> Job:
    """The job after a look at these attempts, on such machines; another look writes nothing more."""
    zero = job.intervals[0].started_at
    shown = tuple(
        Attempt(
            number=number,
            started_at=zero + timedelta(minutes=begun),
            ended_at=later(zero, ended),
            machine=Machine(spot=spot[number - 1] if spot else None),
        )
        for number, (begun, ended) in enumerate(attempts, 1)
    )
    engine = bot.world.engine
    engine.jobs[job.name] = replace(engine.jobs[job.name], attempts=shown)
    await bot.reconciler.tick()
    after = await bot.store.job(job.proposal_id)
    await bot.reconciler.tick()
    assert after is not None and after == await bot.store.job(job.proposal_id), "what is recorded is not written again"
    return after


def later(zero: datetime, minutes: float | None) -> datetime | None:
    return None if minutes is None else zero + timedelta(minutes=minutes)


# The nodes; what is seen at one look and, after a while in which the bot was down, at the next; what is charged then.
CASES: list[tuple[int, list[Minutes], list[Minutes], list[Minutes]]] = [
    (1, [(0, None)], [(9, None)], [(0, 9), (9, None)]),
    (1, [(0, None)], [(3, 5), (9, None)], [(0, 3), (3, 5), (9, None)]),
    (2, [(0, None), (1, None)], [(0, None), (9, None)], [(0, None), (1, 9), (9, None)]),
    (2, [(0, None), (1, None)], [(1, None), (9, None)], [(0, 9), (1, None), (9, None)]),
    (2, [(0, None), (1, None)], [(1, 4), (9, None)], [(0, None), (1, 4), (9, None)]),
    (2, [(0, None), (1, None)], [(8, None), (9, None)], [(0, 8), (1, 9), (8, None), (9, None)]),
    (2, [(0, 5), (0, None)], [(0, 5), (9, None)], [(0, 5), (0, None), (9, None)]),
    (2, [(0, 5), (0, None)], [(0, None), (9, None)], [(0, 5), (0, None), (9, None)]),
    (2, [(0, 5), (0, None)], [(0, 7), (9, None)], [(0, 5), (0, 7), (9, None)]),
]


async def test_a_pod_that_was_replaced_unseen_is_charged_until_the_next_began(tmp_path: Path) -> None:
    world = World(url=f"sqlite:///{tmp_path / 'held.db'}")
    async with world.bot() as bot:
        for nodes, before, after, charged in CASES:
            job = await running(bot, nodes)
            zero = job.intervals[0].started_at
            await looked(bot, job, before)
            found = await looked(bot, job, after)
            held = Counter((one.started_at, one.ended_at) for one in found.intervals)
            assert held == Counter((later(zero, begun), later(zero, ended)) for begun, ended in charged), (
                before,
                after,
            )
            seen = {(later(zero, begun), later(zero, ended)) for begun, ended in (*before, *after)}
            for one in found.intervals:
                assert one.estimated is ((one.started_at, one.ended_at) not in seen), (
                    "an end that nobody saw is so called"
                )
            world.engine.finish()
            await bot.reconciler.tick()
        assert (await verify(bot.store)).whole


async def test_nodes_that_began_together_are_charged_each_for_its_own_machine(tmp_path: Path) -> None:
    """Also when one has ended, and its node cannot be asked any more; nothing is written for what was known once."""
    prices = {"cpu_core_hour": "0.05", "spot": {"cpu_core_hour": "0.02"}}
    rates = RateCard.parse({"versions": [{"version": "r1", "effective_from": "2026-01-01T00:00:00Z", **prices}]})
    async with World(url=f"sqlite:///{tmp_path / 'held.db'}", rates=rates).bot() as bot:
        job = await running(bot, 2)
        both: list[Minutes] = [(0, None), (0, None)]
        known = await looked(bot, job, both, [True, False])
        assert [str(one.hourly) for one in known.intervals] == ["$0.08", "$0.20"]
        assert await looked(bot, job, both) == known, "an answer that is missing for a while changes nothing"
        assert await looked(bot, job, [*reversed(both)], [False, True]) == known
        ended = await looked(bot, job, [(0, 5), (0, None)], [None, False])
        assert [(one.ended_at is None, str(one.hourly)) for one in ended.intervals] == [
            (False, "$0.08"),
            (True, "$0.20"),
        ]
