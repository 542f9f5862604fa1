"""Kills a real bot process at every named point, starts it again, and checks what was promised.

Real SQLite, real MLflow files, real processes of the local engine; only the trainer is a stand-in, so that a life
takes seconds. At most one start, none unapproved, the chain whole, the final card delivered, one MLflow run. `make
crashes` takes every point; `make test` those where something was just done that cannot be undone.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from bot.settings import SOURCE
from tests.fakes.trainer import install
from tools.crashpoints import POINTS

BY_CHAT = {"inbox.received"}  # needs the chat; see test_chat.py
SAMPLE = {
    "propose.after_commit",
    "decide.after_commit",
    "permit.after_commit",
    "run.opened",
    "create.after",
    "release.after",
    "start.recorded",
    "finish.before_commit",
    "finish.after_commit",
    "outbox.after_deliver",
}
TRIED = [point for point in POINTS if point not in BY_CHAT]
if os.environ.get("SIGNALBOX_TEST_CRASHES") != "all":
    TRIED = [point for point in TRIED if point in SAMPLE]


def environment(folder: Path, program: Path) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNALBOX_", "OPENAI_"))}
    return own | {
        "SIGNALBOX_HOME": str(folder / "home"),
        "SIGNALBOX_TRAINER_PYTHON": str(program),
        "PYTHONPATH": str(SOURCE),
    }


def live(folder: Path, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.scenarios.life", *arguments],
        env=environment(folder, program),
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def bot(folder: Path, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bot", *arguments],
        env=environment(folder, program),
        cwd=SOURCE,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("point", TRIED)
def test_a_kill_at_this_point_loses_nothing_and_starts_nothing_twice(point: str, tmp_path: Path) -> None:
    program, ledger = install(tmp_path)
    first = live(tmp_path, program, point)
    assert first.returncode == -signal.SIGKILL, f"the point {point} was never reached: {first.stderr[-2000:]}"
    assert len(ledger.read_text().splitlines()) <= 1

    second = live(tmp_path, program)
    assert second.returncode == 0, second.stderr[-3000:]
    assert len(ledger.read_text().splitlines()) == 1, "the training was started not once"
    assert "DELIVERED finished" in first.stdout + second.stdout

    listed = json.loads(bot(tmp_path, program, "jobs", "--json").stdout)
    assert [(one["state"], one["phase"], one["metrics"]) for one in listed] == [
        ("approved", "succeeded", {"val_accuracy": 0.97})
    ]
    audit = bot(tmp_path, program, "audit", "verify")
    assert audit.returncode == 0, audit.stdout
    active = "SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'"
    runs = sqlite3.connect(tmp_path / "home" / "mlflow.db").execute(active).fetchall()
    assert runs == [(listed[0]["run_id"], "FINISHED")]
