"""One training as its surroundings see it: progress, interruption, checkpoints, record.

A trainer's loop runs inside `Run.training`, asks `Run.batches` for sample numbers and reports to `step_done` and
`epoch_done`; that is enough to be followed, stopped at any step, and resumed to the same weights on the same hardware.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainers import checkpoint_file, model_folder
from trainers.arguments import SURROUNDINGS
from trainers.ranks import Ranks
from trainers.reporting import BadInput, Interrupted, ProgressLines, TrainerError, emit, finite, note, one_line, say
from trainers.tracking import Tracker

if TYPE_CHECKING:
    import torch
    from torch import nn

CHECKPOINT = "checkpoint.pt"  # in the output folder
MODEL_FOLDER = "model"  # in the output folder and in the run's artifacts
CHECKPOINT_SECONDS = 60.0  # between two of them: what a machine that dies without a signal may cost
CHECKPOINT_SHARE = 0.02  # of the time, at most, goes into writing them: a large model's come less often
GPU_WINDOW = 20  # steps at least between two looks at the loss of a GPU, which has to stop for each
_OF_ANOTHER_SHAPE = (ValueError, LookupError, TypeError, AttributeError, AssertionError)  # what reading one may raise
LOSS_POINTS = 1000  # points of the loss curve in MLflow, however many steps there are


class Interruption:
    """SIGTERM and SIGINT: raised at once while there is nothing to save, later only where the trainer asks."""

    def __init__(self) -> None:
        self.agreed: Callable[[bool], bool] = bool  # processes that train together stop at the same step
        self.arrived = False
        self._deferred = False

    def listen(self) -> None:
        """From here on signals are this object's."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._arrive)

    def _arrive(self, _number: int, _frame: object) -> None:
        self.arrived = True
        if not self._deferred:
            self._deferred = True  # a second signal must not break into the way out
            raise Interrupted

    def settle(self) -> None:
        """The training has ended, well or not: a signal hurries what is left, but is not what ended it."""
        self._deferred = True

    @staticmethod
    def over() -> None:
        """A signal while the interpreter ends must not replace the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def defer(self) -> None:
        """From here on a signal waits for `check`."""
        self._deferred = True
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` if a signal has arrived."""
        if self.agreed(self.arrived):
            raise Interrupted


class Stateful(Protocol):
    """A part of the training that a checkpoint holds: model, optimiser, schedule."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object: ...


@dataclass
class Position:
    """How far training has come. With the parts' states and the random numbers, all that a resumed run needs."""

    epoch: int = 1  # the epoch under way, counted from 1
    batch: int = 0  # its batches that are done
    samples: int = 0  # its samples that are done
    seconds: float = 0.0  # that they took
    sums: dict[str, torch.Tensor] = field(default_factory=dict)  # loss and the like, summed over its samples
    history: list[dict[str, float]] = field(default_factory=list)  # the metrics of each evaluation so far


