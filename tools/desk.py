"""The port behind the agent's tools: what they may ask of Signalbox, and who asks. No LangChain here.

Implemented by `bot.desk`; wrapped for the model by `tools.toolkit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tools.spec import TrainingSpec


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who speaks, and where: the agent's runtime context, filled from the signed event, never by a model."""

    team: str
    channel: str
    thread: str
    user: str
    event_id: str
    prompt: str  # the person's own words, kept with the proposal
    proposed: list[str] = field(default_factory=list)  # canonical specs already proposed in this turn, in order
    outcomes: dict[str, bool] = field(default_factory=dict)  # after the turn: tool → whether it did all it was asked


class DeskError(Exception):
    """A refusal or failure that the person should read as it is: one sentence with the next step."""


class Desk(Protocol):
    """What the tools may ask of Signalbox. Every method answers in text for people and raises `DeskError`."""

    async def propose(self, caller: Caller, spec: TrainingSpec) -> str: ...
    async def estimate(self, caller: Caller, spec: TrainingSpec) -> str: ...
    async def experiments(self, caller: Caller, name: str | None) -> str: ...
    async def metrics(self, caller: Caller, reference: str | None) -> str: ...
    async def compare(self, caller: Caller, references: Sequence[str]) -> str: ...
    async def status(self, caller: Caller, reference: str | None) -> str: ...
    async def cost(self, caller: Caller, reference: str | None) -> str: ...
    async def jobs(self, caller: Caller, phase: str | None) -> str: ...
    async def ask_to_cancel(self, caller: Caller, reference: str) -> str: ...
    async def spend(self, caller: Caller, period: str) -> str: ...
