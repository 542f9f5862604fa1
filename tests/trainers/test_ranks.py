"""What several processes add up, by real processes that meet in a file."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.distributed.launcher.api import LaunchConfig

from trainers.ranks import Ranks

SHAPES = ((3,), (20, 20), (7, 5), (), (300, 10), (2, 2))  # in buckets of 1,600 bytes: the second and the fifth alone
AT_ONCE = 1600


def _summed(rank: int, meet: Path, found: multiprocessing.SimpleQueue[list[list[float]]]) -> None:
    distributed.init_process_group("gloo", init_method=meet.as_uri(), rank=rank, world_size=2)
    calls: list[int] = []
    all_reduce = distributed.all_reduce
    distributed.all_reduce = lambda tensor: (calls.append(tensor.numel()), all_reduce(tensor))[1]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    for number, one in enumerate(parameters[:-1]):
        one.grad = torch.full_like(one, 10.0**rank * (number + 1))
    Ranks(rank=rank, size=2).sum_gradients(parameters, AT_ONCE)
    found.put([[float(n) for n in calls], *([one.grad.min().item(), one.grad.max().item()] for one in parameters[:-1])])
    assert parameters[-1].grad is None
    distributed.destroy_process_group()


def test_torchrun_leaves_its_processes_the_time_that_the_engine_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "117")
    assert LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2).shutdown_timeout == 117


def test_gradients_are_summed_in_few_sums_and_land_where_they_belong(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    found = context.SimpleQueue()
    processes = [context.Process(target=_summed, args=(rank, tmp_path / "meet", found)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    for calls, *gradients in (found.get(), found.get()):
        assert calls == [3, 400, 36, 3000]
        for number, ends in enumerate(gradients):
            assert ends == pytest.approx([11.0 * (number + 1)] * 2)
