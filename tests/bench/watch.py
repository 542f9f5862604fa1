"""A thousand trainings among ten thousand finished ones, in a cluster that fails in all known ways: `make bench-watch`.

The cluster is the fake one, in a process of its own. The bot under test is another: the real engine with its streams,
the real reconciler and database, and a surface that renders each card and writes as often as Slack allows. Its CPU time
is what the kernel counted. Trainings end all the time; how late that is known is read from the database's own times
(update lag: from the pod's end to the row) and from the surface (thread lag: to the message in its thread).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from bot.cards import Cards
from bot.core.job import Job, JobPhase
from bot.core.proposal import ProposalState
from bot.slack import blocks
from bot.store import records, schema
from bot.store.database import Database
from bot.store.store import Store
from bot.store.writing import INSERT, Notice
from tests.bench.cluster import DIGEST, LONG, Far, far_cluster, line_of, process, world_over
from tests.world import TEAM, Bot
from tools.cost import Interval
from tools.progress import Progress

GOAL_STREAMS, GOAL_RELISTS, GOAL_RSS_MB, GOAL_LAG_S = 5, 5, 350, 3.0
PEACE_SECONDS, FAULT_SECONDS = 60.0, 15.0
PACE_SECONDS = 1.2  # between two ends: Slack takes a message a second in one channel
CAUGHT_UP_SECONDS = 300.0
UPDATES_A_MINUTE, POSTS_A_SECOND = 50, 1
FAULTS = {
    "": "peace",
    "closed": "watches closed every 2 s",
    "silent": "watches silent",
    "expired": "versions expired (410)",
    "429": "429, Retry-After: 1",
    "500": "500 to everything",
    "hang": "everything hangs",
}


# -- the bot under test --------------------------------------------------------------------------------------------


@dataclass
class PacedSurface:
    """Renders what the bot would show in Slack, at Slack's rates; `told` is when each thread heard of an end."""

    cards: Cards
    told: dict[str, float] = field(default_factory=dict)
    edits: int = 0
    dropped: int = 0
    teams: Collection[str] = (TEAM,)
    _edited: deque[float] = field(default_factory=deque)
    _post_at: float = 0.0

    async def deliver(self, notice: Notice) -> None:
        blocks.card(await self.cards.card(notice.subject))
        if notice.kind == "finished":
            now = time.monotonic()
            self._post_at = max(now, self._post_at + 1 / POSTS_A_SECOND)
            await asyncio.sleep(self._post_at - now)
            self.told[notice.subject] = time.time()

    async def progress(self, job: Job, progress: Progress) -> None:
        now = time.monotonic()
        while self._edited and now - self._edited[0] > 60:
            self._edited.popleft()
        if len(self._edited) >= UPDATES_A_MINUTE:
            self.dropped += 1
            return
        self._edited.append(now)
        self.edits += 1
        blocks.card(await self.cards.card(job.proposal_id))


async def _serve(url: str, kubeconfig: Path) -> None:
    """Answers each line on standard input with a line of figures."""
    async with world_over(url, kubeconfig) as world, world.bot() as first:
        surface = PacedSurface(first.cards)
        world.surface = surface  # type: ignore[assignment]
        bot = Bot(world, first.store)
        running = asyncio.create_task(bot.reconciler.run())
        print("ready", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps({"told": surface.told, "edits": surface.edits, "dropped": surface.dropped}), flush=True)
        running.cancel()


