"""The machine-readable lines of a trainer's standard output.

A trainer writes one JSON object a line, behind the prefix `SIGNALBOX `; everything else it prints is for people.
Engines read these lines to tell progress, epochs, the result and the reason of a failure. Trainers import nothing
of ours, so they write the same format on their own; `tests/contract/test_progress_lines.py` holds the two together.

    SIGNALBOX {"event": "started", "steps": 450, "epochs": 10, "device": "cpu", "run_id": "…"}
    SIGNALBOX {"event": "progress", "step": 45, "steps": 450, "epoch": 1, "epochs": 10, "loss": 0.41,
               "samples_per_second": 900.0, "eta_seconds": 3.1}  (on one line)
    SIGNALBOX {"event": "epoch", "epoch": 1, "epochs": 10, "metrics": {"train_loss": 0.9, "val_accuracy": 0.81}}
    SIGNALBOX {"event": "note", "message": "…"}
    SIGNALBOX {"event": "result", "metrics": {"val_accuracy": 0.97}, "duration_seconds": 8.1}
    SIGNALBOX {"event": "error", "message": "one sentence with the next step"}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

PREFIX = "SIGNALBOX "
COUNT_LIMIT = 2**53  # of steps and epochs; beyond it a float cannot count
KEPT = 5000  # of notes, and of epochs' rows
MESSAGE_LIMIT = 600  # characters of a trainer's own sentence that go on to people; logs are untrusted


class ExitCode(IntEnum):
    """What a trainer's exit status means. Values above 128 are signals, as the shell writes them."""

    OK = 0
    FAILURE = 1  # anything not named below
    BAD_INPUT = 2  # wrong argument, missing or corrupt data: trying again will not help
    OUT_OF_MEMORY = 3
    INTERRUPTED = 4  # SIGTERM or SIGINT: a checkpoint was written, --resume goes on


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a trainer has said of itself so far. Losses and metrics are finite floats."""

    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    samples_per_second: float | None = None
    eta_seconds: float | None = None
    epoch_metrics: tuple[dict[str, float], ...] = ()
    result: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def fraction(self) -> float:
        """Share of the steps that are done, 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0


def parse_lines(lines: Iterable[str], before: Progress | None = None) -> Progress:
    """Fold a trainer's output lines into one `Progress`; malformed lines and unknown events are passed over."""
    progress = before or Progress()
    for line in lines:
        event = _event(line)
        if event is not None:
            progress = _fold(progress, event)
    return progress


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith(PREFIX):
        return None
    try:
        event = json.loads(line[len(PREFIX) :])
    except (ValueError, RecursionError):  # the latter: nested too deep for the parser
        return None
    return event if isinstance(event, dict) else None


def _fold(progress: Progress, event: dict[str, Any]) -> Progress:
    match event.get("event"):
        case "started":
            return replace(progress, steps=_int(event.get("steps")), epochs=_int(event.get("epochs")))
        case "progress":
            return replace(
                progress,
                step=_int(event.get("step")),
                steps=_int(event.get("steps")) or progress.steps,
                epoch=_int(event.get("epoch")),
                epochs=_int(event.get("epochs")) or progress.epochs,
                loss=_float(event.get("loss")),
                samples_per_second=_float(event.get("samples_per_second")),
                eta_seconds=_float(event.get("eta_seconds")),
            )
        case "epoch":
            row = {"epoch": float(_int(event.get("epoch"))), **_metrics(event.get("metrics"))}
            return replace(
                progress, epoch=_int(event.get("epoch")), epoch_metrics=(*progress.epoch_metrics, row)[-KEPT:]
            )
        case "result":
            return replace(progress, result=_metrics(event.get("metrics")))
        case "error":
            return replace(progress, error=_said(event))
        case "note":
            return replace(progress, notes=(*progress.notes, _said(event))[-KEPT:])
        case _:
            return progress


def _said(event: dict[str, Any]) -> str:
    """A trainer's sentence: untrusted, so one printable line of bounded length."""
    return "".join(char if char.isprintable() else " " for char in str(event.get("message", "")))[:MESSAGE_LIMIT]


def _int(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= COUNT_LIMIT else 0


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        return None
    return number if math.isfinite(number) else None


def _metrics(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {str(name)[:60]: number for name, raw in value.items() if (number := _float(raw)) is not None}
