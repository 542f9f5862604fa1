"""What every trainer shares: arguments, divergence, memory."""

from __future__ import annotations

import argparse

import pytest
import torch

from trainers.harness import is_out_of_memory
from trainers.mnist_cnn import parse
from trainers.reporting import TrainerError
from trainers.run import Interruption, Run


@pytest.mark.parametrize(
    ("trainer", "option", "value"),
    [
        ("mnist_cnn", "--epochs", "0"),
        ("mnist_cnn", "--epochs", "101"),
        ("mnist_cnn", "--lr", "nan"),
        ("mnist_cnn", "--lr", "quick"),
        ("mnist_cnn", "--batch-size", "1025"),
        ("mnist_cnn", "--seed", "-1"),
        ("mnist_cnn", "--device", "tpu"),
        ("mnist_cnn", "--nonsense", "1"),
        ("distilgpt2", "--block-size", "8"),
        ("distilgpt2", "--lr", "0.1"),
    ],
)
def test_a_wrong_argument_is_one_sentence(trainers, trainer, option, value):
    outcome = trainers(trainer, option, value)
    assert outcome.code == 2
    assert option in outcome.event("error")["message"]
    assert outcome.stderr.count("\n") == 1


@pytest.fixture
def run(tmp_path, monkeypatch) -> Run:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    args: argparse.Namespace = parse(["--output-dir", str(tmp_path)])
    return Run("test", args, Interruption())


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_diverges_ends_the_training(run, loss):
    model = torch.nn.Linear(1, 1)
    with run.training(samples=64, device=torch.device("cpu"), parts={"model": model}):
        batches = run.batches()
        next(batches)
        run.step_done(32, loss=torch.tensor(1.0))
        next(batches)
        with pytest.raises(TrainerError, match="at step 2; train with a learning rate below"):
            run.step_done(32, loss=torch.tensor(loss))


def test_every_sample_comes_once_an_epoch_in_another_order(run):
    with run.training(samples=100, device=torch.device("cpu"), parts={}):
        first = torch.cat(list(run.batches()))
        run.position.epoch = 2
        second = torch.cat(list(run.batches()))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
    assert not torch.equal(first, second)


def test_failed_allocations_are_told_from_other_errors():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
