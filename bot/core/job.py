"""A Job: one approved training on its way through an engine, and the one pure function that says what to do next.

`next_step` is level-triggered: it looks at what is recorded and what is observed, never at what happened last, so it
answers the same after a crash at any point. `bot.reconciler` performs the step; `bot.store` records it.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from tools.cost import Interval
from tools.engines.base import Attempt, Machine, Observation, Standing, StopReason
from tools.progress import ExitCode, Progress
from tools.spec import TrainingSpec


class JobPhase(StrEnum):
    """The values are the database's text."""

    QUEUED = "queued"  # approved; waits for a free slot and the permit
    SUBMITTED = "submitted"  # permitted; being created and released
    RUNNING = "running"  # holds its resources
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = (JobPhase.QUEUED, JobPhase.SUBMITTED)  # hold nothing yet, so they have no interval
OPEN = frozenset({*WAITING, JobPhase.RUNNING})
PERMITTED = OPEN - {JobPhase.QUEUED}  # past the second gate
TERMINAL = frozenset(JobPhase) - OPEN

OVERDUE_SECONDS = 15  # after its maximum runtime, until somebody beside the engine asks it to end
START_WITHIN = timedelta(minutes=30)  # from its place on a node to its program, where the engine says what is wrong
NOT_STARTED = (
    "It had its place, but its program did not start in time; what was wrong is told above. "
    "Mend that and propose it again."
)
DELETED = (
    "The engine no longer has the job: somebody deleted it, and what it did after that is unknown. Propose it again."
)
NO_ROOM = "It waited for room in the cluster until its maximum runtime was over. Propose it again."
FORGOTTEN = "The training failed, by its MLflow run; the engine no longer has the job, so its log is gone."
TOO_OLD = "The approval is too old: the training could not be started in time. Propose it again."


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job as it stands. Exactly one exists for an approved proposal, and none for any other."""

    name: str
    proposal_id: str
    number: int  # the proposal's
    team: str
    channel: str
    thread: str
    requester: str
    revision: int
    digest: str  # of the revision that was approved
    phase: JobPhase
    version: int
    approved_at: datetime
    start_before: datetime  # an approval expires too
    max_runtime_seconds: int
    ceiling: Decimal  # dollars it may cost at most, as approved
    checkpoint_of: str  # the job in whose folder its checkpoints are: its own name, or that which it goes on from
    run_id: str | None = None  # MLflow's
    uid: str | None = None  # the engine's
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_by: str | None = None
    reason: str = ""  # why it ended as it did, for people
    metrics: dict[str, float] = field(default_factory=dict)  # the trainer's result
    intervals: tuple[Interval, ...] = ()

    @property
    def open(self) -> bool:
        return self.phase in OPEN

    def changed(self, **changes: Any) -> Job:
        """A copy with these changes and the next version."""
        return replace(self, version=self.version + 1, **changes)


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a training ended by its run's record, which its trainer keeps itself: `phase` is a terminal one."""

    phase: JobPhase
    ended_at: datetime
    metrics: dict[str, float]


