"""Kills a trainer at random moments, with SIGKILL and SIGTERM, and compares what resuming gives with an untouched run.

When a signal lands is left to chance and to the machine; that the end is the same, bit for bit, must hold wherever it
lands. The trainer must take --output-dir, --resume and --checkpoint-seconds, and keep its state in checkpoint.pt.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch

from tests.trainers.conftest import PREFIX, Outcome, Trainers, finish

KILLS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL)
LEAST = 0.2  # seconds of a training that can still be hit
MARGIN = 0.9  # of the training's time: no signal is planned later
PACE = ("epoch_seconds", "samples_per_second", "tokens_per_second", "peak_memory_mb")  # differ from run to run


def assert_kills_change_nothing(
    trainers: Trainers,
    folder: Path,
    trainer: str,
    *args: object,
    kills: tuple[signal.Signals, ...] = KILLS,
    seed: int = 0,
    **env: str,
) -> Outcome:
    """Train once undisturbed and once through `kills`, and require equal checkpoints; the last process's outcome.

    A checkpoint is written after every step, so that SIGKILL also lands in the writing of one.
    """
    whole, parts = folder / "whole", folder / "parts"
    undisturbed, seconds = _timed(trainers, trainer, *args, "--output-dir", whole, **env)
    assert undisturbed.code == 0, undisturbed.stderr
    chance, hits = random.Random(seed), 0
    again = (trainer, *args, "--output-dir", parts, "--checkpoint-seconds", 0, "--resume")
    while not hits:
        assert seconds > LEAST, "every process ended before its signal; the training is too short for this test"
        shutil.rmtree(parts, ignore_errors=True)
        moments = sorted(chance.uniform(0, MARGIN * seconds) for _ in kills)
        for kill, before, moment in zip(kills, [0.0, *moments], moments, strict=False):
            code, events = killed(trainers, *again, kill=kill, after_seconds=moment - before, **env)
            # What a signal must leave behind: nothing is told after SIGKILL, and SIGTERM has a status of its own.
            assert code in (-signal.SIGKILL if kill == signal.SIGKILL else 4, 0), events
            hits += code != 0
        seconds /= 2  # where others wanted the same cores the first time, the next are over sooner
    last = trainers(*again, **env)
    assert last.code == 0, last.stderr
    assert "goes on in epoch" in last.notes()
    assert not list(parts.glob("*.partial"))
    assert_same(_state(whole), _state(parts))
    return last


def killed(
    trainers: Trainers, trainer: str, *args: object, kill: signal.Signals, after_seconds: float, **env: str
) -> tuple[int, list[dict[str, Any]]]:
    """Run a trainer, send `kill` that long after its training has started; exit status and the events until then."""
    with trainers.started(trainer, *args, **env) as process:
        events = _until_started(process)
        time.sleep(after_seconds)
        process.send_signal(kill)
        outcome = finish(process)
    return outcome.code, events + outcome.events


def assert_same(expected: Any, actual: Any, where: str = "checkpoint") -> None:
    """Require two states to be equal: tensors bit by bit, everything else by value."""
    if isinstance(expected, torch.Tensor):
        assert expected.dtype == actual.dtype and torch.equal(expected, actual), where
    elif isinstance(expected, dict):
        assert expected.keys() == actual.keys(), where
        for name, value in expected.items():
            assert_same(value, actual[name], f"{where}[{name!r}]")
    elif isinstance(expected, list | tuple):
        assert len(expected) == len(actual), where
        for index, (left, right) in enumerate(zip(expected, actual, strict=True)):
            assert_same(left, right, f"{where}[{index}]")
    else:
        assert expected == actual, where


def _timed(trainers: Trainers, trainer: str, *args: object, **env: str) -> tuple[Outcome, float]:
    with trainers.started(trainer, *args, **env) as process:
        events = _until_started(process)
        started = time.monotonic()
        outcome = finish(process)
    return Outcome(outcome.code, events + outcome.events, outcome.stderr), time.monotonic() - started


def _until_started(process: Any) -> list[dict[str, Any]]:
    events = []
    for line in process.stdout:
        if line.startswith(PREFIX):
            events.append(json.loads(line.removeprefix(PREFIX)))
            if events[-1]["event"] == "started":
                break
    return events


def _state(folder: Path) -> dict[str, Any]:
    """What a checkpoint holds, without what a clock measured."""
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    state["position"].pop("seconds")
    state["position"]["history"] = [
        {name: value for name, value in row.items() if name not in PACE} for row in state["position"]["history"]
    ]
    return state
