"""Named places where a test may kill the process, to prove that a restart loses nothing and starts nothing twice.

Production never arms one. `tests/scenarios/test_crashes.py` walks `POINTS` and asserts that each was hit.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "inbox.received",  # the person's words are recorded, the agent has not answered
    "propose.before_commit",
    "propose.after_commit",
    "decide.before_commit",
    "decide.after_commit",
    "permit.after_commit",  # the job may start, nothing has been asked of the engine
    "run.opened",  # MLflow has the run, the job does not know its id
    "run.recorded",
    "create.before",
    "create.after",  # the engine has the job, suspended; its uid is not recorded
    "create.recorded",
    "release.before",
    "release.after",  # the training starts; the job still reads submitted
    "start.recorded",
    "finish.before_commit",
    "finish.after_commit",
    "outbox.before_deliver",
    "outbox.after_deliver",  # the person has seen it, the row does not know
)

_armed: str | None = None


def arm(point: str | None) -> None:
    """Make `crash(point)` kill this process; None disarms. An unknown name is an error of the test."""
    if point is not None and point not in POINTS:
        raise ValueError(f"there is no crash point {point!r}; the points are {', '.join(POINTS)}")
    global _armed
    _armed = point


def crash(point: str) -> None:
    """Kill this process with SIGKILL if `point` is armed."""
    if _armed == point:
        os.kill(os.getpid(), signal.SIGKILL)
