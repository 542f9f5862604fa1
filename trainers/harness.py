"""The frame of every trainer: from the first signal handler to the exit status.

`main` installs the handlers before anything heavy is imported, hands the trainer a `Run`, and turns whatever comes out
of it into an `error` event and an exit status. Trainers import torch inside functions, so that arguments are checked
and help is printed without it, and a signal that arrives while it loads finds its handler in place.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from trainers.memory import advice, is_out_of_memory
from trainers.ranks import Ranks, tell_launcher
from trainers.reporting import ExitCode, Interrupted, TrainerError, error, note, one_line
from trainers.run import Interruption, Run


def main(name: str, parse: Callable[[], argparse.Namespace], train: Callable[[Run], None]) -> NoReturn:
    """Run a trainer and exit with an `ExitCode`: `parse` gives its arguments, `train` is handed the run."""
    # Idle threads spin for microseconds, then sleep. OpenMP's own choice is milliseconds; where others want the same
    # cores, that is what the time goes into: on two busy cores 10 to 60 times fewer images a second.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # read when torch is loaded
    run: Run | None = None
    interruption = Interruption()
    try:
        interruption.listen()
        args, ranks = parse(), Ranks.from_environment()
        ranks.silence(args)
        run = Run(name, args, interruption, ranks)
        run.make_output_dir()
        train(run)
        run.finished()
        code = ExitCode.OK
    except (Exception, Interrupted) as problem:
        interruption.settle()
        by_itself = not interruption.arrived
        code = _failed(problem, run)
        if by_itself:
            tell_launcher(code)
        if code not in (ExitCode.INTERRUPTED, ExitCode.BAD_INPUT) and run is not None and run.resumable:
            note(f"The checkpoint that was written before is kept: {run.checkpoint}.")
    if run is not None:
        status = {ExitCode.OK: "FINISHED", ExitCode.INTERRUPTED: "KILLED"}.get(code, "FAILED")
        run.tracker.close(status, hurried=lambda: interruption.arrived)
    Interruption.over()
    sys.exit(code)


def _failed(problem: BaseException, run: Run | None) -> ExitCode:
    """Report what ended the training, and say with which exit status."""
    if isinstance(problem, Interrupted):
        saved = run is not None and run.resumable
        note(
            "Interrupted; "
            + ("the checkpoint is saved and --resume goes on from it." if saved else "nothing was to be saved yet.")
        )
        return ExitCode.INTERRUPTED
    if isinstance(problem, TrainerError):
        error(str(problem))
        return problem.exit_code
    traceback.print_exception(problem)
    if is_out_of_memory(problem):
        batch_size, device = (run.args.batch_size, run.args.device) if run else (None, "cpu")
        error(advice(problem, batch_size, device))
        return ExitCode.OUT_OF_MEMORY
    if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = f" ({problem.filename})" if problem.filename else ""
        error(f"The disk is full{where}; free some space or name another folder with --output-dir.")
        return ExitCode.FAILURE
    error(
        f"The training failed with {type(problem).__name__}: {one_line(str(problem))[:300]}; the log has the traceback."
    )
    return ExitCode.FAILURE
