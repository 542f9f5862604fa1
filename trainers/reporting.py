"""What a trainer says: machine-readable lines for the engine, plain ones for people, and its exit status.

The line format and the exit codes are those of `tools/progress.py`, written here anew because a trainer imports nothing
of the bot's; a contract test holds the two together. Every line is flushed, so that a reader of a pipe sees it at once.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from enum import IntEnum

PREFIX = "SIGNALBOX "
PROGRESS_INTERVAL = 0.5  # seconds between two `progress` lines: people read no faster, and logs cost money


class ExitCode(IntEnum):
    """What the exit status means to the engine."""

    OK = 0
    FAILURE = 1  # anything not named below
    BAD_INPUT = 2  # wrong argument, missing or corrupt data: trying again will not help
    OUT_OF_MEMORY = 3
    INTERRUPTED = 4  # SIGTERM or SIGINT: a checkpoint was written, --resume goes on


class TrainerError(Exception):
    """Training cannot go on. The message is one sentence for a person, with the next step."""

    exit_code = ExitCode.FAILURE


class BadInput(TrainerError):
    """An argument or a file is wrong, so that trying again will not help."""

    exit_code = ExitCode.BAD_INPUT


class Interrupted(BaseException):
    """SIGTERM or SIGINT arrived. Not an `Exception`, so that no library's `except Exception` swallows it."""


def emit(event: str, **fields: object) -> None:
    """Write one machine-readable line, whole and flushed. Fields must be JSON-ready, floats finite."""
    sys.stdout.write(f"{PREFIX}{json.dumps({'event': event, **fields}, ensure_ascii=False, allow_nan=False)}\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Write one line for people."""
    print(text, flush=True)


def note(message: str) -> None:
    """Tell of something that does not stop the training."""
    emit("note", message=one_line(message))
    say(f"note: {message}")


def error(message: str) -> None:
    """Tell why the training ends: on standard output for the engine, on standard error for people."""
    emit("error", message=one_line(message))
    print(message, file=sys.stderr, flush=True)


def one_line(text: str) -> str:
    """The text with every run of white space made one blank: libraries' messages come in paragraphs."""
    return " ".join(text.split())


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those metrics that are finite numbers, as floats; JSON has no word for the others."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


class ProgressLines:
    """Progress towards `steps` steps, at most one line each `PROGRESS_INTERVAL`."""

    def __init__(self, *, steps: int, epochs: int, done: int) -> None:
        """`done` steps were made by an earlier process; the pace is measured from here on."""
        self._steps, self._epochs, self._first = steps, epochs, done
        self._started = time.monotonic()
        self._last = -math.inf

    def report(self, *, step: int, epoch: int, loss: float, samples_per_second: float) -> None:
        """Tell where training stands: `step` is done, counted from 1 over the whole run."""
        now = time.monotonic()
        if now - self._last < PROGRESS_INTERVAL and step < self._steps:
            return
        self._last = now
        pace = (now - self._started) / max(1, step - self._first)
        emit(
            "progress",
            step=step,
            steps=self._steps,
            epoch=epoch,
            epochs=self._epochs,
            loss=round(loss, 6),
            samples_per_second=round(samples_per_second, 2),
            eta_seconds=round(pace * (self._steps - step), 1),
        )
