"""The daily digest over a long history beside one raw SQL aggregate of the month that it tells of: `make bench-digest`.

The history is written as the bot writes rows, without the event log. Figures are medians of several runs in one
process; the digest does all it does for a channel: outcomes, spend of day and month, budget, what waits.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

from bot import digests
from bot.core.job import JobPhase
from bot.core.periods import month
from bot.core.policy import Policy
from bot.core.proposal import ProposalState
from bot.store import records, schema
from bot.store.writing import INSERT
from tests.world import CHANNEL, POLICY, TEAM, FixedPolicy, World
from tools.cost import Amount, Interval, Resources

GOAL = 3.0
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
RAW = """
SELECT p.requester, i.hourly, SUM((julianday(MIN(COALESCE(i.ended_at, :now), :end))
    - julianday(MAX(i.started_at, :start))) * 24)
FROM pod_interval i JOIN proposal p ON p.id = i.proposal_id
WHERE i.started_at < :end AND (i.ended_at IS NULL OR i.ended_at > :start)
GROUP BY p.requester, i.hourly
"""


async def _filled(world: World, jobs: int, attempts: int) -> None:
    """So many jobs, evenly over a year."""
    async with world.bot() as bot:
        proposal = await bot.propose()
        await bot.approve(proposal)
        job = await bot.store.job(proposal.id)
        assert job is not None
        rows: dict[str, list[dict[str, object]]] = {"proposal": [], "revision": [], "job": [], "pod_interval": []}
        resources = Resources(cpu_cores=Decimal(4))
        for number in range(2, jobs + 2):
            ended = NOW - timedelta(days=365) * (number / (jobs + 2))
            one = replace(
                proposal,
                id=f"p{number}",
                number=number,
                requester=f"u{number % 40}",
                state=ProposalState.APPROVED,
                created_at=ended - timedelta(hours=3),
            )
            held = tuple(
                Interval(
                    attempt=attempt,
                    started_at=ended - timedelta(minutes=20 * (attempts - attempt + 1)),
                    ended_at=ended - timedelta(minutes=20 * (attempts - attempt)),
                    resources=resources,
                    rate_version="r1",
                    hourly=Amount(dollars=Decimal("0.20")),
                )
                for attempt in range(1, attempts + 1)
            )
            done = replace(
                job,
                name=f"j{number}",
                proposal_id=one.id,
                phase=JobPhase.SUCCEEDED,
                started_at=held[0].started_at,
                finished_at=ended,
                intervals=held,
            )
            rows["proposal"].append(records.proposal_values(one))
            rows["revision"].append(records.revision_values(one))
            rows["job"].append(records.job_values(done))
            rows["pod_interval"] += [records.interval_values(done, interval) for interval in held]
        for table in (schema.proposal, schema.revision, schema.job, schema.pod_interval):
            await bot.store.database.write(
                lambda commit, table=table: commit.connection.execute(INSERT[table], rows[table.name])
            )


async def _median(runs: int, act: Callable[[], Awaitable[object]]) -> float:
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        await act()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


async def _bench(jobs: int, attempts: int, runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signalbox.db"
        world = World(url=f"sqlite:///{path}")
        world.clock.now = NOW
        begun = time.perf_counter()
        await _filled(world, jobs, attempts)
        print(f"{jobs:,} jobs, {jobs * attempts:,} intervals written in {time.perf_counter() - begun:.0f} s")
        zone, of = ZoneInfo("UTC"), (NOW - timedelta(days=1)).date()
        policies = FixedPolicy(Policy.parse(POLICY))
        period = month(of, zone)
        text = "%Y-%m-%d %H:%M:%S.%f"
        key = {"start": period.start.strftime(text), "end": period.end.strftime(text), "now": NOW.strftime(text)}
        async with world.bot() as bot:

            async def digest() -> object:
                return await digests.build(bot.store, bot.pricing, policies, TEAM, CHANNEL, of)

            async def raw() -> object:
                with sqlite3.connect(path) as connection:
                    return connection.execute(RAW, key).fetchall()

            ours, theirs = await _median(runs, digest), await _median(runs, raw)
        ratio = ours / theirs
        print(f"digest {1000 * ours:.1f} ms, raw aggregate of its month {1000 * theirs:.1f} ms (medians of {runs})")
        print(f"ratio {ratio:.2f}×, goal ≤ {GOAL:.0f}× {'met' if ratio <= GOAL else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--attempts", type=int, default=3, help="intervals a job")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    asyncio.run(_bench(arguments.jobs, arguments.attempts, arguments.runs))


if __name__ == "__main__":
    main()
