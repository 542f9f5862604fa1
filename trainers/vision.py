"""What the image trainers share: images kept as bytes, batches made of them, an optimiser, a schedule, an evaluation.

A data set of images fits into memory as bytes, so there is no loader and no worker: a batch is a gather, an
augmentation and a standardisation, each of them one operation over the whole batch. Every tensor stays on the
training's device.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.reporting import note

if TYPE_CHECKING:
    import torch
    from torch import nn

    from trainers.ranks import Ranks
    from trainers.run import Run

EVALUATION_BATCH = 500  # images
LEVELS = 256  # of a byte
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # a CPU's names for it; without, bf16 is slower


@dataclass(frozen=True)
class Split:
    """One part of a data set: images (n, channels, side, side) uint8, labels (n,) int64."""

    images: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> Split:
        """The same on the device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Standardise:
    """Bytes to numbers of mean 0 and deviation 1 in each channel, in the layout that convolutions are fastest in."""

    mean: torch.Tensor  # (1, channels, 1, 1)
    deviation: torch.Tensor

    @classmethod
    def of(cls, images: torch.Tensor) -> Standardise:
        """That of the images (n, channels, side, side) uint8, counted level by level: no copy as floats is made."""
        import torch

        levels = torch.arange(LEVELS, dtype=torch.float64, device=images.device)
        means, deviations = [], []
        for channel in images.unbind(1):
            share = torch.bincount(channel.flatten(), minlength=LEVELS).double() / channel.numel()
            means.append((share * levels).sum())
            deviations.append((share * (levels - means[-1]).square()).sum().sqrt().clamp(min=1e-6))
        shape = (1, images.shape[1], 1, 1)
        return cls(torch.stack(means).float().view(shape), torch.stack(deviations).float().view(shape))

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels, side, side) uint8 → float32."""
        import torch

        floats = images.to(torch.float32, memory_format=torch.channels_last)
        return floats.sub_(self.mean).div_(self.deviation)


def together(model: nn.Sequential, ranks: Ranks) -> nn.Sequential:
    """What to train the model by: itself, or its layers with batch norms over the samples of all processes."""
    if ranks.size == 1:
        return model
    from trainers.batch_norm import over_whole_batches

    return over_whole_batches(model, ranks)


def download(name: str, data_dir: Path) -> None:
    """Fetch torchvision's data set of that name into the data folder; if that fails it is noted, no more."""
    from torchvision import datasets

    before = socket.getdefaulttimeout()
    # Seconds. torchvision sets none, and would wait minutes for a network that is not there.
    socket.setdefaulttimeout(5)
    try:
        getattr(datasets, name)(str(data_dir), download=True)
    except (OSError, RuntimeError) as problem:
        note(f"{name} could not be downloaded ({type(problem).__name__}).")
    finally:
        socket.setdefaulttimeout(before)


def with_standardisation(model: nn.Sequential, standardise: Standardise) -> nn.Sequential:
    """The network for use elsewhere: pixels from 0 to 255 as float32 → logits, on the CPU, of torch's modules alone."""
    import copy

    from torch import nn

    # A batch norm that only knows fixed numbers is a standardisation, and loads without this package.
    first = nn.BatchNorm2d(standardise.mean.numel(), affine=False, eps=0.0)
    first.running_mean, first.running_var = (
        standardise.mean.flatten().cpu(),
        standardise.deviation.square().flatten().cpu(),
    )
    return nn.Sequential(first, *copy.deepcopy(model).cpu()).eval()


def shifted(images: torch.Tensor, most: int, mode: str = "constant") -> torch.Tensor:
    """(n, channels, side, side) uint8, each image moved by up to `most` pixels along both axes.

    `mode` says what comes in from outside: "constant" for black, "reflect" for the image's own border.
    """
    import torch
    from torch.nn.functional import pad

    count, _, height, width = images.shape
    # Reflection wants floats; they hold every byte exactly.
    padded = pad(images.float(), (most,) * 4, mode=mode).to(images.dtype)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: (n, channels, down, right, height, width)
    down, right = torch.randint(0, 2 * most + 1, (2, count), device=images.device)
    return windows[torch.arange(count, device=images.device), :, down, right]


