"""A stand-in for MNIST where MNIST is not at hand: its size and format, and about as hard; it is not MNIST.

Scikit-learn's 1,797 digits of 8×8, enlarged and distorted: turned, sheared, moved, bent, thickened, blurred. Training
and test part come from different originals, so that a network must generalise; classes are balanced as the originals
are. An accuracy on it says how trainings compare with each other, and nothing about MNIST itself.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

SIDE, TRAIN, TEST = 28, 60_000, 10_000
CHUNK = 5_000  # images made at once
TURN, SHEAR, SCALE, MOVE = 0.26, 0.25, 0.12, 0.14  # radians, share, share, half widths: the greatest of each
BEND, BEND_SIDE = 0.16, 5  # greatest shift of a coarse grid's points, in half widths; points a side
NOISE = 0.06  # deviation, of white


def write(data_dir: Path) -> None:
    """Write the four IDX files in torchvision's layout below the data folder, the same ones at every call."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(labels), generator=generator)
    held_out = len(labels) // 5
    folder = data_dir / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for part, chosen, count in (("train", order[held_out:], TRAIN), ("t10k", order[:held_out], TEST)):
        picked = chosen[torch.randint(len(chosen), (count,), generator=generator)]
        made = torch.cat([_distorted(images[chunk], generator) for chunk in picked.split(CHUNK)])
        _write_idx(folder / f"{part}-images-idx3-ubyte", made)
        _write_idx(folder / f"{part}-labels-idx1-ubyte", labels[picked].to(torch.uint8))


def _distorted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images (n, 1, 8, 8) from 0 to 1 → (n, 28, 28) uint8, each distorted in its own way."""
    count = len(images)

    def spread(most: float, *shape: int) -> torch.Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1) * most

    large = interpolate(images, size=(20, 20), mode="bicubic").clamp(0, 1)
    large = torch.nn.functional.pad(large, (4, 4, 4, 4))
    turn, shear, scale = spread(TURN), spread(SHEAR), 1 + spread(SCALE)
    cosine, sine = turn.cos() / scale, turn.sin() / scale
    matrix = torch.stack([cosine, shear - sine, sine, cosine], 1).view(count, 2, 2)
    axis = torch.linspace(-1, 1, SIDE)
    points = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).view(1, -1, 2)
    grid = (points @ matrix.transpose(1, 2) + spread(MOVE, 1, 2)).view(count, SIDE, SIDE, 2)
    bend = interpolate(spread(BEND, 2, BEND_SIDE, BEND_SIDE), size=(SIDE, SIDE), mode="bicubic", align_corners=True)
    drawn = grid_sample(large, grid + bend.permute(0, 2, 3, 1), align_corners=True)
    # Ink: some write with a thick pen, some with a thin one; edges are soft by a pixel.
    edge = 0.42 + spread(0.12, 1, 1, 1)
    drawn = avg_pool2d(((drawn - edge) * 5).sigmoid(), 3, stride=1, padding=1)
    drawn = drawn / drawn.amax((2, 3), keepdim=True).clamp(min=0.1)
    noise = torch.randn(drawn.shape, generator=generator) * NOISE
    return ((drawn + noise).clamp(0, 1) * 255).round().to(torch.uint8).squeeze(1)


def _write_idx(path: Path, values: torch.Tensor) -> None:
    header = bytes([0, 0, 8, values.dim()]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    assert math.prod(values.shape) == values.numel()
    path.write_bytes(header + values.contiguous().numpy().tobytes())
