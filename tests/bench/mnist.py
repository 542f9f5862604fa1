"""The MNIST trainer against an ordinary script, as whole processes, side by side: `make bench-mnist`.

Both train on the four IDX files below --data-dir (or on stand-in data, with --synthetic), once a seed, in turns, so
that a busy machine is busy for both. Wall time is that of the whole process, imports included; peak memory is that
of the process and its children. The baseline is a command line given with --baseline, or the stand-in of
`tests/bench/mnist_baseline.py`. Goals on two CPU cores: 98.7 % in 1/12 of the baseline's time, 99.2 % in 1/4 of it, in
less than 1 GB. On the stand-in data accuracy is compared with the baseline's instead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from trainers.mnist_cnn import DEFAULTS

ROOT = Path(__file__).parents[2]
IMAGES = 60_000  # of an epoch
LOOK = 0.05  # seconds between two looks at the memory
ACCURACY = re.compile(r"Accuracy: (\d+)/(\d+)")  # hits of images, as the PyTorch project's example prints it
MEMORY_GOAL = 1000.0  # MB
GOALS = ((0.987, 12.0), (0.992, 4.0))  # an accuracy, and how many times faster than the baseline it must be reached


@dataclass(frozen=True)
class Outcome:
    """One training: seconds of the process, accuracy 0 to 1 (None if it told none), MB at the peak."""

    seconds: float
    accuracy: float | None
    memory: float


def measure(command: list[str], accuracy: str) -> Outcome:
    """Run a training to its end; `accuracy` says whose output it is: "ours" or "theirs"."""
    started = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        peak = [0.0]
        watch = threading.Thread(target=_watch_memory, args=(process, peak))
        watch.start()
        output, _ = process.communicate()
        seconds = time.monotonic() - started
        watch.join()
    if process.returncode:
        sys.exit(f"{shlex.join(command)} ended with status {process.returncode}:\n{output[-2000:]}")
    return Outcome(seconds, _ours(output) if accuracy == "ours" else _theirs(output), peak[0])


def _watch_memory(process: subprocess.Popen[str], peak: list[float]) -> None:
    """Keep the greatest resident memory of the process and its children, in MB."""
    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            members = [root, *root.children(recursive=True)]
            peak[0] = max(peak[0], sum(member.memory_info().rss for member in members) / 1e6)
        except psutil.Error:  # it ended between two calls
            pass
        time.sleep(LOOK)


def _ours(output: str) -> float | None:
    for line in output.splitlines():
        if line.startswith("SIGNALBOX ") and (event := json.loads(line[10:]))["event"] == "result":
            return float(event["metrics"]["val_accuracy"])
    return None


def _theirs(output: str) -> float | None:
    counts = ACCURACY.findall(output)
    return int(counts[-1][0]) / int(counts[-1][1]) if counts else None


def ours(epochs: float, seed: int, data_dir: Path, folder: str) -> Outcome:
    """`epochs` may be parts of them: the steps are counted, and the schedule is fitted to them."""
    steps = round(epochs * math.ceil(IMAGES / DEFAULTS["mnist"]["batch_size"]))
    command = [sys.executable, "-m", "trainers.mnist_cnn", "--dataset", "mnist", "--offline"]
    options = {
        "--data-dir": data_dir,
        "--output-dir": folder,
        "--epochs": math.ceil(epochs),
        "--max-steps": steps,
        "--seed": seed,
    }
    return measure([*command, *(str(part) for option in options.items() for part in option)], "ours")


def report(name: str, epochs: float, outcomes: list[Outcome], base: list[Outcome]) -> tuple[float, float, float]:
    """Print a row of medians; speed relative to the baseline, the worst seed's accuracy, the greatest memory."""
    seconds = statistics.median(one.seconds for one in outcomes)
    told = [one.accuracy for one in outcomes if one.accuracy is not None]
    speed = statistics.median(b.seconds / o.seconds for b, o in zip(base, outcomes, strict=True))
    memory = max(one.memory for one in outcomes)
    spread = f"{statistics.median(told):.2%} (worst {min(told):.2%})" if told else "not told"
    print(f"{name:34}{seconds:8.1f}{epochs * IMAGES / seconds:12,.0f}  {spread:24}{memory:8.0f}{speed:9.1f}×")
    return speed, min(told, default=0.0), memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path(os.environ.get("SIGNALBOX_DATA_DIR") or "data"))
    parser.add_argument("--synthetic", action="store_true", help="make and use the stand-in data: it is not MNIST")
    parser.add_argument("--baseline", help="command line of an external baseline; run in the repository's folder")
    parser.add_argument("--baseline-epochs", type=int, default=2, help="epochs that the baseline does [%(default)s]")
    parser.add_argument("--epochs", type=float, nargs="+", default=[0.5, 1, 3, 5], help="epochs of ours, a row each")
    parser.add_argument("--seeds", type=int, default=3, help="trainings a row [%(default)s]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = args.data_dir.resolve()
        if args.synthetic:
            from tests.bench.stand_in import write

            data_dir = Path(folder)
            write(data_dir)
        elif not (data_dir / "MNIST" / "raw").is_dir():
            sys.exit(f"{data_dir}/MNIST/raw is not there; name MNIST's folder with --data-dir, or take --synthetic.")
        compare(args, data_dir, folder)


def compare(args: argparse.Namespace, data_dir: Path, folder: str) -> None:
    """Measure both in turns, print the rows and say which goals are met."""
    own = [sys.executable, "-m", "tests.bench.mnist_baseline", str(data_dir), str(args.baseline_epochs)]
    baseline: list[Outcome] = []
    rows: dict[float, list[Outcome]] = {epochs: [] for epochs in args.epochs}
    for seed in range(args.seeds):
        baseline.append(measure(shlex.split(args.baseline) if args.baseline else [*own, str(seed)], "theirs"))
        for epochs, outcomes in rows.items():
            outcomes.append(ours(epochs, seed, data_dir, f"{folder}/{epochs}-{seed}"))
    kind = "stand-in data, NOT MNIST" if args.synthetic else "MNIST"
    print(f"{kind}; {os.cpu_count()} CPU cores; medians of {args.seeds} seeds")
    print(f"{'':34}{'seconds':>8}{'images/s':>12}  {'accuracy':24}{'MB':>8}{'speed':>10}")
    name = "external baseline" if args.baseline else "ordinary script (stand-in)"
    _, base_accuracy, _ = report(f"{name}, {args.baseline_epochs} epochs", args.baseline_epochs, baseline, baseline)
    found = [report(f"trainers.mnist_cnn, {e:g} epochs", e, outcomes, baseline) for e, outcomes in rows.items()]
    for accuracy, times in GOALS:
        wanted, words = (base_accuracy, "the baseline's accuracy") if args.synthetic else (accuracy, f"{accuracy:.1%}")
        met = any(speed >= times and worst >= wanted for speed, worst, _ in found)
        print(f"{'met    ' if met else 'NOT MET'}  {words} in 1/{times:.0f} of the baseline's time, whatever the seed")
    met = all(memory < MEMORY_GOAL for _, _, memory in found)
    print(f"{'met    ' if met else 'NOT MET'}  less than {MEMORY_GOAL:.0f} MB")


if __name__ == "__main__":
    main()
