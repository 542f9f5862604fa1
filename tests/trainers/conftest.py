"""How the trainers' tests start a trainer: as the engine does, through its command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PREFIX = "SIGNALBOX "
ALONE = {"OMP_NUM_THREADS": "1"}  # for trainers side by side, whose threads would wait for each other

ONE_NODE = {"PET_STANDALONE": "1", "PET_NPROC_PER_NODE": "2"}  # torchrun's settings


@dataclass(frozen=True)
class Outcome:
    code: int
    events: list[dict[str, Any]]
    stderr: str

    def event(self, kind: str) -> dict[str, Any]:
        """The only event of that kind."""
        (found,) = [event for event in self.events if event["event"] == kind]
        return found

    def notes(self) -> str:
        return " ".join(event["message"] for event in self.events if event["event"] == "note")


class Trainers:
    """Starts trainers in a clean environment: no MLflow, no network."""

    def __init__(self, folder: Path) -> None:
        ours = ("MLFLOW", "SIGNALBOX", "HF_")
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}

    def __call__(self, trainer: str, *args: object, before: Callable[[], None] | None = None, **env: str) -> Outcome:
        """Run a trainer to its end. `before` runs in the child."""
        with self.started(trainer, *args, before=before, **env) as process:
            return finish(process)

    def started(
        self, trainer: str, *args: object, before: Callable[[], None] | None = None, **env: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", f"trainers.{trainer}", *map(str, args)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self.env | env,
            preexec_fn=before,
        )

    def interrupted(self, trainer: str, *args: object, after: Callable[[dict[str, Any]], bool], **env: str) -> Outcome:
        """Run a trainer and send SIGTERM on the first event that `after` accepts."""
        return interrupt(self.started(trainer, *args, **env), after)

    def together(self, module: str, *args: object, env: dict[str, str] = ONE_NODE) -> subprocess.Popen[str]:
        """Two processes of a trainer, as a Job of two GPUs starts them, or what another `env` says."""
        return self.started("launch", module, *args, **ALONE, **env)


def interrupt(process: subprocess.Popen[str], after: Callable[[dict[str, Any]], bool]) -> Outcome:
    """Send SIGTERM on the first event that `after` accepts, and see it to its end."""
    assert process.stdout
    seen = []
    for line in process.stdout:
        if line.startswith(PREFIX):
            seen.append(json.loads(line.removeprefix(PREFIX)))
            if after(seen[-1]):
                process.send_signal(signal.SIGTERM)
                break
    outcome = finish(process)
    return Outcome(outcome.code, seen + outcome.events, outcome.stderr)


def finish(process: subprocess.Popen[str]) -> Outcome:
    stdout, stderr = process.communicate(timeout=120)
    lines = [line.removeprefix(PREFIX) for line in stdout.splitlines() if line.startswith(PREFIX)]
    return Outcome(process.returncode, [json.loads(line) for line in lines], stderr)


@pytest.fixture(scope="session")
def trainers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainers]:
    yield Trainers(tmp_path_factory.mktemp("home"))
