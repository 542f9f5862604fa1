"""The CNN on digits and on MNIST's files: accuracy, data layout, bad input, interruption."""

from __future__ import annotations

import gzip
import math
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.trainers.conftest import ALONE, finish
from tests.trainers.killing import assert_kills_change_nothing
from trainers.mnist_cnn import DEFAULTS, read_idx
from trainers.reporting import BadInput

SIZES = {"train": 300, "t10k": 60}


def write_mnist(folder: Path) -> None:
    """Small IDX files in torchvision's layout, labels compressed: an image of class k has a bright bar at row 2k."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for part, count in SIZES.items():
        labels = torch.arange(count) % 10
        images = torch.randint(0, 60, (count, 28, 28), generator=generator)
        for image, label in zip(images, labels, strict=True):
            image[2 * label : 2 * label + 2] += 180
        for kind, tensor in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, tensor.dim()]) + b"".join(size.to_bytes(4, "big") for size in tensor.shape)
            content = header + tensor.to(torch.uint8).numpy().tobytes()
            if kind == "labels-idx1":
                (raw / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
            else:
                (raw / f"{part}-{kind}-ubyte").write_bytes(content)


def test_digits_are_learnt_in_two_epochs_whatever_the_seed(trainers, tmp_path):
    args = ("mnist_cnn", "--epochs", 2, "--lr", 0.002)
    processes = [
        trainers.started(*args, "--seed", seed, "--output-dir", tmp_path / str(seed), **ALONE) for seed in range(5)
    ]
    for outcome in map(finish, processes):
        assert outcome.code == 0, outcome.stderr
        result = outcome.event("result")
        assert result["metrics"]["val_accuracy"] >= 0.95
        assert all(math.isfinite(value) for value in result["metrics"].values())
        assert {"train_loss", "train_accuracy", "val_loss"} <= set(result["metrics"])
        assert outcome.events[0] == {"event": "started", "steps": 90, "epochs": 2, "device": "cpu", "run_id": None}
        progress = [event for event in outcome.events if event["event"] == "progress"]
        assert progress[-1]["step"] == 90
        assert len(progress) <= 2 + 2 * result["duration_seconds"]
        assert [event["epoch"] for event in outcome.events if event["event"] == "epoch"] == [1, 2]


def test_mnist_is_read_from_a_folder(trainers, tmp_path):
    write_mnist(tmp_path)
    args = ("--dataset", "mnist", "--epochs", 4, "--lr", 0.003, "--output-dir", tmp_path / "out")
    outcome = trainers("mnist_cnn", *args, SIGNALBOX_DATA_DIR=str(tmp_path))
    assert outcome.code == 0, outcome.stderr
    assert outcome.event("started")["steps"] == 4 * math.ceil(SIZES["train"] / DEFAULTS["mnist"]["batch_size"])
    assert outcome.event("result")["metrics"]["val_accuracy"] > 0.9


def test_missing_files_are_named(trainers, tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    outcome = trainers("mnist_cnn", "--dataset", "mnist", "--data-dir", tmp_path, "--output-dir", tmp_path)
    assert outcome.code == 2
    message = outcome.event("error")["message"]
    assert str(tmp_path / "MNIST/raw") in message
    assert "t10k-labels-idx1-ubyte" in message and "train-images" not in message


def test_a_download_without_a_network_fails_fast(trainers, tmp_path):
    started = time.monotonic()
    no_network = {"HF_HUB_OFFLINE": "0", "https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    args = ("--dataset", "mnist", "--data-dir", tmp_path, "--output-dir", tmp_path)
    outcome = trainers("mnist_cnn", *args, **no_network)
    assert outcome.code == 2
    assert "could not be downloaded" in outcome.notes()
    assert time.monotonic() - started < 100  # torchvision alone waits for minutes


def test_a_corrupt_file_is_bad_input(trainers, tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-7])
    outcome = trainers("mnist_cnn", "--dataset", "mnist", "--data-dir", tmp_path, "--output-dir", tmp_path)
    assert outcome.code == 2
    assert str(path) in outcome.event("error")["message"]
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize("damage", [lambda c: b"<html>" + c, lambda c: c + b"more", lambda c: b"", lambda c: c[:9]])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"])
def test_whatever_is_wrong_with_a_file_is_told(tmp_path, name, damage):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST/raw" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match="fetch it again"):
        read_idx(path)


def test_a_full_disk_is_a_failure_with_a_sentence(trainers, tmp_path):
    def small_disk() -> None:  # a limit on a file's size stops a write as a full disk does
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    outcome = trainers("mnist_cnn", "--epochs", 1, "--output-dir", tmp_path, before=small_disk)
    assert outcome.code == 1
    assert "checkpoint could not be written" in outcome.event("error")["message"]
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_gpu_is_bad_input(trainers, tmp_path):
    outcome = trainers("mnist_cnn", "--device", "cuda", "--output-dir", tmp_path, CUDA_VISIBLE_DEVICES="")
    assert outcome.code == 2
    assert "GPU" in outcome.event("error")["message"]


def test_interrupted_and_resumed_is_as_if_never_interrupted(trainers, tmp_path):
    args = ("mnist_cnn", "--epochs", 12, "--seed", 3, "--output-dir")
    uninterrupted = trainers.started(*args, tmp_path / "whole", **ALONE)
    # The progress line comes in the midst of an epoch, the epoch line at its end; both must be taken up again.
    stops = [lambda event: event["event"] == "progress" and event["step"] > 45, lambda event: event.get("epoch") == 8]
    first = trainers.interrupted(*args, tmp_path / "parts", after=stops[0], **ALONE)
    second = trainers.interrupted(*args, tmp_path / "parts", "--resume", after=stops[1], **ALONE)
    for outcome in (first, second):
        assert outcome.code == 4, outcome.stderr
        assert "checkpoint" in outcome.notes()
        assert not [event for event in outcome.events if event["event"] in ("result", "error")]
    last = trainers(*args, tmp_path / "parts", "--resume", **ALONE)
    whole = finish(uninterrupted)
    assert last.code == 0, last.stderr
    assert "goes on in epoch" in last.notes()

    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        assert last.event("result")["metrics"][name] == whole.event("result")["metrics"][name]
    expected, actual = (
        torch.load(tmp_path / part / "checkpoint.pt", weights_only=True)["parts"] for part in ("whole", "parts")
    )
    for name, tensor in expected["model"].items():
        assert torch.equal(tensor, actual["model"][name]), name
    assert torch.equal(expected["optimizer"]["mean"], actual["optimizer"]["mean"])


def test_killed_at_any_moment_and_resumed_is_as_if_never_killed(trainers, tmp_path):
    args = ("--epochs", 50, "--max-steps", 520, "--seed", 5)  # 45 an epoch, the last of them cut short
    outcome = assert_kills_change_nothing(trainers, tmp_path, "mnist_cnn", *args, **ALONE)
    assert outcome.event("started")["steps"] == 520
    assert outcome.event("result")["metrics"]["val_accuracy"] >= 0.95
    epochs = [event["epoch"] for event in outcome.events if event["event"] == "epoch"]
    assert epochs[-1:] == [12], "evaluated at its end"


def test_an_early_signal_ends_with_the_status_of_an_interruption(trainers, tmp_path):
    with trainers.started("mnist_cnn", "--output-dir", tmp_path) as process:
        time.sleep(0.6)  # torch is being imported
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 4, stderr
    assert '"note"' in stdout


def test_resume_starts_fresh_without_a_checkpoint_and_refuses_another_training(trainers, tmp_path):
    args = ("mnist_cnn", "--epochs", 1, "--resume", "--output-dir", tmp_path)
    fresh = trainers(*args)
    assert fresh.code == 0
    assert "no checkpoint" in fresh.notes()
    other = trainers(*args, "--lr", 0.01)
    assert other.code == 2
    assert "lr 0.001, not 0.01" in other.event("error")["message"]
    whole = bytearray((tmp_path / "checkpoint.pt").read_bytes())
    whole[len(whole) // 2] ^= 1  # a weight
    for damaged in (whole, b"nothing that torch wrote"):
        (tmp_path / "checkpoint.pt").write_bytes(damaged)
        corrupt = trainers(*args)
        assert corrupt.code == 2
        assert "cannot be read" in corrupt.event("error")["message"]
