"""Far ends for the reconciler: a surface that remembers what it was told, and runs without MLflow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from bot.core.errors import Unavailable
from bot.core.job import Job, JobPhase, RunEnd
from bot.core.proposal import Proposal
from bot.store.writing import Notice
from tools.progress import Progress


@dataclass
class FakeSurface:
    """Keeps notices; fails for the kinds in `broken`, and while it is `away` for all."""

    teams: Collection[str] = ("local",)
    told: list[Notice] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    away: bool = False

    async def deliver(self, notice: Notice) -> None:
        if self.away:
            raise Unavailable("The surface does not answer.")
        if notice.kind in self.broken:
            raise RuntimeError("the surface refuses this notice")
        self.told.append(notice)

    async def progress(self, job: Job, progress: Progress) -> None:
        pass

    def kinds(self, proposal: Proposal) -> list[str]:
        return [notice.kind for notice in self.told if notice.subject == proposal.id]


@dataclass
class FakeRuns:
    """One run a proposal, as MLflow's adapter promises."""

    uri: str = "sqlite:///nowhere"
    runs: dict[str, str] = field(default_factory=dict)
    closed: dict[str, JobPhase] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    ends: dict[str, RunEnd] = field(default_factory=dict)  # as trainers have closed their runs

    async def open_run(self, proposal: Proposal, job: Job) -> str:
        if "down" in self.faults:
            self.faults.remove("down")
            raise Unavailable("MLflow does not answer.")
        return self.runs.setdefault(proposal.id, f"run-{proposal.number}")

    async def close_run(self, run_id: str, phase: JobPhase) -> None:
        self.closed[run_id] = phase

    async def end_of(self, run_id: str) -> RunEnd | None:
        return self.ends.get(run_id)
