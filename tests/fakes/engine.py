"""A far end for trainings: keeps jobs like an engine, outlives the bot, and fails on request as the real ones do."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from tools.cost import Resources
from tools.engines.base import (
    Attempt,
    EngineRefused,
    EngineUnavailable,
    NameTaken,
    Observation,
    Standing,
    StopReason,
    Submission,
)
from tools.progress import Progress
from tools.spec import TrainingSpec


@dataclass
class FakeEngine:
    """`faults` is a list of words, each spent by the next call that it fits: `down`, `lost_reply`."""

    clock: Callable[[], datetime]
    slots: int = 2
    name: str = "fake"
    jobs: dict[str, Observation] = field(default_factory=dict)
    starts: Counter[str] = field(default_factory=Counter)
    started_digests: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    async def preflight(self, spec: TrainingSpec) -> None:
        if spec.gpus > 1:
            raise EngineRefused("This machine has 1 GPU; ask for one.")

    async def offers(self) -> str:
        return "fake: on request"

    def resources(self, spec: TrainingSpec) -> Resources:
        return Resources(cpu_cores=Decimal(4), gpus=spec.gpus, nodes=spec.machines)

    def render(self, spec: TrainingSpec) -> dict[str, Any]:
        return {"engine": "fake", "command": ["train", *spec.argv()]}

    async def free_slots(self) -> int:
        self._fail("down")
        return self.slots - sum(seen.standing is Standing.RUNNING for seen in self.jobs.values())

    async def create(self, submission: Submission) -> str:
        self._fail("down")
        there = self.jobs.get(submission.name)
        if there is None:
            uid = uuid.uuid4().hex
            self.jobs[submission.name] = Observation(standing=Standing.SUSPENDED, uid=uid, digest=submission.digest)
        elif there.digest != submission.digest:
            raise NameTaken(f"There is another job by the name {submission.name}.")
        self._fail("lost_reply")
        return str(self.jobs[submission.name].uid)

    async def release(self, name: str, uid: str) -> None:
        self._fail("down")
        there = self.jobs.get(name)
        if there is None or there.uid != uid:
            raise EngineRefused(f"There is no job {name} with that uid.")
        if there.standing is Standing.SUSPENDED:
            attempt = Attempt(number=1, started_at=self.clock())
            self.jobs[name] = replace(there, standing=Standing.RUNNING, attempts=(attempt,))
            self.starts[name] += 1
            self.started_digests[name] = str(there.digest)
        self._fail("lost_reply")

    async def cancel(self, name: str, uid: str) -> None:
        self._fail("down")
        there = self.jobs.get(name)
        if there is not None and there.uid == uid and there.standing is not Standing.ENDED:
            self._end(name, there, exit_code=4, stopped=StopReason.CANCELLED)

    async def observe(self, name: str) -> Observation:
        self._fail("down")
        return self.jobs.get(name, Observation(standing=Standing.ABSENT))

    async def logs(self, name: str, lines: int) -> Sequence[str]:
        return []

    # -- what the world does ------------------------------------------------------------------------------------

    def finish(self, exit_code: int = 0) -> None:
        """Every running training ends by itself."""
        for name, there in list(self.jobs.items()):
            if there.standing is Standing.RUNNING:
                self._end(name, there, exit_code=exit_code)

    def lose(self, name: str) -> None:
        """Somebody deletes the job."""
        self.jobs.pop(name, None)

    def squat(self, name: str) -> None:
        """Somebody else makes a job of that name."""
        if name not in self.jobs:
            self.jobs[name] = Observation(standing=Standing.SUSPENDED, uid="theirs", digest="theirs")

    def _end(self, name: str, there: Observation, *, exit_code: int, stopped: StopReason | None = None) -> None:
        result = Progress(result={"val_accuracy": 0.97}) if exit_code == 0 else Progress()
        attempts = tuple(replace(attempt, ended_at=self.clock()) for attempt in there.attempts)
        self.jobs[name] = replace(
            there,
            standing=Standing.ENDED,
            attempts=attempts,
            exit_code=exit_code if attempts else None,
            stopped=stopped,
            progress=result,
        )

    def _fail(self, fault: str) -> None:
        if fault in self.faults:
            self.faults.remove(fault)
            raise EngineUnavailable("The engine does not answer.")
