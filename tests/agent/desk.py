"""The far end of the tools in these tests: a desk that notes what it was asked and by whom, and answers in text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tools.desk import Caller, DeskError
from tools.spec import TrainingSpec


class RecordingDesk:
    """A `Desk`. `asked` holds each call as (method, caller, what); `answers` overrides a method's text."""

    def __init__(self, **answers: str | Exception) -> None:
        self.asked: list[tuple[str, Caller, Any]] = []
        self.answers = answers

    @property
    def proposed(self) -> list[TrainingSpec]:
        return [what for method, _, what in self.asked if method == "propose"]

    def methods(self) -> list[str]:
        return [method for method, _, _ in self.asked]

    async def propose(self, caller: Caller, spec: TrainingSpec) -> str:
        key = json.dumps(spec.canonical(), sort_keys=True)
        if key in caller.proposed:
            return "Already proposed with this message."
        caller.proposed.append(key)
        return self._note("propose", caller, spec, f"Proposal {len(self.proposed) + 1}: {spec.recipe}. It waits.")

    async def estimate(self, caller: Caller, spec: TrainingSpec) -> str:
        return self._note("estimate", caller, spec, "About 0.10 $.")

    async def experiments(self, caller: Caller, name: str | None) -> str:
        return self._note("experiments", caller, name, "mnist: 3 runs")

    async def metrics(self, caller: Caller, reference: str | None) -> str:
        return self._note("metrics", caller, reference, "val_accuracy 0.987")

    async def compare(self, caller: Caller, references: Sequence[str]) -> str:
        return self._note("compare", caller, list(references), "1 is better than 2")

    async def status(self, caller: Caller, reference: str | None) -> str:
        return self._note("status", caller, reference, "mnist-1-aaaaaa: running, epoch 2 of 3")

    async def cost(self, caller: Caller, reference: str | None) -> str:
        return self._note("cost", caller, reference, "0.07 $ so far")

    async def jobs(self, caller: Caller, phase: str | None) -> str:
        return self._note("jobs", caller, phase, "Nothing is open.")

    async def ask_to_cancel(self, caller: Caller, reference: str) -> str:
        return self._note("cancel", caller, reference, f"To cancel it, write /cancel {reference}.")

    async def spend(self, caller: Caller, period: str) -> str:
        return self._note("spend", caller, period, "1.20 $ spent")

    def _note(self, method: str, caller: Caller, what: Any, text: str) -> str:
        self.asked.append((method, caller, what))
        answer = self.answers.get(method, text)
        if isinstance(answer, Exception):
            raise answer
        return answer


def refusing(sentence: str) -> DeskError:
    return DeskError(sentence)


def caller(text: str = "hello", *, thread: str = "1.0", user: str = "U1") -> Caller:
    return Caller(team="T1", channel="C1", thread=thread, user=user, event_id="E1", prompt=text)


async def nothing_open(_: Caller) -> str:
    return "No proposal is open in this thread."
