"""The reconciler: looks at every open row and the engine, and drives each one step towards where it belongs.

Level-triggered, so a restart at any moment resumes everything: it reads what is recorded, observes what is there, asks
`bot.core.job.next_step`, performs that, records it. A step that fails backs off with its trouble on the row; rows
never wait for each other. It also expires proposals and has `bot.outbox` deliver. Retries live in these two alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy.exc import IntegrityError

from bot.approvals.pricing import Pricing
from bot.core.errors import Conflict, Refused, Unavailable
from bot.core.job import Act, Job, JobPhase, Step, next_step, remedy
from bot.core.policy import check_start
from bot.core.proposal import Proposal, Verdict
from bot.outbox import CLOSE_RUN, Notifier, Outbox, Runs, backoff
from bot.policies import Policies
from bot.store.reading import OpenJob
from bot.store.store import Store
from bot.store.writing import Writing
from tools.cost import Interval
from tools.crashpoints import crash
from tools.engines.base import (
    Engine,
    EngineRefused,
    EngineUnavailable,
    Observation,
    Standing,
    Submission,
)
from tools.progress import Progress

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
APART_SECONDS = 0.1  # between two ticks, however often they are asked for: one look serves all who came meanwhile
STEP_SECONDS = 60.0  # for all that one job may take in a tick; every network call below it has its own time-out
STEPS_A_TICK = 10  # of one job: from queued to running takes six
REMIND_SECONDS = 20  # between two looks for what expires soon


class Reconciler:
    def __init__(
        self, store: Store, engine: Engine, runs: Runs, pricing: Pricing, policies: Policies, notifier: Notifier
    ) -> None:
        self._store = store
        self._engine = engine
        self._runs = runs
        self._outbox = Outbox(store, notifier, runs)
        self._pricing = pricing
        self._policies = policies
        self._notifier = notifier
        self._wake = asyncio.Event()
        self._driven: dict[str, asyncio.Task[None]] = {}
        self._reminded: set[str] = set()
        self._saved: dict[str, Progress] = {}  # what of each job's progress is in the database
        self._closing: asyncio.Task[None] | None = None
        self._delivering: asyncio.Task[None] | None = None
        self._deliver_again = False
        self._remind_next = datetime.min.replace(tzinfo=UTC)
        self._permitting = asyncio.Lock()  # slots are counted and taken by one job at a time

    def wake(self) -> None:
        """Something was committed: look now rather than at the next tick."""
        self._wake.set()

    async def run(self) -> None:
        """Tick until cancelled."""
        try:
            while True:
                again = asyncio.get_running_loop().time() + APART_SECONDS
                await self.tick(wait=False)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), TICK_SECONDS)
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
        for proposal in await self._store.pending_everywhere():
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
        found_open = await self._store.open_jobs()
        waiting = await self._without_slot(found_open, now)
        for found in found_open:
            if found.retry_at is not None and found.retry_at > now:
                continue
            name = found.job.name
            if name not in self._driven and name not in waiting:
                task = asyncio.create_task(self._drive(found, now), name=f"drive {name}")
                self._driven[name] = task
                task.add_done_callback(partial(self._forget, name))

    async def _without_slot(self, found: list[OpenJob], now: datetime) -> set[str]:
        """Queued jobs that could only ask for a slot that is not free: a long queue costs one look, not one a job."""
        absent = Observation(standing=Standing.ABSENT)
        queued = [one.job for one in found if one.job.phase is JobPhase.QUEUED]
        asking = {job.name for job in queued if next_step(job, absent, now).act is Act.PERMIT}
        if not asking:
            return asking
        try:
            free = await self._engine.free_slots()
        except EngineUnavailable:
            return set()  # each backs off by itself, with its trouble on its row
        free -= sum(one.job.phase is JobPhase.SUBMITTED for one in found)
        return asking - {job.name for job in queued[: max(free, 0)]}

    def _forget(self, name: str, _: asyncio.Task[None]) -> None:
        self._driven.pop(name, None)

    async def _drive(self, found: OpenJob, now: datetime) -> None:
        """As many steps as lead on at once; what fails is written beside the job and tried again later."""
        try:
            async with asyncio.timeout(STEP_SECONDS):
                if await self._goes_on(found, now):
                    return
                for _ in range(STEPS_A_TICK):
                    if not await self._step(found.job.proposal_id):
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

    async def _goes_on(self, found: OpenJob, now: datetime) -> bool:
        """Whether all that can be seen is recorded, by the one query that read all: true of most, at most looks."""
        job = found.job
        if job.phase is JobPhase.QUEUED:
            return False
        observed = await self._engine.observe(job.name)
        return (
            next_step(job, observed, now).act in (Act.PROGRESS, Act.WAIT)
            and _recorded(job, observed)
            and observed.waiting in ("", found.trouble)
            and (job.phase is not JobPhase.RUNNING or self._saved.get(job.name) == observed.progress)
        )

    async def _back_off(self, found: OpenJob, trouble: str) -> None:
        failures = found.failures + 1
        log.warning("job %s: %s", found.job.name, trouble)
        job = found.job

        def commit(writing: Writing) -> None:
            writing.save_trouble(job, trouble, failures, writing.now + backoff(failures))
            if trouble != found.trouble:  # people hear of it once, not at every try
                writing.tell(job.team, job.channel, "trouble", job.proposal_id, "signalbox")

        await self._store.write(commit)

    async def _step(self, proposal_id: str) -> bool:
        """One step from fresh rows. True if another may follow at once."""
        job = await self._store.job(proposal_id)
        if job is None or not job.open:
            return False
        queued = job.phase is JobPhase.QUEUED
        observed = Observation(standing=Standing.ABSENT) if queued else await self._engine.observe(job.name)
        step = next_step(job, observed, await self._store.now())
        return await self._acts[step.act](self, job, observed, step)

    async def _permit(self, job: Job, observed: Observation, step: Step) -> bool:
        """The second gate: slots, then budget, policy and the digest, right before anything is asked of the engine."""
        async with self._permitting:
            jobs = await self._store.open_jobs()
            claimed = sum(one.job.phase is JobPhase.SUBMITTED for one in jobs)
            waiting = [one.job.name for one in jobs if one.job.phase is JobPhase.QUEUED]
            free = await self._engine.free_slots() - claimed
            if job.name not in waiting[: max(free, 0)]:
                return False
            proposal = await self._proposal(job)
            try:
                policy = await self._policies.of(job.team, job.channel)
                now = await self._store.now()
                budget = await self._pricing.budget(policy, job.team, job.channel, now, apart_from=job.proposal_id)
                check_start(policy, proposal, budget)
            except Refused as error:
                return await self._finish(job, observed, Step(act=Act.FINISH, phase=JobPhase.FAILED, reason=str(error)))

            def commit(writing: Writing) -> None:
                after = job.changed(phase=JobPhase.SUBMITTED, submitted_at=writing.now)
                writing.move(job, after, kind="permitted", actor="signalbox")

            await self._store.write(commit)
        crash("permit.after_commit")
        return True

    async def _open_run(self, job: Job, observed: Observation, step: Step) -> bool:
        run_id = await self._runs.open_run(await self._proposal(job), job)
        crash("run.opened")
        await self._record(job, "run", run_id=run_id)
        crash("run.recorded")
        return True

    async def _create(self, job: Job, observed: Observation, step: Step) -> bool:
        proposal = await self._proposal(job)
        if proposal.offer.digest != job.digest or job.run_id is None:
            reason = "What would run is not what was approved (its digest differs); it was not started."
            return await self._finish(job, observed, Step(act=Act.FINISH, phase=JobPhase.FAILED, reason=reason))
        submission = Submission(
            name=job.name,
            proposal_id=job.proposal_id,
            digest=job.digest,
            manifest=proposal.offer.manifest,
            run_id=job.run_id,
            tracking_uri=self._runs.uri,
            approvers=sorted(vote.voter for vote in proposal.votes_for(Verdict.APPROVE)),
        )
        crash("create.before")
        try:
            uid = await self._engine.create(submission)
        except EngineRefused as error:
            return await self._finish(job, observed, Step(act=Act.FINISH, phase=JobPhase.FAILED, reason=str(error)))
        crash("create.after")
        await self._record(job, "created", uid=uid)
        crash("create.recorded")
        return True

    async def _record_uid(self, job: Job, observed: Observation, step: Step) -> bool:
        await self._record(job, "created", uid=observed.uid)
        return True

    async def _release(self, job: Job, observed: Observation, step: Step) -> bool:
        crash("release.before")
        try:
            await self._engine.release(job.name, job.uid or "")
        except EngineRefused as error:
            return await self._finish(job, observed, Step(act=Act.FINISH, phase=JobPhase.FAILED, reason=str(error)))
        crash("release.after")
        return True

    async def _start(self, job: Job, observed: Observation, step: Step) -> bool:
        proposal = await self._proposal(job)
        intervals = _intervals(job, observed, proposal)
        after = job.changed(phase=JobPhase.RUNNING, started_at=intervals[0].started_at, intervals=intervals)

        def commit(writing: Writing) -> None:
            writing.move(job, after, kind="started", actor="signalbox")
            writing.tell(job.team, job.channel, "started", job.proposal_id, "signalbox")

        await self._store.write(commit)
        crash("start.recorded")
        return observed.standing is Standing.ENDED

    async def _progress(self, job: Job, observed: Observation, step: Step) -> bool:
        intervals = _intervals(job, observed, await self._proposal(job))
        if intervals != job.intervals:
            await self._record(job, "attempt", intervals=intervals)
            return True
        await self._say_why(job, observed)
        if observed.progress != await self._store.progress(job.proposal_id):
            await self._store.write(lambda writing: writing.save_progress(job, observed.progress))
            await self._notifier.progress(job, observed.progress)
        self._saved[job.name] = observed.progress
        return False

    async def _stop(self, job: Job, observed: Observation, step: Step) -> bool:
        await self._engine.cancel(job.name, job.uid or "")
        if job.phase is JobPhase.RUNNING:
            await self._progress(job, observed, step)
        return False

    async def _finish(self, job: Job, observed: Observation, step: Step) -> bool:
        """Close the books: phase, reason, metrics, intervals; people hear it if and only if this commits."""
        assert step.phase is not None
        intervals = job.intervals
        proposal = await self._proposal(job)
        if observed.attempts and observed.uid == job.uid and job.phase is not JobPhase.QUEUED:
            intervals = _intervals(job, observed, proposal)
        phase = step.phase
        helps = remedy(job, proposal.offer.spec, observed) if phase is not JobPhase.SUCCEEDED else {}
        crash("finish.before_commit")

        def commit(writing: Writing) -> None:
            after = job.changed(
                phase=phase,
                reason=step.reason,
                finished_at=writing.now,
                metrics=dict(observed.progress.result) if phase is JobPhase.SUCCEEDED else {},
                intervals=tuple(_closed(interval, writing.now) for interval in intervals),
            )
            writing.save_progress(job, observed.progress)
            writing.move(job, after, kind=phase.value, actor=job.cancel_by or "signalbox")
            if helps:
                writing.save_remedy(job, helps)
            writing.tell(job.team, job.channel, "finished", job.proposal_id, "signalbox")
            if job.run_id:
                writing.tell(job.team, job.channel, CLOSE_RUN, job.proposal_id, "signalbox")

        await self._store.write(commit)
        self._saved.pop(job.name, None)
        crash("finish.after_commit")
        self.wake()
        return False

    async def _waiting(self, job: Job, observed: Observation, step: Step) -> bool:
        await self._say_why(job, observed)
        return False

    async def _say_why(self, job: Job, observed: Observation) -> None:
        """Why it does not start or get on. People hear it anew when the kind of trouble changes, not its details."""
        found = await self._store.job_detail(job.proposal_id) if observed.waiting else None
        if found is not None and observed.waiting != found.trouble:
            told = found.trouble.partition(":")[0] == observed.waiting.partition(":")[0]

            def commit(writing: Writing) -> None:
                writing.save_trouble(job, observed.waiting, 0, writing.now)
                if not told:
                    writing.tell(job.team, job.channel, "trouble", job.proposal_id, "signalbox")

            await self._store.write(commit)
            if told:
                await self._notifier.progress(job, observed.progress)
            self.wake()

    async def _record(self, job: Job, kind: str, **changes: object) -> None:
        after = job.changed(**changes)
        await self._store.write(lambda writing: writing.move(job, after, kind=kind, actor="signalbox"))

    async def _proposal(self, job: Job) -> Proposal:
        proposal = await self._store.proposal_by_id(job.proposal_id)
        assert proposal is not None, "a job has a proposal by the database's own constraint"
        return proposal

    _acts: Mapping[Act, Callable[[Reconciler, Job, Observation, Step], Awaitable[bool]]] = {
        Act.WAIT: _waiting,
        Act.PERMIT: _permit,
        Act.OPEN_RUN: _open_run,
        Act.CREATE: _create,
        Act.RECORD_UID: _record_uid,
        Act.RELEASE: _release,
        Act.START: _start,
        Act.PROGRESS: _progress,
        Act.STOP: _stop,
        Act.FINISH: _finish,
    }


def _expired(before: Proposal, writing: Writing) -> None:
    after = before.expired(writing.now)
    writing.move(before, after, kind="expired", actor="signalbox")
    writing.tell(after.team, after.channel, "expired", after.id, "signalbox")


def _reminded(proposal: Proposal, key: str, writing: Writing) -> None:
    writing.tell(proposal.team, proposal.channel, "reminder", proposal.id, "signalbox", once=key)


def _intervals(job: Job, observed: Observation, proposal: Proposal) -> tuple[Interval, ...]:
    """The engine's attempts as intervals at the approved rates. Times before the bot's own restart are as observed.

    What was recorded and cannot be observed any more (a drained node took its pod along) was held all the same: it
    stays, and ended at the latest when the next began.
    """
    offer = proposal.offer
    seen = [
        Interval(
            attempt=attempt.number,
            started_at=attempt.started_at,
            ended_at=attempt.ended_at,
            resources=offer.resources,
            rate_version=offer.rate_version,
            hourly=offer.hourly,
            estimated=attempt.estimated,
        )
        for attempt in observed.attempts
    ]
    began = {interval.started_at for interval in seen}
    known = [interval for interval in job.intervals if interval.started_at not in began]
    found = sorted((*known, *seen), key=lambda interval: interval.started_at)
    made = []
    for number, interval in enumerate(found, 1):
        later = found[number].started_at if number < len(found) else None
        ended = _closed(interval, later) if later and interval in known else interval
        made.append(replace(ended, attempt=number))
    return tuple(made)


def _recorded(job: Job, observed: Observation) -> bool:
    """Whether every attempt that can be seen has its interval."""
    seen = {(one.started_at, one.ended_at, one.estimated) for one in observed.attempts}
    return seen <= {(one.started_at, one.ended_at, one.estimated) for one in job.intervals}


def _closed(interval: Interval, now: datetime) -> Interval:
    """An interval whose end nobody saw ends now, marked as estimated."""
    if interval.ended_at is not None:
        return interval
    return replace(interval, ended_at=max(now, interval.started_at), estimated=True)


async def _guarded(what: str, act: Callable[[], Awaitable[None]]) -> None:
    try:
        await act()
    except Unavailable as error:
        log.warning("could not %s: %s", what, error)
    except Exception:
        log.exception("could not %s", what)
