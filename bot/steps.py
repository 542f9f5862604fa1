"""The steps of one job towards where it belongs: each acts on what is recorded and observed, and records what it did.

`bot.core.job.next_step` says which; `Steps.take` performs it. A step may be repeated after a crash at any point: what
it asks of an engine or of MLflow is idempotent, and what it writes is compared and swapped. `bot.reconciler` decides
when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from bot.approvals.pricing import Pricing
from bot.core.errors import Refused
from bot.core.intervals import charged, closed, is_recorded
from bot.core.job import START_WITHIN, Act, Job, JobPhase, Step, next_step, remedy, remembered
from bot.core.policy import check_start
from bot.core.proposal import Proposal, Verdict
from bot.outbox import CLOSE_RUN, Notifier, Runs
from bot.policies import Policies
from bot.store.reading import OpenJob
from bot.store.store import Store
from bot.store.writing import Writing
from tools.cost import Interval
from tools.crashpoints import crash
from tools.engines.base import Engine, EngineRefused, Observation, Standing, StopReason, Submission
from tools.progress import Progress


class Steps:
    """`wake` is called where another look should follow at once."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        runs: Runs,
        pricing: Pricing,
        policies: Policies,
        notifier: Notifier,
        wake: Callable[[], None],
        start_within: timedelta = START_WITHIN,
    ) -> None:
        self._store = store
        self._engine = engine
        self._runs = runs
        self._pricing = pricing
        self._policies = policies
        self._notifier = notifier
        self._wake = wake
        self._start_within = start_within
        self._saved: dict[str, Progress] = {}  # what of each job's progress is in the database
        self._permitting = asyncio.Lock()  # slots are counted and taken by one job at a time

    async def goes_on(self, found: OpenJob, now: datetime) -> bool:
        """Whether all that can be seen is recorded, by the one query that read all: true of most, at most looks."""
        job = found.job
        if job.phase is JobPhase.QUEUED:
            return False
        observed = await self._engine.observe(job.name)
        return (
            next_step(job, observed, now, self._start_within).act in (Act.PROGRESS, Act.WAIT)
            and is_recorded(job.intervals, observed.attempts)
            and observed.waiting in ("", found.trouble)
            and (job.phase is not JobPhase.RUNNING or self._saved.get(job.name) == observed.progress)
        )

    async def take(self, proposal_id: str) -> bool:
        """One step from fresh rows. True if another may follow at once."""
        job = await self._store.job(proposal_id)
        if job is None or not job.open:
            return False
        observed = await self._observed(job)
        step = next_step(job, observed, await self._store.now(), self._start_within)
        return await self._acts[step.act](self, job, observed, step)

    async def _observed(self, job: Job) -> Observation:
        """What the engine shows; of a job that it had and has forgotten, or its pods, what the run's record tells."""
        if job.phase is JobPhase.QUEUED:
            return Observation(standing=Standing.ABSENT)
        observed = await self._engine.observe(job.name)
        gone = observed.standing is Standing.ABSENT
        # Pods go with their nodes. One that was cancelled may never have had any, and must not wait for MLflow.
        bare = observed.standing is Standing.ENDED and not observed.attempts
        if job.uid and job.run_id and (gone or (bare and observed.stopped is not StopReason.CANCELLED)):
            end = await self._runs.end_of(job.run_id)
            if end is not None:
                told = remembered(job, end, (await self._proposal(job)).offer.resources.nodes)
                return told if gone else replace(observed, attempts=told.attempts)
        return observed

    async def _permit(self, job: Job, observed: Observation, step: Step) -> bool:
        """The second gate: slots, then budget, policy and the digest, right before anything is asked of the engine."""
        async with self._permitting:
            held = [one.job for one in await self._store.held_jobs()]
            free = await self._engine.free_slots() - sum(one.phase is JobPhase.SUBMITTED for one in held)
            if await self._store.ahead_of(job) >= free:
                return False
            proposal = await self._proposal(job)
            try:
                policy = await self._policies.of(job.team, job.channel)
                now = await self._store.now()
                budget = await self._pricing.budget(policy, job.team, job.channel, now, apart_from=job.proposal_id)
                check_start(policy, proposal, budget)
            except Refused as error:
                return await self._finish(job, observed, Step(act=Act.FINISH, phase=JobPhase.FAILED, reason=str(error)))

            def commit(writing: Writing) -> bool:
                if not writing.has_turn(job, free, seen={one.name for one in held}):
                    return False
                after = job.changed(phase=JobPhase.SUBMITTED, submitted_at=writing.now)
                writing.move(job, after, kind="permitted", actor="signalbox")
                return True

            if not await self._store.write(commit):
                return False
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
        intervals = self._charged(job, observed, proposal)
        after = job.changed(phase=JobPhase.RUNNING, started_at=intervals[0].started_at, intervals=intervals)

        def commit(writing: Writing) -> None:
            writing.move(job, after, kind="started", actor="signalbox")
            writing.tell(job.team, job.channel, "started", job.proposal_id, "signalbox")

        await self._store.write(commit)
        crash("start.recorded")
        return observed.standing is Standing.ENDED

    async def _progress(self, job: Job, observed: Observation, step: Step) -> bool:
        intervals = self._charged(job, observed, await self._proposal(job))
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
            intervals = self._charged(job, observed, proposal)
        phase = step.phase
        helps = remedy(job, proposal.offer.spec, observed) if phase is not JobPhase.SUCCEEDED else {}
        longest = timedelta(seconds=job.max_runtime_seconds)  # that it can have held anything, unseen
        over_at = observed.over_at
        crash("finish.before_commit")

        def commit(writing: Writing) -> None:
            after = job.changed(
                phase=phase,
                reason=step.reason,
                finished_at=writing.now,
                metrics=dict(observed.progress.result) if phase is JobPhase.SUCCEEDED else {},
                intervals=tuple(
                    closed(one, min(writing.now, one.started_at + longest, over_at or writing.now)) for one in intervals
                ),
            )
            if observed.standing is not Standing.ABSENT:
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
        self._wake()
        return False

    async def _waiting(self, job: Job, observed: Observation, step: Step) -> bool:
        await self._say_why(job, observed)
        return False

    async def _say_why(self, job: Job, observed: Observation) -> None:
        """Why it does not start or get on. People hear it anew when the kind of trouble changes, not its details."""
        found = await self._store.job_detail(job.proposal_id) if observed.waiting else None
        if found is not None and observed.waiting != found.trouble:
            told = _kind(found.trouble) == _kind(observed.waiting)

            def commit(writing: Writing) -> None:
                writing.save_trouble(job, observed.waiting, 0, writing.now)
                if not told:
                    writing.tell(job.team, job.channel, "trouble", job.proposal_id, "signalbox")

            await self._store.write(commit)
            if told:
                await self._notifier.progress(job, observed.progress)
            self._wake()

    def _charged(self, job: Job, observed: Observation, proposal: Proposal) -> tuple[Interval, ...]:
        offer = proposal.offer
        return charged(job.intervals, observed.attempts, offer, self._pricing.rates_of(offer))

    async def _record(self, job: Job, kind: str, **changes: object) -> None:
        after = job.changed(**changes)
        await self._store.write(lambda writing: writing.move(job, after, kind=kind, actor="signalbox"))

    async def _proposal(self, job: Job) -> Proposal:
        proposal = await self._store.proposal_by_id(job.proposal_id)
        assert proposal is not None, "a job has a proposal by the database's own constraint"
        return proposal

    _acts: Mapping[Act, Callable[[Steps, Job, Observation, Step], Awaitable[bool]]] = {
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


def _kind(trouble: str) -> str:
    """What a sentence says before its details."""
    return trouble.partition(":")[0].rstrip(".")