def flipped(images: torch.Tensor) -> torch.Tensor:
    """(n, channels, height, width), every other image, by chance, as in a mirror."""
    import torch

    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(3), images)


def mixed_precision(device: torch.device) -> torch.autocast:
    """The context of a forward pass: bf16 where the hardware computes in it, else float32. Weights stay float32."""
    import torch

    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # since torch 2.11
        native = any(capabilities.get(name) for name in NATIVE_BF16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=native)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101), on all weights as one vector.

    `torch.optim.AdamW` gives the same numbers, but constructing it imports TorchDynamo: seconds, half of what training
    on digits takes. The parameters become views of the vector, in their layout, so the model must be on its device
    before. `betas` are the memories of gradient and square.
    """

    def __init__(self, model: nn.Module, betas: tuple[float, float], weight_decay: float) -> None:
        import torch

        parameters = list(model.parameters())
        self._betas, self._weight_decay = betas, weight_decay
        self._weights = torch.empty(sum(p.numel() for p in parameters), device=parameters[0].device)
        self.gradient = torch.zeros_like(self._weights)
        self._mean, self._square = torch.zeros_like(self._weights), torch.zeros_like(self._weights)
        self.steps = 0
        first = 0
        for parameter in parameters:
            shape, stride = parameter.size(), parameter.stride()
            weights = self._weights.as_strided(shape, stride, first)
            parameter.data = weights.copy_(parameter.detach())
            parameter.grad = self.gradient.as_strided(shape, stride, first)
            first += parameter.numel()

    def step(self, lr: float) -> None:
        """Move the weights against `gradient`, and make that zero."""
        self.steps += 1
        short, long = self._betas
        self._mean.lerp_(self.gradient, 1 - short)
        self._square.mul_(long).addcmul_(self.gradient, self.gradient, value=1 - long)
        scale = self._square.sqrt().div_(math.sqrt(1 - long**self.steps)).add_(1e-8)
        self._weights.mul_(1 - lr * self._weight_decay).addcdiv_(self._mean, scale, value=-lr / (1 - short**self.steps))
        self.gradient.zero_()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; the weights are the model's."""
        return {"steps": self.steps, "mean": self._mean, "square": self._square}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take over what `state_dict` gave."""
        self.steps = state["steps"]
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])


def one_cycle(peak: float, progress: float, *, warmup: float, first: float) -> float:
    """The learning rate at `progress` 0 to 1 (Smith 2018, arXiv:1803.09820): up to the peak, and down to zero.

    Both ways along cosines. `warmup` is the share of the steps that rise; `first` the least rate, as a share of `peak`.
    """
    share = progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)
    return peak * max(first, (1 - math.cos(math.pi * share)) / 2)


def evaluate(
    model: nn.Module, split: Split, prepare: Callable[[torch.Tensor], torch.Tensor], run: Run
) -> dict[str, float]:
    """Mean loss and accuracy over the whole split, as it is; between batches the run may be interrupted."""
    import torch
    from torch.nn.functional import cross_entropy

    model.eval()
    loss = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    hits = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    with torch.inference_mode():
        at_once = EVALUATION_BATCH * run.ranks.size
        for batch in zip(torch.split(split.images, at_once), torch.split(split.labels, at_once), strict=True):
            run.check()
            images, labels = map(run.ranks.share, batch)
            with mixed_precision(labels.device):
                logits = model(prepare(images)).float()
            loss += cross_entropy(logits, labels, reduction="sum")
            hits += (logits.argmax(1) == labels).sum()
    loss, hits = run.ranks.sum(loss), run.ranks.sum(hits)
    return {"val_loss": loss.item() / len(split.labels), "val_accuracy": hits.item() / len(split.labels)}