async def _filled(bot: Bot, uids: dict[str, str], finished: int) -> None:
    """The rows of the trainings that the cluster has."""
    proposal = await bot.propose(**LONG)
    await bot.approve(proposal)
    job = await bot.store.job(proposal.id)
    assert job is not None
    now = datetime.now(UTC)
    rows: dict[str, list[dict[str, object]]] = {"proposal": [], "revision": [], "job": [], "pod_interval": []}
    names = [(f"p{name.removeprefix('run-')}", name, uid) for name, uid in uids.items()]
    names += [(f"q{number}", f"old-{number}", None) for number in range(1, finished + 1)]
    for number, (key, name, uid) in enumerate(names, 2):
        one = replace(proposal, id=key, number=number, state=ProposalState.APPROVED)
        began = now - timedelta(minutes=10) if uid else now - timedelta(hours=number % 700)
        more: dict[str, Any] = {"phase": JobPhase.RUNNING} if uid else {"phase": JobPhase.SUCCEEDED, "finished_at": now}
        made = replace(job, name=name, proposal_id=key, digest=DIGEST, uid=uid, run_id="r", started_at=began, **more)
        rows["proposal"].append(records.proposal_values(one))
        rows["revision"].append(records.revision_values(one))
        rows["job"].append(records.job_values(made))
        if not uid:
            offer = proposal.offer
            held = Interval(attempt=1, started_at=began, ended_at=began + timedelta(minutes=9), hourly=offer.hourly,
                            resources=offer.resources, rate_version=offer.rate_version)  # fmt: skip
            rows["pod_interval"].append(records.interval_values(made, held))
    for table in (schema.proposal, schema.revision, schema.job, schema.pod_interval):
        await bot.store.database.write(
            lambda commit, table=table: commit.connection.execute(INSERT[table], rows[table.name])
        )
    await bot.store.database.write(
        lambda commit: commit.connection.execute(
            sa.update(schema.job).where(schema.job.c.proposal_id == proposal.id).values(phase=JobPhase.CANCELLED.value)
        )
    )


# -- the bench -----------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Figures:
    """What one stretch of time showed."""

    streams: int
    relists: int
    requests_a_minute: float
    cpu: float  # of one core
    lags: list[float]
    threads: list[float]
    late: int


@dataclass
class Bench:
    far: Far
    bot: asyncio.subprocess.Process
    store: Store

    async def told(self) -> dict[str, Any]:
        assert self.bot.stdin is not None
        self.bot.stdin.write(b"\n")
        return dict(json.loads(await line_of(self.bot)))

    async def known(self) -> dict[str, float]:
        """When each training's end came into the database."""
        query = sa.select(schema.job.c.proposal_id, schema.job.c.finished_at).where(
            schema.job.c.name.like("run-%"), schema.job.c.phase == JobPhase.SUCCEEDED.value
        )
        rows = await self.store.database.read(lambda connection: connection.execute(query).all())
        return {row.proposal_id: row.finished_at.timestamp() for row in rows}

    async def settled(self) -> None:
        """Until every training's pod is in the database."""
        while (await self.store.database.read(_without_interval)) > 0:
            await asyncio.sleep(0.5)
        await asyncio.sleep(10)

    async def stretch(self, fault: str, seconds: float) -> Figures:
        ended: dict[str, float] = {}
        await self.far("figures")
        process_, begun = psutil.Process(self.bot.pid), time.monotonic()
        before = sum(process_.cpu_times()[:2])
        await self.far("fault", what=fault)
        while time.monotonic() - begun < seconds:
            one = await self.far("end")
            ended[one["proposal"]] = one["at"]
            await asyncio.sleep(PACE_SECONDS)
        spent, took = sum(process_.cpu_times()[:2]) - before, time.monotonic() - begun
        told = await self.far("figures")
        await self.far("fault", what="")
        lags, threads = await self._lags(ended)
        return Figures(
            streams=told["streams"],
            relists=max(told["listed"].values(), default=0),
            requests_a_minute=60 * sum(told["asked"].values()) / took,
            cpu=spent / took,
            lags=lags,
            threads=threads,
            late=len(ended) - len(threads),
        )

    async def _lags(self, ended: dict[str, float]) -> tuple[list[float], list[float]]:
        """Sorted seconds to the database and to the thread, of those that came there in time."""
        known: dict[str, float] = {}
        heard: dict[str, float] = {}
        give_up = time.monotonic() + CAUGHT_UP_SECONDS
        while len(heard) < len(ended) and time.monotonic() < give_up:
            await asyncio.sleep(1.0)
            known = {key: at for key, at in (await self.known()).items() if key in ended}
            heard = {key: at for key, at in (await self.told())["told"].items() if key in ended}
        return (
            sorted(at - ended[key] for key, at in known.items()),
            sorted(at - ended[key] for key, at in heard.items()),
        )


