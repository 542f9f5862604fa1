"""Start-to-ready seconds and memory of the bot, side by side: `make bench`.

Each row is a fresh process, several times; medians. "ready" is when the first answer could be given.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bot.settings import SOURCE

ENDING = """
import json, sys, time, psutil
names = ("torch", "mlflow", "pandas", "numpy", "scipy", "matplotlib", "langchain", "sqlalchemy")
heavy = [name for name in names if name in sys.modules]
started = psutil.Process().create_time()
print(json.dumps({"s": time.time() - started, "mb": psutil.Process().memory_info().rss / 2**20, "heavy": heavy}))
"""

READY = """
import asyncio
from bot.bootstrap import opened
from bot.settings import load
async def go():
    async with opened(load()) as app{}:
        {}
asyncio.run(go())
"""
ROWS = {
    "bare interpreter": "",
    "store, use cases, engine (jobs, digest)": READY.format("", "await app.store.open_jobs()"),
    "and the agent (chat: ready to answer)": READY.format(", app.assistant()", "pass"),
    "and MLflow's first use (first job, first metrics)": READY.format(", app.assistant()", "await app.tracking.ping()"),
}


def measure(code: str, home: Path, runs: int) -> tuple[float, float, list[str]]:
    """Median seconds from the process's birth, median RSS in MiB, heavy modules that were imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SIGNALBOX_", "OPENAI_"))}
    environment |= {"SIGNALBOX_HOME": str(home), "PYTHONPATH": str(SOURCE)}
    found = []
    for _ in range(runs):
        done = subprocess.run(
            [sys.executable, "-c", code + ENDING], env=environment, capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = statistics.median(one["s"] for one in found)
    return seconds, statistics.median(one["mb"] for one in found), found[0]["heavy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="processes a row")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for code in ROWS.values():
            measure(code, home, 1)  # the first writes databases and byte code; it is not counted
        print(f"{'':50}{'seconds':>9}{'RSS MiB':>9}  heavy imports (median of {runs})")
        base = 0.0
        for name, code in ROWS.items():
            seconds, memory, heavy = measure(code, home, runs)
            base = base or seconds
            print(f"{name:50}{seconds:9.2f}{memory:9.0f}  {', '.join(heavy) or '-'}   ({seconds / base:.0f}× bare)")


if __name__ == "__main__":
    main()
