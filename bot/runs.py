"""The MLflow side of a job: its run is made before anything is submitted, and closed if the trainer could not.

An adapter from proposals and jobs to `tools.tracking`; its errors become ours, so that the reconciler tries again.
"""

from __future__ import annotations

import math

from bot.core.errors import Unavailable
from bot.core.job import Job, JobPhase, RunEnd
from bot.core.proposal import Proposal
from tools.tracking import Tracking, TrackingError

# MLflow's words for ours.
STATUS = {JobPhase.SUCCEEDED: "FINISHED", JobPhase.CANCELLED: "KILLED", JobPhase.FAILED: "FAILED"}
PHASE = {status: phase for phase, status in STATUS.items()}
SYSTEM = "system/"  # metrics of the machine, not of the training


class TrackedRuns:
    """Implements the reconciler's `Runs`."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    @property
    def uri(self) -> str:
        return self._tracking.uri

    async def open_run(self, proposal: Proposal, job: Job) -> str:
        """The run of this proposal, tagged with who asked for what; made once, however often it is called."""
        spec = proposal.offer.spec
        tags = {
            "signalbox.requester": proposal.requester,
            "signalbox.recipe": spec.recipe,
            "signalbox.number": str(proposal.number),
            "signalbox.digest": proposal.digest,
            "signalbox.approved_by": proposal.decided_by or "",
            "signalbox.rate_version": proposal.offer.rate_version,
            "signalbox.dollars_per_hour": str(proposal.offer.hourly.dollars),
        }
        parameters = {name: str(given) for name, given in spec.canonical().items()}
        try:
            return await self._tracking.ensure_run(
                spec.recipe, proposal_id=proposal.id, name=job.name, tags=tags, params=parameters
            )
        except TrackingError as error:
            raise Unavailable(str(error)) from error

    async def close_run(self, run_id: str, phase: JobPhase) -> None:
        """Set the final status that the database holds."""
        try:
            await self._tracking.close(run_id, STATUS[phase])
        except TrackingError as error:
            raise Unavailable(str(error)) from error

    async def end_of(self, run_id: str) -> RunEnd | None:
        """As MLflow has it, once the trainer has closed its run."""
        try:
            run = await self._tracking.run(run_id)
        except TrackingError as error:
            raise Unavailable(str(error)) from error
        if run is None or run.ended_at is None or run.status not in PHASE:
            return None
        own = {name: value for name, value in run.metrics.items() if not name.startswith(SYSTEM)}
        metrics = {name: value for name, value in own.items() if math.isfinite(value)}  # JSON has no other numbers
        return RunEnd(phase=PHASE[run.status], ended_at=run.ended_at, metrics=metrics)