def _without_interval(connection: sa.Connection) -> int:
    held = sa.select(schema.pod_interval.c.proposal_id)
    query = sa.select(sa.func.count()).where(schema.job.c.phase == JobPhase.RUNNING.value)
    return int(connection.execute(query.where(schema.job.c.proposal_id.not_in(held))).scalar_one())


def _quantile(times: list[float], share: float) -> float:
    return times[min(len(times) - 1, int(share * len(times)))] if times else float("nan")


def _row(name: str, one: Figures) -> None:
    lags = "".join(f"{_quantile(times, share):8.2f}" for times in (one.lags, one.threads) for share in (0.5, 0.99))
    late = f"  {one.late} never told" if one.late else ""
    print(
        f"{name:28}{one.streams:8}{one.relists:9}{one.requests_a_minute:12.0f}{100 * one.cpu:7.0f} %{lags}{late}",
        flush=True,
    )


def _verdicts(found: dict[str, Figures], rss: float) -> None:
    faults = [one for name, one in found.items() if name]
    streams = max(one.streams for one in found.values())
    relists = max((one.relists for one in faults), default=0)
    lag = _quantile(found[""].lags, 0.99)
    thread = _quantile(found[""].threads, 0.99)
    for said, figure, met in (
        (f"streams ≤ {GOAL_STREAMS}", f"{streams}", streams <= GOAL_STREAMS),
        (
            f"relists of a kind in {FAULT_SECONDS:.0f} s of a fault ≤ {GOAL_RELISTS}",
            f"{relists}",
            relists <= GOAL_RELISTS,
        ),
        (f"RSS < {GOAL_RSS_MB} MB", f"{rss:.0f} MB", rss < GOAL_RSS_MB),
        (f"update lag p99 < {GOAL_LAG_S:.0f} s in peace", f"{lag:.2f} s", lag < GOAL_LAG_S),
        (f"thread lag p99 < {GOAL_LAG_S:.0f} s in peace", f"{thread:.2f} s", thread < GOAL_LAG_S),
        ("every end told", str(sum(one.late for one in found.values())), not any(one.late for one in found.values())),
    ):
        print(f"{said:52}{figure:>12}  {'met' if met else 'MISSED'}")


async def _bench(running: int, finished: int, peace: float, only: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        url = os.environ.get("DATABASE_URL") or f"sqlite:///{Path(folder) / 'signalbox.db'}"
        async with far_cluster(kubeconfig, running=running, finished=finished) as far:
            async with world_over(url, kubeconfig) as world, world.bot() as writer:
                await _filled(writer, await far("uids"), finished)
            async with process("-m", "tests.bench.watch", "--bot", url, str(kubeconfig)) as bot:
                begun = time.monotonic()
                await line_of(bot)
                database = Database(url)
                bench = Bench(far, bot, Store(database))
                await bench.settled()
                print(f"{running} running, {finished} finished, over {database.url.get_backend_name()}; "
                      f"all known {time.monotonic() - begun - 10:.0f} s after the start")  # fmt: skip
                print(f"{'':28}{'streams':>8}{'relists':>9}{'requests/min':>12}{'CPU':>9}"
                      f"{'row p50':>8}{'p99':>8}{'thread':>8}{'p99 s':>8}")  # fmt: skip
                found: dict[str, Figures] = {}
                for fault in only:
                    found[fault] = await bench.stretch(fault, FAULT_SECONDS if fault else peace)
                    _row(FAULTS[fault], found[fault])
                rss = psutil.Process(bot.pid).memory_info().rss / 2**20
                told = await bench.told()
                print(f"cards edited for progress {told['edits']}, passed over for Slack's rate {told['dropped']}")
                _verdicts(found, rss)
                await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--running", type=int, default=1000)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--peace", type=float, default=PEACE_SECONDS, help="seconds without a fault")
    parser.add_argument("--faults", nargs="*", default=[name for name in FAULTS if name], choices=[*FAULTS])
    parser.add_argument("--bot", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bot:
        asyncio.run(_serve(arguments.bot[0], Path(arguments.bot[1])))
        return
    asyncio.run(_bench(arguments.running, arguments.finished, arguments.peace, ["", *arguments.faults]))


if __name__ == "__main__":
    main()
