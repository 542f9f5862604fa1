"""Train a small convolutional network on handwritten digits: `python -m trainers.mnist_cnn --dataset digits|mnist`.

`digits` is scikit-learn's bundled set: 1,797 images of 8×8, 80 % to train on and 20 % to validate, split by the seed
within each class. `mnist` is MNIST: its 60,000 images of 28×28 to train on, its 10,000 test images to validate.

Measured on one core of a busy machine that computes in bf16, in CPU seconds of the whole process:
    digits, 8 epochs, seed 0                val_accuracy 0.997
    60,000 images of MNIST's size           1 epoch 9.8 s, 3 epochs 25 s, 5 epochs 40 s; 0.72 to 0.74 GB at the peak
    an ordinary script, 2 epochs            some 138 s (by a tenth of the images), 1.16 GB
    a step of 128                           10,500 images/s; in float32 7,300, in bf16 without channels_last 4,900, with
                                            padded convolutions 6,600
MNIST itself was not at hand, so its accuracy was not measured. On harder stand-in data (tests/bench/stand_in.py) 1, 3
and 5 epochs give 95.0, 96.5 and 97.2 %; the network of the PyTorch project's example, its way, 93.5 % in 2 epochs.
`make bench-mnist` measures both on the machine and the data at hand.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.arguments import Parser, add_common_arguments, is_offline, real, whole
from trainers.harness import main
from trainers.reporting import BadInput
from trainers.run import Run, torch_device
from trainers.vision import (
    AdamW,
    Split,
    Standardise,
    download,
    evaluate,
    mixed_precision,
    one_cycle,
    shifted,
    together,
    with_standardisation,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

# --- hyper-parameters ------------------------------------------------------------------------------------------------

CHANNELS = (32, 64)  # of the two convolutions
HIDDEN = 128  # units of the fully connected layer
DROPOUT = 0.25  # before either fully connected layer
BETAS = (0.9, 0.99)  # Adam's memory of gradient and square: short, since digits is done in some hundred steps
WEIGHT_DECAY = 0.01
WARMUP = 0.3  # share of the steps in which the learning rate rises to its peak; it falls to zero from there
FIRST_LR = 0.04  # the least learning rate, as a share of the peak: the first steps should count
SHIFT = {
    "digits": 0,
    "mnist": 1,
}  # pixels that a training image is moved by at most; 8 a side have none to spare
VALIDATION_SHARE = 0.2  # of digits


# --- arguments -------------------------------------------------------------------------------------------------------

MOST = {"digits": {"epochs": 100, "batch_size": 1024}, "mnist": {"epochs": 50, "batch_size": 4096}}
DEFAULTS = {
    "digits": {"epochs": 8, "lr": 1e-3, "batch_size": 32},
    "mnist": {"epochs": 3, "lr": 5e-3, "batch_size": 128},
}


def build_parser() -> Parser:
    """The parser of this trainer's command line; epochs and batch size depend on the data set, see `parse`."""
    parser = Parser(prog="trainers.mnist_cnn", description="Train a small CNN on handwritten digits.")
    parser.add_argument("--dataset", choices=tuple(MOST), default="digits", help="what to train on [%(default)s]")
    parser.add_argument("--epochs", type=whole(1, 100), help="passes over the training data [digits 8, mnist 3]")
    parser.add_argument("--lr", type=real(1e-6, 1.0), help="peak learning rate [digits 0.001, mnist 0.005]")
    parser.add_argument("--batch-size", type=whole(1, 4096), help="images a step [digits 32, mnist 128]")
    add_common_arguments(parser)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The checked arguments, with the defaults and bounds of the data set; exits with a sentence if one is wrong."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for name, default in DEFAULTS[args.dataset].items():
        if getattr(args, name) is None:
            setattr(args, name, default)
    for name, most in MOST[args.dataset].items():
        if getattr(args, name) > most:
            option = name.replace("_", "-")
            parser.error(f"argument --{option}: must be a whole number from 1 to {most} for {args.dataset}")
    return args


# --- data ------------------------------------------------------------------------------------------------------------


def load(args: argparse.Namespace) -> tuple[Split, Split]:
    """Training and validation part."""
    return digits(args.seed) if args.dataset == "digits" else mnist(args.data_dir, is_offline(args))


def digits(seed: int) -> tuple[Split, Split]:
    """Scikit-learn's 8×8 digits, split within each class by the seed."""
    import numpy
    import torch

    # Read straight from the package: importing scikit-learn takes longer than the whole training.
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise BadInput("The digits come with scikit-learn, which is not installed; install the extra “trainers”.")
    path = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    with gzip.open(path, "rt") as file:
        table = torch.from_numpy(numpy.loadtxt(file, delimiter=",", dtype=numpy.uint8))
    images, labels = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].long()
    generator = torch.Generator().manual_seed(seed)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in range(10):
        members = (labels == label).nonzero().flatten()
        chosen = torch.randperm(len(members), generator=generator)[: round(len(members) * VALIDATION_SHARE)]
        held_out[members[chosen]] = True
    return Split(images[~held_out], labels[~held_out]), Split(images[held_out], labels[held_out])


