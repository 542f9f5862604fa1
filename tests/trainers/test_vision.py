"""What the image trainers share: bytes to numbers, augmentation, the optimiser, the schedule, the evaluation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.trainers.conftest import ONE_NODE, finish, interrupt
from trainers.mnist_cnn import build_model, parse
from trainers.run import Interruption, Run
from trainers.vision import AdamW, Split, Standardise, evaluate, flipped, one_cycle, shifted


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (64, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_each_channel_gets_mean_0_and_deviation_1(images):
    images[:, 1] //= 8
    made = Standardise.of(images)(images)
    torch.testing.assert_close(made.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(made.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_an_image_is_moved_as_a_whole_and_by_no_more_than_was_said(images, mode):
    torch.manual_seed(0)
    moved = shifted(images, 2, mode)
    assert (moved.shape, moved.dtype) == (images.shape, images.dtype)
    padded = torch.nn.functional.pad(images.float(), (2,) * 4, mode=mode).to(torch.uint8)
    seen = set()
    for before, after in zip(padded, moved, strict=True):
        places = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(before[:, down : down + 12, right : right + 12], after)
        ]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 15  # of 25: each image has a place of its own


def test_about_half_of_the_images_are_mirrored_and_the_others_left(images):
    torch.manual_seed(0)
    made = flipped(images)
    same = sum(torch.equal(before, after) for before, after in zip(images, made, strict=True))
    mirrored = sum(torch.equal(before.flip(2), after) for before, after in zip(images, made, strict=True))
    assert same + mirrored == len(images) and 16 < same < 48


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_optimiser_gives_the_numbers_of_torch(layout):
    torch.manual_seed(0)
    ours, theirs = build_model(side=28).to(memory_format=layout), build_model(side=28)
    theirs.load_state_dict(ours.state_dict())
    mine = AdamW(ours, (0.9, 0.99), 0.01)
    assert all(p.is_contiguous(memory_format=layout) for p in ours.parameters() if p.dim() == 4)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.01)
    for _ in range(5):
        images = torch.randn(16, 1, 28, 28)
        for model in (ours.eval(), theirs.eval()):
            model(images).square().mean().backward()
        mine.step(0.01)
        reference.step()
        reference.zero_grad()
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(left, right, atol=1e-4, rtol=1e-3)


def test_the_learning_rate_rises_and_falls():
    rates = [one_cycle(2.0, step / 1000, warmup=0.3, first=0.04) for step in range(1001)]
    assert (max(rates), rates.index(max(rates))) == (pytest.approx(2.0), 300)
    assert rates[0] == rates[-1] == pytest.approx(0.08)
    assert rates[:301] == sorted(rates[:301]) and rates[300:] == sorted(rates[300:], reverse=True)


def test_every_image_counts_once_in_an_evaluation(tmp_path, monkeypatch):
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    run = Run("test", parse(["--output-dir", str(tmp_path)]), Interruption())
    torch.manual_seed(0)
    split = Split(torch.randint(0, 256, (1203, 1, 4, 4), dtype=torch.uint8), torch.randint(0, 10, (1203,)))
    model, standardise = nn.Sequential(nn.Flatten(), nn.Linear(16, 10)), Standardise.of(split.images)
    with run.training(samples=1, device=torch.device("cpu"), parts={}):
        found = evaluate(model, split, standardise, run)
    logits = model(standardise(split.images))
    assert found["val_accuracy"] == pytest.approx((logits.argmax(1) == split.labels).float().mean().item(), abs=0.01)
    assert found["val_loss"] == pytest.approx(cross_entropy(logits, split.labels).item(), rel=0.01)


def test_two_processes_train_what_one_does_and_go_on_from_where_they_stopped(trainers, tmp_path):
    # 1,438 images in steps of 479 and a last one of a single image, of which the second process has none.
    args = ("tests.trainers.exact_cnn", "--epochs", 12, "--batch-size", 479, "--output-dir")
    alone = finish(trainers.together(*args, tmp_path / "alone", env=ONE_NODE | {"PET_NPROC_PER_NODE": "1"}))
    assert alone.code == 0, alone.stderr
    stopped = interrupt(trainers.together(*args, tmp_path / "both"), lambda event: event["event"] == "progress")
    assert stopped.code == 4 and "--resume goes on from it" in stopped.notes(), stopped.stderr
    both = finish(trainers.together(*args, tmp_path / "both", "--resume"))
    assert both.code == 0, both.stderr
    both.event("started")  # the only one: one of them reports
    one, two = (outcome.event("result")["metrics"] for outcome in (alone, both))
    for name in ("train_loss", "val_loss", "val_accuracy"):
        assert two[name] == pytest.approx(one[name], rel=5e-3), name
    first, second = (torch.load(tmp_path / part / "checkpoint.pt", weights_only=True) for part in ("alone", "both"))
    for name in ("2.running_var", "6.running_var", "2.num_batches_tracked"):
        # As a whole: where a channel's gradient is next to nothing, Adam makes full steps of its rounding.
        here, there = (one["parts"]["model"][name].float() for one in (first, second))
        assert (here - there).norm() <= 2e-2 * here.norm(), name
