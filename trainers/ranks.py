"""Several processes that train one model, as `torchrun` starts them: who leads, and what they add up.

Each takes its share of a step's samples, so that what is trained does not depend on how many they are. Gradients are
summed over the processes after the step's last sample; what one was told to do, stopping above all, all do at the same
step. The first alone reports, writes and keeps a record. `Run` has them as `run.ranks`.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainers.reporting import BadInput

if TYPE_CHECKING:
    import torch
    from torch import nn

FAILURE_FILE = "SIGNALBOX_FAILURE_FILE"  # the variable by which `trainers.launch` names it
BUCKET_BYTES = 32 << 20  # of gradients in one sum: enough for a network's full pace, little beside the gradients


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local: int = 0  # on this machine

    @classmethod
    def from_environment(cls) -> Ranks:
        """As torchrun says; a process of its own where it says nothing."""
        rank, size, local = (int(os.environ.get(name) or default) for name, default in _NAMES.items())
        return cls(rank=rank, size=size, local=local) if size > 1 else cls()

    @property
    def leads(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def silence(self, args: argparse.Namespace) -> None:
        """Keep a process that does not lead from reporting: nothing on standard output, no record in MLflow."""
        if not self.leads:
            args.experiment = None
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as it runs
            for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
                os.environ.pop(name, None)

    def device(self, name: str) -> torch.device:
        """Each process's own GPU of its machine, or the CPU; `BadInput` if there are too few."""
        import torch

        if name != "cuda" or self.size == 1:
            return torch.device(name)
        if self.local >= torch.cuda.device_count():
            raise BadInput(
                f"This machine shows {torch.cuda.device_count()} GPUs to process {self.local + 1} on it; "
                "start as many processes a machine as it has GPUs, or train with --device cpu."
            )
        device = torch.device("cuda", self.local)
        torch.cuda.set_device(device)
        return device

    def join(self, device: torch.device) -> None:
        """Meet the other processes."""
        if self.size > 1:
            from torch import distributed

            # What is said beside the GPUs' sums (a flag) goes through the CPU and makes no GPU wait.
            distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
            atexit.register(distributed.destroy_process_group)

    def share(self, samples: torch.Tensor) -> torch.Tensor:
        """This process's part of a step's samples: (n, …) → (≤ n, …). It has none where there are too few."""
        return samples[self.rank :: self.size]

    def any(self, flag: bool) -> bool:
        """Whether any of the processes says so. All must ask equally often."""
        if self.size == 1:
            return flag
        import torch

        return bool(self.sum(torch.tensor(int(flag))).item())

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The value, in place made that of all processes together."""
        if self.size > 1:
            from torch import distributed

            distributed.all_reduce(value)
        return value

    def sum_gradients(self, parameters: Iterable[nn.Parameter], at_once: int = BUCKET_BYTES) -> None:
        """Give every process the sum of all processes' gradients, the same bits everywhere.

        Small ones are summed together, in copies of at most `at_once` bytes. torch's DistributedDataParallel would
        start while the way back is still computed, but it keeps buckets of all gradients from step to step, and
        averages over processes instead of summing over samples.
        """
        if self.size == 1:
            return
        import torch

        for bucket in _buckets((one.grad for one in parameters if one.grad is not None), at_once):
            if len(bucket) == 1:
                self.sum(bucket[0])
                continue
            summed = self.sum(torch.cat([gradient.flatten() for gradient in bucket]))
            parts = torch.split(summed, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def tell_launcher(code: int) -> None:
    """Leave the exit status of a failure for `trainers.launch`, which torchrun does not tell it after a signal."""
    if file := os.environ.get(FAILURE_FILE):
        with contextlib.suppress(OSError), Path(file).open("x", encoding="ascii") as first:
            first.write(str(int(code)))


def _buckets(tensors: Iterable[torch.Tensor], at_once: int) -> Iterator[list[torch.Tensor]]:
    """The tensors in their order, of one type and at most so many bytes together, or alone."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        held = sum(one.nbytes for one in bucket)
        if bucket and (held + tensor.nbytes > at_once or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


_NAMES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