class Act(StrEnum):
    """What the reconciler can do for a job."""

    WAIT = "wait"
    PERMIT = "permit"  # check budget, policy and slots once more, then queued → submitted
    OPEN_RUN = "open_run"  # make the MLflow run that waits for this training
    CREATE = "create"  # put it into the engine, suspended
    RECORD_UID = "record_uid"
    RELEASE = "release"
    START = "start"  # submitted → running
    PROGRESS = "progress"
    STOP = "stop"  # ask the engine to end it
    FINISH = "finish"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One act, with what it needs."""

    act: Act
    phase: JobPhase | None = None  # for FINISH
    reason: str = ""


def next_step(job: Job, observed: Observation, now: datetime, start_within: timedelta = START_WITHIN) -> Step:
    """What to do now for an open job, given what the engine shows."""
    match job.phase:
        case JobPhase.QUEUED:
            return _next_queued(job, now)
        case JobPhase.SUBMITTED:
            return _next_submitted(job, observed, now)
        case JobPhase.RUNNING:
            return _next_running(job, observed, now, start_within)
        case _:
            return Step(act=Act.WAIT)


def remembered(job: Job, end: RunEnd, nodes: int) -> Observation:
    """A job that its engine has forgotten (deleted, or too long ago), by its run's record of the end.

    One that nobody saw start held its `nodes` since it was submitted, as far as anybody knows. It may have waited
    before, and anybody may have closed its run long after: nothing was held for more than the approved time.
    """
    longest = timedelta(seconds=job.max_runtime_seconds)
    held = [
        Attempt(
            number=one.attempt,
            started_at=one.started_at,
            ended_at=one.ended_at or min(max(end.ended_at, one.started_at), one.started_at + longest),
            estimated=one.estimated or one.ended_at is None,
            machine=Machine(gpu_product=one.resources.gpu_product, spot=one.resources.spot),
        )
        for one in job.intervals
    ]
    since = max(job.submitted_at or job.approved_at, end.ended_at - longest)
    unseen = Attempt(number=1, started_at=since, ended_at=max(end.ended_at, since), estimated=True)
    return Observation(
        standing=Standing.ENDED,
        uid=job.uid,
        digest=job.digest,
        attempts=tuple(held or [unseen] * nodes),
        exit_code=_RECORDED[end.phase],
        progress=Progress(result=end.metrics, error=FORGOTTEN if end.phase is JobPhase.FAILED else None),
    )


def _next_queued(job: Job, now: datetime) -> Step:
    if job.cancel_by:
        return _cancelled(job)
    if now >= job.start_before:
        return _finish(JobPhase.FAILED, TOO_OLD)
    return Step(act=Act.PERMIT)


def _next_submitted(job: Job, observed: Observation, now: datetime) -> Step:
    if observed.standing is Standing.ABSENT:
        if job.cancel_by:
            return _cancelled(job)
        if job.uid:
            return _finish(JobPhase.FAILED, "The engine lost the job before it started; it is not started again.")
        if now >= job.start_before:
            return _finish(JobPhase.FAILED, TOO_OLD)
        return Step(act=Act.CREATE if job.run_id else Act.OPEN_RUN)
    if observed.digest != job.digest:
        return _finish(JobPhase.FAILED, f"The engine has another job by the name {job.name}; it was left alone.")
    if job.uid is None:
        return Step(act=Act.RECORD_UID)
    if observed.uid != job.uid:
        return _finish(JobPhase.FAILED, f"The job {job.name} was replaced by another; it was left alone.")
    late = job.cancel_by or now >= job.start_before
    if observed.standing is Standing.SUSPENDED:
        return Step(act=Act.STOP if late else Act.RELEASE)
    if observed.attempts:
        return Step(act=Act.START)
    if observed.standing is Standing.ENDED:
        return _ended(job, observed)
    return Step(act=Act.STOP if late else Act.WAIT)  # the cluster has not started it yet


def _next_running(job: Job, observed: Observation, now: datetime, start_within: timedelta) -> Step:
    if observed.standing in (Standing.ABSENT, Standing.SUSPENDED) or observed.uid != job.uid:
        return _finish(JobPhase.FAILED, DELETED)
    if observed.standing is Standing.ENDED:
        return _ended(job, observed)
    if job.cancel_by:
        return Step(act=Act.STOP)
    if _overdue(job, now) or (observed.due is not None and now >= observed.due):
        return Step(act=Act.STOP)  # the engine stops it by itself; this is the second pair of hands
    if _stuck(job, observed, now - start_within):
        return Step(act=Act.STOP)  # nothing in an engine ends what cannot start, and it holds its place
    return Step(act=Act.PROGRESS)


def _stuck(job: Job, observed: Observation, since: datetime) -> bool:
    """Whether it has held its place since then, never began, and the engine says what is wrong."""
    holds = any(one.ended_at is None and one.started_at < since for one in observed.attempts)
    return holds and bool(observed.waiting) and not _began(job, observed)


def _began(job: Job, observed: Observation) -> bool:
    known = [*(one.began_at for one in job.intervals), *(one.began_at for one in observed.attempts)]
    return any(at is not None for at in known)


def _overdue(job: Job, now: datetime) -> bool:
    limit = timedelta(seconds=job.max_runtime_seconds + OVERDUE_SECONDS)
    return job.started_at is not None and now - job.started_at > limit


def _ended(job: Job, observed: Observation) -> Step:
    if observed.exit_code == ExitCode.OK:
        return _finish(JobPhase.SUCCEEDED, "")
    if observed.stopped is StopReason.DEADLINE and not observed.attempts:
        return _finish(JobPhase.FAILED, NO_ROOM)
    nobody = observed.stopped is StopReason.CANCELLED and job.cancel_by is None and job.started_at is not None
    if nobody and _gave_up(job, observed):
        return _finish(JobPhase.FAILED, NOT_STARTED)
    if observed.stopped is StopReason.DEADLINE or nobody:
        return _finish(JobPhase.FAILED, f"Stopped at its maximum runtime of {job.max_runtime_seconds // 60} min.")
    if job.cancel_by and (observed.stopped is StopReason.CANCELLED or observed.exit_code == ExitCode.INTERRUPTED):
        return _cancelled(job)
    if observed.attempts:
        return _finish(JobPhase.FAILED, _why(observed))
    return _finish(JobPhase.FAILED, observed.progress.error or TOO_OLD)


def _gave_up(job: Job, observed: Observation) -> bool:
    """Whether it was stopped before its time was over, and had not begun."""
    ends = [one.ended_at for one in observed.attempts if one.ended_at is not None]
    over_at = observed.over_at or max(ends, default=None)
    if job.started_at is None or over_at is None or _began(job, observed):
        return False
    return over_at - job.started_at < timedelta(seconds=job.max_runtime_seconds)


_RECORDED = {
    JobPhase.SUCCEEDED: ExitCode.OK,
    JobPhase.CANCELLED: ExitCode.INTERRUPTED,
    JobPhase.FAILED: ExitCode.FAILURE,
}
_CODES = {
    ExitCode.BAD_INPUT: "The trainer could not use its input.",
    ExitCode.OUT_OF_MEMORY: "Out of memory: try a smaller batch_size.",
    ExitCode.INTERRUPTED: "The training was interrupted from outside; its checkpoint is kept.",
}


def _why(observed: Observation) -> str:
    """The trainer's own sentence, or one for its exit status."""
    code = observed.exit_code
    if observed.progress.error:
        return observed.progress.error
    if code is None:
        return "The training died without an exit status (killed from outside, or the machine went down)."
    if code == -signal.SIGKILL:
        return (
            "The training was killed by SIGKILL; the kernel does that when memory runs out: try a smaller batch_size."
        )
    if code < 0:
        return f"The training was killed by {_signal(-code)}."
    return next(
        (words for known, words in _CODES.items() if known == code), f"The trainer failed (exit status {code})."
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def remedy(job: Job, spec: TrainingSpec, observed: Observation) -> dict[str, int | str]:
    """Parameters to try after a training that did not reach its end; empty where nothing is known to help."""
    if observed.exit_code == ExitCode.OUT_OF_MEMORY:
        return {**observed.remedy} or ({"batch_size": spec.batch_size // 2} if spec.batch_size > 1 else {})
    if not observed.resumable or observed.exit_code in (ExitCode.OK, ExitCode.BAD_INPUT):
        return {}
    return {"resume_from": spec.resume_from or job.name}


def _cancelled(job: Job) -> Step:
    return _finish(JobPhase.CANCELLED, f"Cancelled by {job.cancel_by}.")


def _finish(phase: JobPhase, reason: str) -> Step:
    return Step(act=Act.FINISH, phase=phase, reason=reason)