class Run:
    """One training as its surroundings see it: progress, checkpoints, interruption, record."""

    def __init__(
        self, name: str, args: argparse.Namespace, interruption: Interruption, ranks: Ranks | None = None
    ) -> None:
        """`ranks`: the processes that train together; one of them leads and writes, all stop at the same step."""
        self.args = args
        self.ranks = ranks or Ranks()
        self.started = time.monotonic()
        self.position = Position()
        self.checkpoint: Path = args.output_dir / CHECKPOINT
        self.parameters = {name: value for name, value in vars(args).items() if name not in SURROUNDINGS}
        self.tracker = Tracker(name=name, experiment=args.experiment, output_dir=args.output_dir, resume=args.resume)
        self.tracker.params({name: value for name, value in self.parameters.items() if value is not None})
        self._interruption = interruption
        self._saved_once = False

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint, and of this training: another one may have left one in the same folder."""
        return (self._saved_once or self.args.resume) and self.checkpoint.exists()

    def make_output_dir(self) -> None:
        """Make the output folder; `BadInput` if that is not possible."""
        try:
            self.args.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise BadInput(
                f"The output folder {self.args.output_dir} cannot be made ({problem.strerror}); "
                "name one that can be written with --output-dir."
            ) from problem

    @contextlib.contextmanager
    def training(
        self,
        *,
        samples: int,
        device: torch.device,
        parts: dict[str, Stateful],
        sources: Mapping[str, Iterable[torch.Tensor]] | None = None,
    ) -> Iterator[Position]:
        """The frame of the loop: meets the other processes, resumes if asked to, and saves if a signal ends it.

        `samples` are in an epoch; `parts` are saved and restored; from other `sources` (by their names, in plural)
        nothing is resumed. Yields the position, which `batches`, `step_done` and `epoch_done` move on.
        """
        import torch

        args = self.args
        self._samples, self._device, self._parts = samples, device, parts
        self._sources = {name: checkpoint_file.fingerprint(tensors) for name, tensors in (sources or {}).items()}
        self._saved = time.monotonic()
        self._interval = CHECKPOINT_SECONDS if args.checkpoint_seconds is None else args.checkpoint_seconds
        self.ranks.join(device)
        self._interruption.agreed = self.ranks.any
        self._interruption.defer()
        if args.resume:
            self._restore()
        position, steps = self.position, self.steps(samples)
        batches: int = math.ceil(samples / args.batch_size)
        self._steps, self._batches = steps, batches
        self._epochs = math.ceil(steps / self._batches)
        done = (position.epoch - 1) * self._batches + position.batch
        self._window = max(GPU_WINDOW if device.type == "cuda" else 1, steps // LOSS_POINTS)
        self._lines = ProgressLines(steps=steps, epochs=self._epochs, done=done)
        hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        threads = torch.get_num_threads()
        self.tracker.tags({"device": hardware, "threads": threads, "torch_version": torch.__version__})
        emit("started", steps=steps, epochs=self._epochs, device=device.type, run_id=self.tracker.run_id)
        say(f"{steps} steps with {args.batch_size} samples, {batches} an epoch, on {hardware}, {threads} threads")
        try:
            yield position
        except Interrupted:
            self.save()
            raise

    def steps(self, samples: int) -> int:
        """Of the whole training, so many samples being an epoch."""
        steps: int = self.args.epochs * math.ceil(samples / self.args.batch_size)
        most: int | None = self.args.max_steps
        return min(steps, most or steps)

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, the one under way first; the last is cut short where the steps are over before."""
        yield from range(self.position.epoch, self._epochs + 1)

    @property
    def _last(self) -> int:
        """How many batches the epoch under way has."""
        return min(self._batches, self._steps - (self.position.epoch - 1) * self._batches)

    def batches(self) -> Iterator[torch.Tensor]:
        """The epoch's batches that are left: sample numbers (≤ batch_size,) on the device, in an order of its own.

        The order depends on seed and epoch alone, so that a resumed epoch goes on in it.
        """
        import torch

        generator = torch.Generator().manual_seed(self.args.seed * 1000 + self.position.epoch)
        order = torch.randperm(self._samples, generator=generator).to(self._device)
        # The loss curve starts anew here; what the epoch's sums hold already was drawn before the interruption.
        self._drawn = self._loss_sum(), self.position.samples
        self._clock = time.monotonic()
        for batch in torch.split(order, self.args.batch_size)[self.position.batch : self._last]:
            self.check()
            self._separate_chances()
            yield batch

    def _separate_chances(self) -> None:
        """Several processes draw anew at each step: a checkpoint holds one state, and no two may drop the same."""
        if self.ranks.size > 1:
            import torch

            step = (self.position.epoch - 1) * self._batches + self.position.batch
            torch.manual_seed(self.args.seed + 1_000_003 * (step * self.ranks.size + self.ranks.rank))

    def check(self) -> None:
        """Ask where it is safe to stop: raises `Interrupted` after a signal, and saves now and then."""
        self._interruption.check()
        if time.monotonic() - self._saved >= self._interval:
            self.save()

    def step_done(self, samples: int, **sums: torch.Tensor) -> None:
        """Count a batch of that many samples.

        `sums` are scalars summed over them, `loss` among them; `TrainerError` if that is not finite.
        """
        position, now = self.position, time.monotonic()
        position.batch += 1
        position.samples += samples
        position.seconds += now - self._clock
        self._clock = now
        for name, value in sums.items():
            before = position.sums.get(name)
            position.sums[name] = value.detach().double() + (0 if before is None else before)
        # Reading a value makes a GPU wait, so the loss is read once a window.
        if position.batch % self._window == 0 or position.batch == self._last:
            self._draw()

    def _draw(self) -> None:
        position, (sum_before, samples_before) = self.position, self._drawn
        self._drawn = self._loss_sum(), position.samples
        loss = (self._drawn[0] - sum_before) / (position.samples - samples_before)
        step = (position.epoch - 1) * self._batches + position.batch
        self._require_finite(loss, f"step {step}")
        self.tracker.metrics({"loss": loss}, step)
        self._lines.report(step=step, epoch=position.epoch, loss=loss, samples_per_second=self._pace())

    def epoch_done(self, metrics: Mapping[str, float]) -> None:
        """Close the epoch with the metrics of its evaluation, `val_loss` among them, and save."""
        position = self.position
        means = {f"train_{name}": value.item() / position.samples for name, value in position.sums.items()}
        pace = {"epoch_seconds": position.seconds, "samples_per_second": self._pace()}
        self.evaluated(position.epoch, {**means, **metrics, **pace})
        self.position = Position(epoch=position.epoch + 1, history=position.history)
        self.save()

    def evaluated(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Report an evaluation; epoch 0 is the one before training, where no learning rate can have been too high."""
        if epoch == 0 and not math.isfinite(metrics["val_loss"]):
            raise BadInput(
                f"The loss is {metrics['val_loss']} before any training, so the model's weights are damaged; "
                "fetch the model again, or choose another."
            )
        self._require_finite(metrics["val_loss"], f"the evaluation of epoch {epoch}")
        kept = finite(metrics)
        self.position.history.append(kept)
        self.tracker.metrics(kept, epoch)
        emit("epoch", epoch=epoch, epochs=self._epochs, metrics=kept)
        say(f"epoch {epoch}/{self._epochs}  " + "  ".join(f"{name} {value:.4g}" for name, value in kept.items()))

    def finished(self) -> None:
        """Report the result: the last evaluation, and what the whole process took."""
        duration = time.monotonic() - self.started
        metrics = {**self.position.history[-1], "peak_memory_mb": _peak_memory_mb(self._device)}
        self.tracker.metrics({"duration_seconds": duration, "peak_memory_mb": metrics["peak_memory_mb"]}, self._epochs)
        emit("result", metrics=metrics, duration_seconds=round(duration, 2))
        say(f"done in {duration:.1f} s")

    def log_model(self, model: nn.Module, example: torch.Tensor) -> None:
        """Record the network in MLflow's format, with that batch (n, …) as example input; both on the CPU.

        Without a record of the run there is nothing to write. `OSError` if the folder cannot be written.
        """
        if self.tracker.active:
            folder = self.args.output_dir / MODEL_FOLDER
            self.tracker.model(folder, model_folder.write(folder, model, example))

    def save(self) -> None:
        """Write the checkpoint whole or not at all; `TrainerError` if it cannot be written, or is not worth it."""
        if not self.ranks.leads:
            return
        import torch

        self._require_sound()
        started = time.monotonic()
        state = {
            "parameters": self.parameters,
            "sources": self._sources,
            "position": {item.name: getattr(self.position, item.name) for item in fields(Position)},
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if self._device.type == "cuda" else [],
        }
        try:
            checkpoint_file.write(state, self.checkpoint)
        except (OSError, RuntimeError) as problem:
            raise TrainerError(
                f"The checkpoint could not be written to {self.checkpoint} ({one_line(str(problem))[:120]}); "
                "free some space or name another folder with --output-dir."
            ) from problem
        self._saved, self._saved_once = time.monotonic(), True
        if self.args.checkpoint_seconds is None:
            self._interval = max(CHECKPOINT_SECONDS, (self._saved - started) / CHECKPOINT_SHARE)

    def _require_sound(self) -> None:
        """Finite numbers only: what was saved before a training diverged must not be replaced by what is left of it."""
        import torch

        step = f"step {(self.position.epoch - 1) * self._batches + self.position.batch}"
        self._require_finite(self._loss_sum(), step)
        model = self._parts.get("model")
        for tensor in model.state_dict().values() if model else ():
            if torch.is_tensor(tensor) and tensor.is_floating_point() and not torch.isfinite(tensor).all():
                self._require_finite(math.nan, step)

    def _restore(self) -> None:
        import torch

        if not self.checkpoint.exists():
            note(f"There is no checkpoint in {self.args.output_dir}; training starts from the beginning.")
            return
        try:
            state = checkpoint_file.read(self.checkpoint)
            self._require_same(state["parameters"], state.get("sources", {}))
            for name, part in self._parts.items():
                part.load_state_dict(state["parts"][name])
            torch.set_rng_state(state["random"])
            if self._device.type == "cuda" and state["cuda_random"]:
                torch.cuda.set_rng_state_all(state["cuda_random"])
            self.position = Position(**state["position"])
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, *_OF_ANOTHER_SHAPE) as problem:
            raise BadInput(
                f"The checkpoint {self.checkpoint} cannot be read ({one_line(str(problem))[:120]}); "
                "train without --resume to start from the beginning."
            ) from problem
        position = self.position
        position.sums = {name: value.to(self._device) for name, value in position.sums.items()}
        note(f"Training goes on in epoch {position.epoch} after {position.batch} steps of it.")

    def _require_same(self, parameters: Mapping[str, object], sources: Mapping[str, str]) -> None:
        for name, value in self.parameters.items():
            if name != "device" and parameters.get(name) != value:
                raise BadInput(
                    f"The checkpoint {self.checkpoint} was made with {name} {parameters.get(name)}, not {value}; "
                    "train with the same parameters, or without --resume."
                )
        for name, fingerprint in self._sources.items():
            if sources.get(name, fingerprint) != fingerprint:  # an earlier version kept none
                raise BadInput(
                    f"{name[:1].upper()}{name[1:]} have changed since the checkpoint {self.checkpoint} was made; "
                    "train with what they were, or without --resume."
                )

    def _require_finite(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            raise TrainerError(f"The loss is {loss} at {where}; train with a learning rate below {self.args.lr:g}.")

    def _loss_sum(self) -> float:
        loss = self.position.sums.get("loss")
        return 0.0 if loss is None else loss.item()

    def _pace(self) -> float:
        return self.position.samples / max(self.position.seconds, 1e-9)


def _peak_memory_mb(device: torch.device) -> float:
    """The most memory held so far, in MB: of the GPU if it trains, otherwise of the process."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def torch_device(name: str, ranks: Ranks) -> torch.device:
    """The device of that name for this process; `BadInput` if it is not there."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("No GPU is visible to this process; train with --device cpu, or on a machine that has a GPU.")
    if name == "cuda" and ranks.size == 1 and torch.cuda.device_count() > 1:
        note(f"{torch.cuda.device_count()} GPUs are visible; this trainer uses the first.")
    torch.backends.cudnn.deterministic = True  # the same seed gives the same weights
    return ranks.device(name)
