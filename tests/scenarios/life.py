"""One life of a bot process, for the crash test: `python -m tests.scenarios.life [POINT]`.

Real use cases, reconciler, local engine, MLflow files and SQLite, by the settings in the environment. It proposes,
lets two people approve at the same moment, and reconciles until everything is over; with POINT it is killed there.
Every life does the same, as people do who press again after a crash. From the second life on two reconcilers run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection

from bot.approvals.deciding import Hand
from bot.approvals.proposing import Asked
from bot.bootstrap import App, opened
from bot.core.errors import Refused
from bot.core.job import Job
from bot.core.proposal import Proposal, Verdict
from bot.settings import load
from bot.store.writing import Notice
from tools import crashpoints
from tools.progress import Progress
from tools.spec import parse_spec

TEAM, CHANNEL = "local", "terminal"
SECONDS = 60


class Printer:
    """Says what was delivered, at once: what a crash cuts off stays said."""

    teams: Collection[str] = (TEAM,)

    async def deliver(self, notice: Notice) -> None:
        print(f"DELIVERED {notice.kind}", flush=True)

    async def progress(self, job: Job, progress: Progress) -> None:
        pass


async def live(*, replicas: int) -> None:
    async with opened(load()) as app:
        looks = [asyncio.create_task(app.reconciler(Printer()).run()) for _ in range(replicas)]
        proposal = await app.proposing.propose(
            Asked(team=TEAM, channel=CHANNEL, thread="t", requester="rae", prompt="train digits", event_id="one"),
            parse_spec("digits", {"epochs": 2}),
        )
        await approve_twice_at_once(app, proposal)
        async with asyncio.timeout(SECONDS):
            while await app.store.open_jobs() or await app.store.undelivered([TEAM], due=False):
                await asyncio.sleep(0.05)
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)


async def approve_twice_at_once(app: App, proposal: Proposal) -> None:
    """One of them wins; the other is told so in our own words, or something is wrong."""
    said = await asyncio.gather(
        *[
            app.deciding.decide(Hand(team=TEAM, channel=CHANNEL, user=voter), proposal.number, Verdict.APPROVE)
            for voter in ("approver", "lead")
        ],
        return_exceptions=True,
    )
    for one in said:
        if isinstance(one, BaseException) and not isinstance(one, Refused):
            raise one
    assert sum(isinstance(one, Proposal) for one in said) <= 1, "two people decided one proposal"


if __name__ == "__main__":
    first = len(sys.argv) > 1
    crashpoints.arm(sys.argv[1] if first else None)
    asyncio.run(live(replicas=1 if first else 2))
