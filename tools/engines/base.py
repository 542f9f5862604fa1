"""The port behind which trainings run: a laptop's processes and a cluster's Jobs look the same from above.

Submission has two phases, so that a crash anywhere between never starts a training twice: `create` puts the job there
suspended and answers its uid, which the caller records; `release` then starts that very uid, once. Both may be repeated
at will. `observe` is level-triggered: it tells what is there now, whoever did it and whoever was away meanwhile.
Next step of an observation: `bot.core.job.next_step`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from tools.cost import Resources
from tools.progress import Progress
from tools.spec import TrainingSpec


class EngineRefused(Exception):
    """The engine will never take this as it is. The message is a sentence with the next step."""


class EngineUnavailable(Exception):
    """The engine does not answer now; the caller tries again later. The message says what was asked of whom."""


class NameTaken(EngineRefused):
    """A job of that name is there with another spec digest: it is someone else's and is left alone."""


def must_be_for(engine: str, manifest: Mapping[str, Any]) -> None:
    """Raises `EngineRefused` for what was approved to run by another engine: a changed setting moves no training."""
    approved = str(manifest.get("engine", engine))
    if approved != engine:
        raise EngineRefused(
            f"It was approved for the {approved} engine, and Signalbox now works with the {engine} engine. "
            f"Propose it again, or set SIGNALBOX_ENGINE={approved}."
        )


class Standing(StrEnum):
    """What an engine sees of one job."""

    ABSENT = "absent"  # nothing by that name
    SUSPENDED = "suspended"  # created, not released
    PENDING = "pending"  # released; waits for the cluster to start it
    RUNNING = "running"  # released; holds its resources
    ENDED = "ended"  # over, for whatever reason


class StopReason(StrEnum):
    """Why an engine stopped a job that had not ended by itself."""

    CANCELLED = "cancelled"  # a person asked
    DEADLINE = "deadline"  # the approved maximum runtime was over


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What an attempt runs on, as far as it decides the price; None where that is not known, or not known yet."""

    gpu_product: str | None = None
    spot: bool | None = None  # whether it may be taken away


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One hold on resources. `ended_at` is None while it lasts; `estimated`: its end was not seen."""

    number: int
    started_at: datetime
    ended_at: datetime | None = None
    estimated: bool = False
    machine: Machine = field(default_factory=Machine)
    began_at: datetime | None = None  # its program, where that is later: until then its image was pulled
    preempted: bool = False  # the cluster took its machine away


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is there now. `exit_code` is None while it runs, and when it died without leaving one."""

    standing: Standing
    uid: str | None = None
    digest: str | None = None  # of the spec that it was created with
    attempts: tuple[Attempt, ...] = ()
    exit_code: int | None = None  # as tools.progress.ExitCode; negative: killed by that signal
    stopped: StopReason | None = None
    progress: Progress = field(default_factory=Progress)
    over_at: datetime | None = None  # when the engine says that it was over, whatever is known of its attempts
    due: datetime | None = None  # when its time is over, where nothing in the engine ends it but a request to
    waiting: str = ""  # one sentence why it does not start, or does not get on
    remedy: Mapping[str, int] = field(default_factory=dict)  # parameters that would have let it live
    resumable: bool = False  # it left a checkpoint that another training may go on from


@dataclass(frozen=True, kw_only=True)
class Submission:
    """All that `create` needs. What was approved is `manifest`, bound by `digest`; the rest is identity."""

    name: str  # deterministic: derives from the proposal
    proposal_id: str
    digest: str
    manifest: Mapping[str, Any]
    run_id: str  # the MLflow run that waits for this training
    tracking_uri: str
    approvers: Sequence[str] = ()


class Engine(Protocol):
    """What `LocalEngine` and `KubernetesEngine` are. Errors: `EngineRefused` for good, `EngineUnavailable` for now."""

    name: str

    async def preflight(self, spec: TrainingSpec) -> None:
        """Refuse now what could never run here, before anybody is asked to approve it."""

    async def offers(self) -> str:
        """What trainings run as here, found out now, in words for the log and `doctor`."""

    def resources(self, spec: TrainingSpec) -> Resources:
        """What the job will hold, as it is charged. Pure."""

    def render(self, spec: TrainingSpec) -> dict[str, Any]:
        """The exact, JSON-ready manifest of what will run, shown on the card and digested. Pure."""

    async def free_slots(self) -> int:
        """How many more jobs may be released now."""

    async def create(self, submission: Submission) -> str:
        """Put the job there, suspended, and answer its uid. Idempotent; `NameTaken` if digests differ."""

    async def release(self, name: str, uid: str) -> None:
        """Start the job of exactly this uid, once, however often it is called."""

    async def cancel(self, name: str, uid: str) -> None:
        """Ask the job to end (SIGTERM, after the grace time SIGKILL); returns at once, `observe` tells the end.

        A suspended job ends without having started, its slot free and its intervals empty.
        """

    async def observe(self, name: str) -> Observation:
        """What is there by that name now."""

    async def logs(self, name: str, lines: int) -> Sequence[str]:
        """The last lines of the training's output, oldest first, without control characters, cut to a sane width."""
