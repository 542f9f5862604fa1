"""What the bot's start path must not carry: heavy libraries cost every command seconds and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot.settings import SOURCE

NEVER = {"torch", "pandas", "scipy", "transformers", "flask", "mlflow.server", "mlflow.pyfunc"}


@pytest.mark.parametrize(
    ("command", "without"),
    [
        (["doctor"], {"mlflow", "numpy", "matplotlib", "langchain", "langgraph", "openai"}),
        (["jobs", "--json"], {"mlflow", "numpy", "matplotlib", "langchain", "langgraph", "openai", "rich"}),
        (["digest"], {"mlflow", "numpy", "matplotlib", "langchain", "langgraph", "openai"}),
        (["chat"], {"mlflow", "numpy", "matplotlib", "openai"}),
    ],
)
def test_a_command_imports_no_more_than_it_needs(command: list[str], without: set[str], tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNALBOX_", "OPENAI_"))}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bot", *command],
        env=environment | {"SIGNALBOX_HOME": str(tmp_path / "home"), "SIGNALBOX_TRAINER_PYTHON": sys.executable},
        cwd=SOURCE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "bot.bootstrap" in imported
    assert not imported & (NEVER | without)
