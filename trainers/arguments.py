"""The arguments that trainers share, with the bounds that the bot's specs state.

Nothing here imports torch: a command line is checked, and help printed, in milliseconds. A complaint is one sentence.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from trainers.reporting import ExitCode, error

# What is not a parameter of the training itself: a resumed run may differ in it.
SURROUNDINGS = ("data_dir", "output_dir", "resume", "checkpoint_seconds", "experiment", "offline")


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one sentence, an `error` event and exit status 2."""

    def error(self, message: str) -> NoReturn:
        error(f"{message[:1].upper()}{message[1:]}; see python -m {self.prog} --help.")
        sys.exit(ExitCode.BAD_INPUT)


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argument type: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        with contextlib.suppress(ValueError):
            if low <= int(text) <= high:
                return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, and “{text}” is not")

    return parse


def real(low: float, high: float) -> Callable[[str], float]:
    """An argument type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= float(text) <= high:
                return float(text)
        raise argparse.ArgumentTypeError(f"must be a number from {low:g} to {high:g}, and “{text}” is not")

    return parse


def add_common_arguments(parser: Parser) -> None:
    """The arguments that mean the same to every trainer."""
    parser.add_argument("--seed", type=whole(0, 2**31 - 1), default=0, help="of weights, data order and split")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to train")
    data_dir = Path(os.environ.get("SIGNALBOX_DATA_DIR") or "data")
    parser.add_argument("--data-dir", type=Path, default=data_dir, help="folder of data sets and models [%(default)s]")
    parser.add_argument("--output-dir", type=Path, default=Path("output"), help="folder of checkpoints [%(default)s]")
    parser.add_argument("--max-steps", type=whole(1, 10**9), help="end after so many steps [those of all epochs]")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the output folder")
    parser.add_argument(
        "--checkpoint-seconds",
        type=real(0, 86400),
        help="between two checkpoints in an epoch, 0 after every step [60, more where writing one takes long]",
    )
    parser.add_argument("--experiment", help="MLflow experiment of a new run, where MLFLOW_RUN_ID names none")
    parser.add_argument("--offline", action="store_true", help="download nothing, as with HF_HUB_OFFLINE=1")


def is_offline(args: argparse.Namespace) -> bool:
    """Whether downloads are ruled out, by --offline or HF_HUB_OFFLINE."""
    return args.offline or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
