"""Batch norm over the samples of all processes that train one network together.

What a network learns must not depend on how many processes share a step, and batch norm looks at the whole step.
torch's own SyncBatchNorm does that on GPUs only; this is the same on any device, in three sums a channel.

This module imports torch; trainers import it where they train.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from trainers.ranks import Ranks


def over_whole_batches(model: nn.Sequential, ranks: Ranks) -> nn.Sequential:
    """The same layers to train by, all of the model's own; only its batch norms look at every process's samples."""
    return nn.Sequential(*(_WholeBatchNorm(one, ranks) if isinstance(one, nn.BatchNorm2d) else one for one in model))


class _Sum(torch.autograd.Function):
    """Over all processes; since each one's part is in the sum that all use, so are their gradients."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Any:
        part, ctx.ranks = given
        return ctx.ranks.sum(part.clone())

    @staticmethod
    def backward(ctx: Any, *outer: Any) -> Any:
        return ctx.ranks.sum(outer[0].clone()), None


class _WholeBatchNorm(nn.Module):
    """Trains a batch norm of torch's, which keeps weights and running statistics: those are the same everywhere."""

    def __init__(self, norm: nn.BatchNorm2d, ranks: Ranks) -> None:
        super().__init__()
        self._norm, self._ranks = norm, ranks

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """(n, channels, height, width) → the same, n being this process's samples, also none."""
        norm, shape = self._norm, (1, -1, 1, 1)
        running, variances = norm.running_mean, norm.running_var
        assert running is not None and variances is not None and norm.momentum is not None
        # Around the running mean, which all have alike: a variance from sums of large squares would lose digits.
        values = given.float() - running.view(shape)
        places = values.new_full((1,), values.numel() / values.shape[1])
        own = [values.sum((0, 2, 3)), values.square().sum((0, 2, 3)), places]
        everywhere = cast("torch.Tensor", _Sum.apply(torch.cat(own), self._ranks))
        sums, squares, count = torch.split(everywhere, [values.shape[1], values.shape[1], 1])
        mean = sums / count
        variance = squares / count - mean.square()
        with torch.no_grad():
            running.add_(mean, alpha=norm.momentum)
            variances.lerp_(variance * count / (count - 1), norm.momentum)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(1)
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        return torch.addcmul(norm.bias.view(shape), values - mean.view(shape), scale.view(shape)).to(given.dtype)
