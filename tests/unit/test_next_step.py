"""What the reconciler does next, for every phase and everything that an engine can show."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from bot.core.job import Act, Job, JobPhase, next_step
from tools.engines.base import Attempt, Observation, Standing, StopReason
from tools.progress import Progress

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
JOB = Job(
    name="digits-1-abc",
    proposal_id="abc",
    number=1,
    team="local",
    channel="terminal",
    thread="t",
    requester="rae",
    revision=1,
    digest="d" * 64,
    phase=JobPhase.QUEUED,
    version=1,
    approved_at=NOW,
    start_before=NOW + timedelta(hours=24),
    max_runtime_seconds=900,
    ceiling=Decimal("0.05"),
    checkpoint_of="digits-1-abc123",
)
SUBMITTED = replace(JOB, phase=JobPhase.SUBMITTED, run_id="r", uid="u")
RUNNING = replace(SUBMITTED, phase=JobPhase.RUNNING, started_at=NOW)
ABSENT = Observation(standing=Standing.ABSENT)
SEEN = Observation(standing=Standing.SUSPENDED, uid="u", digest="d" * 64)
ATTEMPT = Attempt(number=1, started_at=NOW)
LIVE = replace(SEEN, standing=Standing.RUNNING, attempts=(ATTEMPT,))
PENDING = replace(SEEN, standing=Standing.PENDING, waiting="No node can take it now.")
BETWEEN = replace(LIVE, standing=Standing.PENDING, attempts=(replace(ATTEMPT, ended_at=NOW),))
OVER = replace(LIVE, standing=Standing.ENDED, exit_code=0)
LATER = NOW + timedelta(days=2)


@pytest.mark.parametrize(
    ("job", "observed", "now", "act"),
    [
        (JOB, ABSENT, NOW, Act.PERMIT),
        (JOB, ABSENT, LATER, Act.FINISH),
        (replace(JOB, cancel_by="ann"), ABSENT, NOW, Act.FINISH),
        (replace(SUBMITTED, uid=None, run_id=None), ABSENT, NOW, Act.OPEN_RUN),
        (replace(SUBMITTED, uid=None), ABSENT, NOW, Act.CREATE),
        (replace(SUBMITTED, uid=None), ABSENT, LATER, Act.FINISH),
        (replace(SUBMITTED, uid=None), SEEN, NOW, Act.RECORD_UID),
        (replace(SUBMITTED, uid=None), replace(SEEN, digest="other"), NOW, Act.FINISH),
        (SUBMITTED, SEEN, NOW, Act.RELEASE),
        (SUBMITTED, SEEN, LATER, Act.STOP),
        (replace(SUBMITTED, cancel_by="ann"), SEEN, NOW, Act.STOP),
        (SUBMITTED, replace(SEEN, uid="other"), NOW, Act.FINISH),
        (SUBMITTED, ABSENT, NOW, Act.FINISH),
        (SUBMITTED, LIVE, NOW, Act.START),
        (SUBMITTED, OVER, NOW, Act.START),
        (SUBMITTED, PENDING, NOW, Act.WAIT),
        (SUBMITTED, PENDING, LATER, Act.STOP),
        (replace(SUBMITTED, cancel_by="ann"), PENDING, NOW, Act.STOP),
        (SUBMITTED, replace(PENDING, uid="other"), NOW, Act.FINISH),
        (SUBMITTED, replace(PENDING, digest="other"), NOW, Act.FINISH),
        (replace(SUBMITTED, uid=None), PENDING, NOW, Act.RECORD_UID),
        (SUBMITTED, BETWEEN, NOW, Act.START),
        (SUBMITTED, BETWEEN, LATER, Act.START),
        (RUNNING, BETWEEN, NOW, Act.PROGRESS),
        (RUNNING, PENDING, NOW, Act.PROGRESS),
        (RUNNING, BETWEEN, NOW + timedelta(seconds=916), Act.STOP),
        (replace(RUNNING, cancel_by="ann"), BETWEEN, NOW, Act.STOP),
        (SUBMITTED, replace(SEEN, standing=Standing.ENDED), NOW, Act.FINISH),
        (RUNNING, LIVE, NOW, Act.PROGRESS),
        (RUNNING, LIVE, NOW + timedelta(seconds=916), Act.STOP),
        (replace(RUNNING, cancel_by="ann"), LIVE, NOW, Act.STOP),
        (RUNNING, OVER, NOW, Act.FINISH),
        (RUNNING, ABSENT, NOW, Act.FINISH),
        (RUNNING, replace(LIVE, uid="other"), NOW, Act.FINISH),
        (replace(RUNNING, phase=JobPhase.SUCCEEDED), OVER, NOW, Act.WAIT),
    ],
)
def test_each_situation_has_one_next_act(job: Job, observed: Observation, now: datetime, act: Act) -> None:
    assert next_step(job, observed, now).act is act


@pytest.mark.parametrize(
    ("job", "observed", "phase", "words"),
    [
        (RUNNING, OVER, JobPhase.SUCCEEDED, ""),
        (replace(RUNNING, cancel_by="ann"), OVER, JobPhase.SUCCEEDED, ""),
        (RUNNING, replace(OVER, exit_code=2), JobPhase.FAILED, "could not use its input"),
        (RUNNING, replace(OVER, exit_code=3), JobPhase.FAILED, "smaller batch_size"),
        (RUNNING, replace(OVER, exit_code=-9), JobPhase.FAILED, "SIGKILL"),
        (RUNNING, replace(OVER, exit_code=-15), JobPhase.FAILED, "SIGTERM"),
        (RUNNING, replace(OVER, exit_code=77), JobPhase.FAILED, "exit status 77"),
        (RUNNING, replace(OVER, exit_code=None), JobPhase.FAILED, "without an exit status"),
        (RUNNING, replace(OVER, exit_code=1, progress=Progress(error="The loss is NaN.")), JobPhase.FAILED, "NaN"),
        (
            RUNNING,
            replace(OVER, exit_code=4, stopped=StopReason.DEADLINE),
            JobPhase.FAILED,
            "runtime of 15 min",
        ),
        (
            replace(RUNNING, cancel_by="ann"),
            replace(OVER, exit_code=-9, stopped=StopReason.CANCELLED),
            JobPhase.CANCELLED,
            "by ann",
        ),
        (RUNNING, ABSENT, JobPhase.FAILED, "no longer has"),
    ],
)
def test_the_end_is_told_truly(job: Job, observed: Observation, phase: JobPhase, words: str) -> None:
    step = next_step(job, observed, NOW)
    assert step.phase is phase
    assert words in step.reason


def test_what_never_started_has_no_words_of_a_dead_training() -> None:
    ended = replace(SEEN, standing=Standing.ENDED, stopped=StopReason.CANCELLED)
    assert "too old" in next_step(SUBMITTED, ended, LATER).reason
    assert next_step(replace(SUBMITTED, cancel_by="ann"), ended, NOW).phase is JobPhase.CANCELLED


def test_what_never_found_room_says_so() -> None:
    ended = replace(SEEN, standing=Standing.ENDED, stopped=StopReason.DEADLINE)
    assert "waited for room" in next_step(SUBMITTED, ended, NOW).reason
    refused = replace(SEEN, standing=Standing.ENDED, progress=Progress(error="The cluster gave it up."))
    assert next_step(SUBMITTED, refused, NOW).reason == "The cluster gave it up."
