"""The outbox: what was committed and people have not seen yet, handed to a surface; what is for MLflow, to MLflow.

A notice is written in the transaction that changed something, so it is delivered if and only if that was committed. It
is delivered at least once (docs/adr/0005). While the far end is away it is tried again, for days; one that fails though
the far end answers is poison, and set aside after some tries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Protocol

from bot.core.errors import Unavailable
from bot.core.job import Job, JobPhase, RunEnd
from bot.core.proposal import Proposal
from bot.store.store import Store
from bot.store.writing import Notice, Writing
from tools.crashpoints import crash
from tools.progress import Progress

log = logging.getLogger(__name__)

DELIVERY_SECONDS = 60.0  # for one notice; every network call below it has its own time-out
LEASE_SECONDS = 90  # longer than a delivery can take
DELIVERIES = 10  # tries before a notice is set aside
BACKOFF_SECONDS = 60  # the longest wait between two tries
AWAY_SECONDS = 300  # the same while the far end is away
KEPT = timedelta(days=3)  # so long is one tried whose far end is away
CLOSE_RUN = "close_run"  # a row for MLflow, not for people


class Notifier(Protocol):
    """A surface that shows what happened, rendered whole from the store; a notice only says that something did."""

    @property
    def teams(self) -> Collection[str]:
        """The workspaces whose notices it can deliver."""

    async def deliver(self, notice: Notice) -> None:
        """Show it; `Unavailable` for now. May be called again for one that was shown, after a crash in between."""

    async def progress(self, job: Job, progress: Progress) -> None:
        """How a running job is doing; may be dropped."""


class Runs(Protocol):
    """Where training runs are tracked. Raises `Unavailable` for now."""

    async def open_run(self, proposal: Proposal, job: Job) -> str:
        """The run of this proposal, made if it is not there yet."""

    async def close_run(self, run_id: str, phase: JobPhase) -> None:
        """Set its final status, if the trainer could not."""

    async def end_of(self, run_id: str) -> RunEnd | None:
        """How the trainer says that it ended; None if it did not say, or there is no such run."""

    @property
    def uri(self) -> str:
        """What trainers log to."""


class Outbox:
    def __init__(self, store: Store, notifier: Notifier, runs: Runs) -> None:
        self._store = store
        self._notifier = notifier
        self._runs = runs
        self._delivering = asyncio.Lock()  # in order, and none twice
        self._away: dict[int, int] = {}  # notice → tries in a row that found the far end away

    async def begin(self) -> None:
        """Give what was set aside of late another try: what it failed of may be mended by now."""
        await self._store.write(lambda writing: writing.take_up(writing.now - KEPT))

    async def deliver(self) -> None:
        """Hand over what people have not seen yet."""
        async with self._delivering:
            for notice in await self._store.undelivered(self._notifier.teams, other_than=CLOSE_RUN):
                await self._deliver(notice)

    async def close_runs(self) -> None:
        """What is for MLflow alone: apart from what people wait for, since MLflow may hang."""
        for notice in await self._store.undelivered(self._notifier.teams, only=CLOSE_RUN):
            await self._deliver(notice)

    async def _deliver(self, notice: Notice) -> None:
        if not self._store.database.sqlite:  # there may be other replicas
            lease = timedelta(seconds=LEASE_SECONDS)
            if not await self._store.write(lambda writing: writing.claim_notice(notice, writing.now + lease)):
                return
        crash("outbox.before_deliver")
        try:
            async with asyncio.timeout(DELIVERY_SECONDS):
                await self._hand_over(notice)
        except (Unavailable, TimeoutError) as error:
            await self._put_off(notice, error)
            return
        except Exception as error:  # a poison row is set aside with its trouble and stalls nobody
            await self._not_delivered(notice, error)
            return
        self._away.pop(notice.id, None)
        crash("outbox.after_deliver")
        await self._store.write(lambda writing: writing.delivered(notice))

    async def _hand_over(self, notice: Notice) -> None:
        if notice.kind != CLOSE_RUN:
            return await self._notifier.deliver(notice)
        job = await self._store.job(notice.subject)
        if job is not None and job.run_id is not None:
            await self._runs.close_run(job.run_id, job.phase)

    async def _put_off(self, notice: Notice, error: Exception) -> None:
        """The far end is away, which is not the notice's fault and is not counted."""
        tries = self._away[notice.id] = self._away.get(notice.id, 0) + 1
        log.warning("notice %s (%s) waits: %s", notice.id, notice.kind, _trouble(error))

        def commit(writing: Writing) -> None:
            late = writing.now - notice.created_at > KEPT
            retry_at = None if late else writing.now + backoff(tries, AWAY_SECONDS)
            writing.not_delivered(notice, _trouble(error), notice.failures, retry_at)

        await self._store.write(commit)

    async def _not_delivered(self, notice: Notice, error: Exception) -> None:
        self._away.pop(notice.id, None)
        failures = notice.failures + 1
        last = failures >= DELIVERIES
        log.warning("notice %s (%s): %s%s", notice.id, notice.kind, error, "; set aside" if last else "")

        def commit(writing: Writing) -> None:
            retry_at = None if last else writing.now + backoff(failures)
            writing.not_delivered(notice, _trouble(error), failures, retry_at)

        await self._store.write(commit)


def backoff(failures: int, longest: int = BACKOFF_SECONDS) -> timedelta:
    """How long to wait after so many failures in a row."""
    return timedelta(seconds=min(2 ** min(failures, 10), longest))


def _trouble(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