def mnist(data_dir: Path, offline: bool) -> tuple[Split, Split]:
    """MNIST from torchvision's folder layout, `MNIST/raw/*-ubyte` below the data folder, compressed or not."""
    folder = data_dir / "MNIST" / "raw"
    names = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    if not all(_found(folder, name) for name in names) and not offline:
        download("MNIST", data_dir)
    missing = [name for name in names if not _found(folder, name)]
    if missing:
        raise BadInput(
            f"MNIST is not complete in {folder}: {', '.join(missing)} (or the same with .gz) not found; put the files "
            "there, name their folder with --data-dir, or train where they can be downloaded, without --offline."
        )
    train_images, train_labels, test_images, test_labels = (
        read_idx(path) for name in names if (path := _found(folder, name))
    )
    return _split(train_images, train_labels, folder), _split(test_images, test_labels, folder)


def _found(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx(path: Path) -> torch.Tensor:
    """A file in the IDX format as a uint8 tensor of its shape; `BadInput` if it is not whole.

    The format is two zero bytes, the type 8 (unsigned byte), the number of dimensions, each dimension as a big-endian
    32-bit number, then the values: https://github.com/cvdfoundation/mnist
    """
    import torch

    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as problem:
        raise BadInput(f"{path} cannot be read ({problem}); fetch it again.") from problem
    dimensions = content[3] if content[:3] == b"\x00\x00\x08" and len(content) > 3 else 0
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if not dimensions or len(content) != start + math.prod(shape):
        raise BadInput(f"{path} is not a whole IDX file of unsigned bytes; fetch it again.")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)


def _split(images: torch.Tensor, labels: torch.Tensor, folder: Path) -> Split:
    whole_set = images.shape[1:] == (28, 28) and labels.shape == images.shape[:1] and len(labels) > 0
    if not whole_set or labels.max() > 9:
        raise BadInput(
            f"The files in {folder} do not belong together as 28×28 images and labels from 0 to 9; fetch them again."
        )
    return Split(images.unsqueeze(1), labels.long())


# --- model -----------------------------------------------------------------------------------------------------------


def build_model(side: int) -> nn.Sequential:
    """The network for images of `side`×`side`: (n, 1, side, side) → logits (n, 10).

    Pooling after the first convolution, too, leaves the second a quarter of the arithmetic. A first kernel of 5×5
    sees a whole stroke; where a side has pixels to spare, convolutions leave the empty border out instead of padding
    it, which halves the arithmetic once more.
    """
    from torch import nn

    first, second = CHANNELS
    kernel, padding = (5, 0) if side >= 20 else (3, 1)
    after_first = (side - kernel + 1 + 2 * padding) // 2
    after_second = (after_first - 2 + 2 * padding) // 2
    return nn.Sequential(
        nn.Conv2d(1, first, kernel, padding=padding),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(first),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=padding),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(second),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(DROPOUT),
        nn.Linear(second * after_second**2, HIDDEN),
        nn.ReLU(),
        nn.Dropout(DROPOUT),
        nn.Linear(HIDDEN, 10),
    )


# --- loop ------------------------------------------------------------------------------------------------------------


def train(run: Run) -> None:
    """Train as the run's arguments say, and evaluate after every epoch."""
    import torch
    from torch.nn.functional import cross_entropy

    args, ranks = run.args, run.ranks
    device = torch_device(args.device, ranks)
    torch.manual_seed(args.seed)
    data, validation = (split.to(device) for split in load(args))
    standardise, shift = Standardise.of(data.images), SHIFT[args.dataset]
    model = build_model(side=data.images.shape[-1]).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network = together(model, ranks)
    optimizer = AdamW(model, BETAS, WEIGHT_DECAY)
    steps = run.steps(len(data.labels))
    parts, sources = {"model": model, "optimizer": optimizer}, {"the training data": (data.images, data.labels)}
    with run.training(samples=len(data.labels), device=device, parts=parts, sources=sources):
        for _ in run.epochs():
            model.train()
            for batch in run.batches():
                mine = ranks.share(batch)
                images, labels = data.images[mine], data.labels[mine]
                if shift:
                    images = shifted(images, shift)
                with mixed_precision(device):
                    logits = network(standardise(images))
                loss = cross_entropy(logits.float(), labels, reduction="sum") / len(batch)
                loss.backward()  # type: ignore[no-untyped-call]
                ranks.sum(optimizer.gradient)
                optimizer.step(one_cycle(args.lr, optimizer.steps / steps, warmup=WARMUP, first=FIRST_LR))
                hits = (logits.argmax(1) == labels).sum()
                run.step_done(len(batch), loss=ranks.sum(loss.detach() * len(batch)), accuracy=ranks.sum(hits))
            run.epoch_done(evaluate(model, validation, standardise, run))
    run.tracker.artifact(run.checkpoint)
    run.log_model(with_standardisation(model, standardise), validation.images[:2].cpu().float())


if __name__ == "__main__":
    main("mnist-cnn", parse, train)
