"""What every trainer shares: arguments, divergence, checkpoints."""

from __future__ import annotations

import argparse
import resource

import pytest
import torch

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


@pytest.mark.parametrize("ruin", ["loss", "weight"])
def test_what_has_diverged_never_replaces_a_good_checkpoint(run, ruin):
    model = torch.nn.Linear(1, 1)
    with run.training(samples=64, device=torch.device("cpu"), parts={"model": model}):
        run.save()
        good = run.checkpoint.read_bytes()
        if ruin == "loss":
            run.position.sums["loss"] = torch.tensor(float("nan"))
        else:
            model.weight.data.fill_(float("inf"))
        with pytest.raises(TrainerError, match="train with a learning rate below"):
            run.save()
    assert run.checkpoint.read_bytes() == good


def test_a_full_disk_leaves_the_checkpoint_of_before(run):
    model = torch.nn.Linear(100, 1000)
    with run.training(samples=64, device=torch.device("cpu"), parts={"model": model}):
        run.save()
        good = run.checkpoint.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(TrainerError, match="free some space"):
                run.save()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.checkpoint.read_bytes() == good
    assert [path.name for path in run.checkpoint.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(("asked", "least"), [(None, 100.0), (0.0, 0.0), (5.0, 5.0)])
def test_checkpoints_come_as_often_as_asked_and_else_as_their_writing_allows(run, monkeypatch, asked, least):
    run.args.checkpoint_seconds = asked
    clock = iter(range(0, 1000, 2))  # writing one takes two seconds
    monkeypatch.setattr("trainers.run.time.monotonic", lambda: float(next(clock)))
    with run.training(samples=64, device=torch.device("cpu"), parts={"model": torch.nn.Linear(1, 1)}):
        run.save()
        assert run._interval == least


def test_every_sample_comes_once_an_epoch_in_another_order(run):
    with run.training(samples=100, device=torch.device("cpu"), parts={}):
        first = torch.cat(list(run.batches()))
        run.position.epoch = 2
        second = torch.cat(list(run.batches()))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
    assert not torch.equal(first, second)
