"""The reconciler: looks at every open row and the engine, and drives each one step towards where it belongs.

Level-triggered, so a restart at any moment resumes everything: it reads what is recorded, observes what is there, asks
`bot.core.job.next_step`, performs that, records it. A step that fails backs off with its trouble on the row; rows
never wait for each other. It also expires proposals and has `bot.outbox` deliver. Retries live in these two alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy.exc import IntegrityError

from bot.approvals.pricing import Pricing
from bot.core.errors import Conflict, Refused, Unavailable
from bot.core.job import START_WITHIN, JobPhase
from bot.core.proposal import Proposal
from bot.outbox import Notifier, Outbox, Runs, backoff
from bot.policies import Policies
from bot.steps import Steps
from bot.store.reading import OpenJob
from bot.store.store import Expiring, Store
from bot.store.writing import Writing
from tools.engines.base import Engine, EngineUnavailable

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
APART_SECONDS = 0.25  # between two ticks, however often they are asked for: one look serves all who came meanwhile
STEP_SECONDS = 60.0  # for all that one job may take in a tick; every network call below it has its own time-out
STEPS_A_TICK = 10  # of one job: from queued to running takes six
REMIND_SECONDS = 20  # between two looks for what expires soon


class Reconciler:
    def __init__(
        self,
        store: Store,
        engine: Engine,
        runs: Runs,
        pricing: Pricing,
        policies: Policies,
        notifier: Notifier,
        start_within: timedelta = START_WITHIN,
    ) -> None:
        self._store = store
        self._engine = engine
        self._policies = policies
        self._outbox = Outbox(store, notifier, runs)
        self._steps = Steps(store, engine, runs, pricing, policies, notifier, self.wake, start_within)
        self._wake = asyncio.Event()
        self._driven: dict[str, asyncio.Task[None]] = {}
        self._reminded: set[str] = set()
        self._closing: asyncio.Task[None] | None = None
        self._delivering: asyncio.Task[None] | None = None
        self._deliver_again = False
        self._remind_next = datetime.min.replace(tzinfo=UTC)

    def wake(self) -> None:
        """Something was committed: look now rather than at the next tick."""
        self._wake.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        await _guarded("take up what was set aside", self._outbox.begin)
        try:
            while True:
                again = asyncio.get_running_loop().time() + APART_SECONDS
                await self.tick(wait=False)
                with suppress(TimeoutError):  # asyncio.wait_for would lose a cancel that comes with the wake
                    async with asyncio.timeout(TICK_SECONDS):
                        await self._wake.wait()
                await asyncio.sleep(again - asyncio.get_running_loop().time())
                self._wake.clear()
        finally:
            beside = [task for task in (self._closing, self._delivering) if task is not None]
            tasks = [*self._driven.values(), *beside]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def tick(self, *, wait: bool = True) -> None:
        """One look at everything. With `wait`, every job's step is over when it returns."""
        await _guarded("expire proposals", self._expire)
        await _guarded("remind approvers", self._remind)
        self._deliver_again = True
        if not wait and (self._delivering is None or self._delivering.done()):
            self._delivering = asyncio.create_task(self._deliver_all())
        await _guarded("drive jobs", self._drive_jobs)
        if wait:
            await asyncio.gather(*self._driven.values())
            await _guarded("deliver notices", self._outbox.deliver)
        if self._closing is None or self._closing.done():
            self._closing = asyncio.create_task(_guarded("close MLflow's runs", self._outbox.close_runs))
        if wait:
            await self._closing

    # -- proposals --------------------------------------------------------------------------------------------

    async def _expire(self) -> None:
        for before in await self._store.overdue():
            try:
                await self._store.write(partial(_expired, before))
            except (Conflict, Refused):
                log.debug("proposal %s was decided as it expired", before.number)

    async def _remind(self) -> None:
        """Once for each revision, when its time is nearly over."""
        now = await self._store.now()
        if now < self._remind_next:
            return
        self._remind_next = now + timedelta(seconds=REMIND_SECONDS)
        for proposal in await self._store.expiring():
            key = f"reminder:{proposal.id}:{proposal.revision}"
            policy = await self._policies.of(proposal.team, proposal.channel)
            if policy.remind_before_minutes is None or key in self._reminded:
                continue
            lead = min(timedelta(minutes=policy.remind_before_minutes), policy.decide_within / 2)
            if not proposal.expires_at - lead <= now < proposal.expires_at:
                continue
            self._reminded.add(key)
            with suppress(IntegrityError):  # another replica, or a life before this, has told it
                await self._store.write(partial(_reminded, proposal, key))

    async def _deliver_all(self) -> None:
        """Beside everything else: jobs do not wait for a slow surface. What comes meanwhile is handed over after it."""
        while self._deliver_again:
            self._deliver_again = False
            await _guarded("deliver notices", self._outbox.deliver)

    async def deliver(self) -> None:
        """Hand over what people have not seen yet, now."""
        await self._outbox.deliver()

    # -- jobs -------------------------------------------------------------------------------------------------

    async def _drive_jobs(self) -> None:
        now = await self._store.now()
        held = await self._store.held_jobs()
        for found in [*held, *await self._next_queued(held, now)]:
            if found.retry_at is not None and found.retry_at > now:
                continue
            name = found.job.name
            if name not in self._driven:
                task = asyncio.create_task(self._drive(found, now), name=f"drive {name}")
                self._driven[name] = task
                task.add_done_callback(partial(self._forget, name))

    async def _next_queued(self, held: list[OpenJob], now: datetime) -> list[OpenJob]:
        """As many queued jobs as there are free slots, so that a tick costs no more in a long queue."""
        if not await self._store.count_queued():
            return []
        try:
            free = await self._engine.free_slots() - sum(one.job.phase is JobPhase.SUBMITTED for one in held)
        except EngineUnavailable:
            return await self._store.queued_jobs(first=None, now=now)  # each backs off, with its trouble on its row
        return await self._store.queued_jobs(first=max(free, 0), now=now)

    def _forget(self, name: str, _: asyncio.Task[None]) -> None:
        self._driven.pop(name, None)

    async def _drive(self, found: OpenJob, now: datetime) -> None:
        """As many steps as lead on at once; what fails is written beside the job and tried again later."""
        try:
            async with asyncio.timeout(STEP_SECONDS):
                if await self._steps.goes_on(found, now):
                    return
                for _ in range(STEPS_A_TICK):
                    if not await self._steps.take(found.job.proposal_id):
                        return
        except Conflict:
            self.wake()  # it moved as we looked; look again
        except (Unavailable, EngineUnavailable) as error:
            await self._back_off(found, str(error))
        except TimeoutError:
            await self._back_off(found, f"A step took longer than {STEP_SECONDS:.0f} s; it is tried again.")
        except Exception as error:  # one row's bug must not stop the others
            log.exception("job %s: a step failed", found.job.name)
            await self._back_off(found, f"Internal error ({type(error).__name__}); see the log of Signalbox.")

    async def _back_off(self, found: OpenJob, trouble: str) -> None:
        failures = found.failures + 1
        log.warning("job %s: %s", found.job.name, trouble)
        job = found.job

        def commit(writing: Writing) -> None:
            writing.save_trouble(job, trouble, failures, writing.now + backoff(failures))
            if trouble != found.trouble:  # people hear of it once, not at every try
                writing.tell(job.team, job.channel, "trouble", job.proposal_id, "signalbox")

        await self._store.write(commit)


def _expired(before: Proposal, writing: Writing) -> None:
    after = before.expired(writing.now)
    writing.move(before, after, kind="expired", actor="signalbox")
    writing.tell(after.team, after.channel, "expired", after.id, "signalbox")


def _reminded(proposal: Expiring, key: str, writing: Writing) -> None:
    writing.tell(proposal.team, proposal.channel, "reminder", proposal.id, "signalbox", once=key)


async def _guarded(what: str, act: Callable[[], Awaitable[None]]) -> None:
    try:
        await act()
    except Unavailable as error:
        log.warning("could not %s: %s", what, error)
    except Exception:
        log.exception("could not %s", what)
