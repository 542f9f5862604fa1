"""Train a small convolutional network on CIFAR-10: `python -m trainers.cifar10 --data-dir FOLDER`.

50,000 images of 32×32 in colour to train on, the 10,000 of the test part to validate, of ten classes. Read from
torchvision's folder (`cifar-10-batches-py`) or from the binary version (`cifar-10-batches-bin`), below the data folder.

Measured: not yet on CIFAR-10 itself, which was not at hand; see tests/trainers/test_cifar10.py for what is tested on
images made up in its format. It is a GPU's work: some 90 million multiplications an image and step forward, thrice that
with the way back.
"""

from __future__ import annotations

import argparse
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.arguments import Parser, add_common_arguments, is_offline, real, whole
from trainers.harness import main
from trainers.reporting import BadInput, one_line
from trainers.run import Run, torch_device
from trainers.vision import (
    AdamW,
    Split,
    Standardise,
    download,
    evaluate,
    flipped,
    mixed_precision,
    one_cycle,
    shifted,
    together,
    with_standardisation,
)

if TYPE_CHECKING:
    from torch import nn

# --- hyper-parameters ------------------------------------------------------------------------------------------------

STEM = 32  # channels of the first convolution
STAGES = (64, 128, 256)  # channels; each stage halves the side
DROPOUT = 0.1  # before the classes
BETAS = (0.9, 0.99)  # Adam's memory of gradient and square
WEIGHT_DECAY = 0.05
WARMUP = 0.2  # share of the steps in which the learning rate rises to its peak; it falls to zero from there
FIRST_LR = 0.02  # the least learning rate, as a share of the peak
SHIFT = 2  # pixels that a training image is moved by at most
SMOOTHING = 0.1  # of the labels: share of the probability that the other classes get

SIDE, CHANNELS, CLASSES = 32, 3, 10
PIXELS = CHANNELS * SIDE * SIDE  # bytes of an image, colour by colour
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"


# --- arguments -------------------------------------------------------------------------------------------------------


def build_parser() -> Parser:
    """The parser of this trainer's command line."""
    parser = Parser(prog="trainers.cifar10", description="Train a small CNN on CIFAR-10.")
    parser.add_argument("--epochs", type=whole(1, 200), default=10, help="passes over the training data [%(default)s]")
    parser.add_argument("--lr", type=real(1e-6, 1.0), default=5e-3, help="peak learning rate [%(default)s]")
    parser.add_argument("--batch-size", type=whole(1, 4096), default=256, help="images a step [%(default)s]")
    add_common_arguments(parser)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The checked arguments; exits with a sentence if one is wrong."""
    return build_parser().parse_args(argv)


# --- data ------------------------------------------------------------------------------------------------------------


def load(data_dir: Path, offline: bool) -> tuple[Split, Split]:
    """Training and test part; `BadInput` if files are missing or damaged."""
    pickled, binary = data_dir / "cifar-10-batches-py", data_dir / "cifar-10-batches-bin"
    if not pickled.is_dir() and not binary.is_dir() and not offline:
        download("CIFAR10", data_dir)
    folder, suffix = (binary, ".bin") if binary.is_dir() else (pickled, "")
    paths = [folder / f"{name}{suffix}" for name in (*BATCHES, TEST)]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise BadInput(
            f"CIFAR-10 is not complete in {folder}: {', '.join(missing)} not found; put the files there, name the "
            "folder above it with --data-dir, or train where they can be downloaded, without --offline."
        )
    import torch

    parts = [read_binary(path) if suffix else read_pickle(path) for path in paths]
    train = Split(*(torch.cat(column) for column in zip(*((p.images, p.labels) for p in parts[:-1]), strict=True)))
    return train, parts[-1]


def read_binary(path: Path) -> Split:
    """A file of the binary version: a byte of label and 3,072 of pixels an image; `BadInput` if it is not whole."""
    import torch

    try:
        content = bytearray(path.read_bytes())
    except OSError as problem:
        raise BadInput(f"{path} cannot be read ({problem.strerror}); fetch it again.") from problem
    if not content or len(content) % (1 + PIXELS):
        raise BadInput(f"{path} is not a whole file of CIFAR-10's binary version; fetch it again.")
    rows = torch.frombuffer(content, dtype=torch.uint8).view(-1, 1 + PIXELS)
    return _split(rows[:, 1:], rows[:, 0], path)


class _Plain(pickle.Unpickler):
    """Reads arrays, lists and dictionaries; a file from the internet gets nothing else made, let alone called."""

    def find_class(self, module: str, name: str) -> Any:
        import numpy

        made: Any = numpy.empty(0).__reduce__()[0]  # what arrays are pickled by; its module's name has changed
        if module.startswith("numpy") and name == "_reconstruct":
            return made
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(numpy, name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_pickle(path: Path) -> Split:
    """A file of the Python version, without running what it may bring; `BadInput` if it is not one."""
    import numpy
    import torch

    try:
        content = _Plain(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels = torch.from_numpy(numpy.asarray(content[b"data"], dtype=numpy.uint8).reshape(-1, PIXELS).copy())
        labels = torch.tensor([int(label) for label in content[b"labels"]])
    except Exception as problem:  # a damaged pickle raises whatever its bytes happen to mean
        raise BadInput(
            f"{path} is not a file of CIFAR-10's Python version ({one_line(str(problem))[:120]}); fetch it again."
        ) from problem
    return _split(pixels, labels, path)


def _split(pixels: Any, labels: Any, path: Path) -> Split:
    if len(pixels) != len(labels) or not len(labels) or labels.min() < 0 or labels.max() >= CLASSES:
        raise BadInput(f"{path} does not hold images with a label from 0 to 9 each; fetch it again.")
    return Split(pixels.reshape(-1, CHANNELS, SIDE, SIDE).contiguous(), labels.long())


# --- model -----------------------------------------------------------------------------------------------------------


def build_model() -> nn.Sequential:
    """The network: (n, 3, 32, 32) → logits (n, 10). Two convolutions a stage, the first of them pooled."""
    from torch import nn

    def convolution(before: int, after: int, *pool: nn.Module) -> list[nn.Module]:
        return [nn.Conv2d(before, after, 3, padding=1, bias=False), *pool, nn.BatchNorm2d(after), nn.GELU()]

    layers = convolution(CHANNELS, STEM)
    for before, after in zip((STEM, *STAGES), STAGES, strict=False):
        layers += convolution(before, after, nn.MaxPool2d(2)) + convolution(after, after)
    last = SIDE // 2 ** len(STAGES)
    return nn.Sequential(*layers, nn.MaxPool2d(last), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(STAGES[-1], CLASSES))


# --- loop ------------------------------------------------------------------------------------------------------------


def train(run: Run) -> None:
    """Train as the run's arguments say, and evaluate after every epoch."""
    import torch
    from torch.nn.functional import cross_entropy

    args, ranks = run.args, run.ranks
    device = torch_device(args.device, ranks)
    torch.manual_seed(args.seed)
    data, validation = (split.to(device) for split in load(args.data_dir, is_offline(args)))
    standardise = Standardise.of(data.images)
    model = build_model().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = together(model, ranks)
    optimizer = AdamW(model, BETAS, WEIGHT_DECAY)
    steps = run.steps(len(data.labels))
    parts, sources = {"model": model, "optimizer": optimizer}, {"the training data": (data.images, data.labels)}
    with run.training(samples=len(data.labels), device=device, parts=parts, sources=sources):
        for _ in run.epochs():
            model.train()
            for batch in run.batches():
                mine = ranks.share(batch)
                images, labels = flipped(shifted(data.images[mine], SHIFT, "reflect")), data.labels[mine]
                with mixed_precision(device):
                    logits = network(standardise(images))
                loss = cross_entropy(logits.float(), labels, label_smoothing=SMOOTHING, reduction="sum") / len(batch)
                loss.backward()  # type: ignore[no-untyped-call]
                ranks.sum(optimizer.gradient)
                optimizer.step(one_cycle(args.lr, optimizer.steps / steps, warmup=WARMUP, first=FIRST_LR))
                hits = (logits.argmax(1) == labels).sum()
                run.step_done(len(batch), loss=ranks.sum(loss.detach() * len(batch)), accuracy=ranks.sum(hits))
            run.epoch_done(evaluate(model, validation, standardise, run))
    run.tracker.artifact(run.checkpoint)
    run.log_model(with_standardisation(model, standardise), validation.images[:2].cpu().float())


if __name__ == "__main__":
    main("cifar10", parse, train)
