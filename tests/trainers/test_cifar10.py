"""The CNN on images in CIFAR-10's two formats, made up by the test: layout, hostile files, learning, kills."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy
import pytest
import torch

from tests.trainers.conftest import ALONE
from tests.trainers.killing import assert_kills_change_nothing
from trainers.cifar10 import BATCHES, TEST, load, read_binary, read_pickle
from trainers.reporting import BadInput

COUNT = 32  # images a file


def made_up(part: int) -> tuple[numpy.ndarray, list[int]]:
    """Pixels (COUNT, 3072) and labels: class k is a stripe of one colour at row 3k."""
    chance = numpy.random.default_rng(part)
    images = chance.integers(0, 90, (COUNT, 3, 32, 32), dtype=numpy.uint8)
    labels = [(number + part) % 10 for number in range(COUNT)]
    for image, label in zip(images, labels, strict=True):
        image[label % 3, 3 * label : 3 * label + 4] += 150
    return images.reshape(COUNT, -1), labels


def write_cifar10(folder: Path, kind: str) -> Path:
    """All six files; the folder they are in."""
    inner = folder / f"cifar-10-batches-{kind}"
    inner.mkdir(parents=True)
    for part, name in enumerate((*BATCHES, TEST)):
        pixels, labels = made_up(part)
        if kind == "py":
            content = {b"batch_label": b"made up", b"labels": labels, b"data": pixels, b"filenames": [b"x.png"] * COUNT}
            (inner / name).write_bytes(pickle.dumps(content, protocol=2))
        else:
            rows = numpy.concatenate([numpy.array(labels, dtype=numpy.uint8)[:, None], pixels], axis=1)
            (inner / f"{name}.bin").write_bytes(rows.tobytes())
    return inner


def test_both_formats_give_the_same_images(tmp_path: Path) -> None:
    for kind in ("py", "bin"):
        write_cifar10(tmp_path / kind, kind)
    (train, test), (binary, binary_test) = (load(tmp_path / kind, offline=True) for kind in ("py", "bin"))
    assert train.images.shape == (5 * COUNT, 3, 32, 32) and len(test.labels) == COUNT
    pixels, labels = made_up(0)
    assert torch.equal(train.images[:COUNT].flatten(1), torch.from_numpy(pixels))
    assert train.labels[:COUNT].tolist() == labels
    for left, right in ((train, binary), (test, binary_test)):
        assert torch.equal(left.images, right.images) and torch.equal(left.labels, right.labels)


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    pixels, labels = made_up(0)
    old = pickle.dumps({b"labels": labels, b"data": pixels}, protocol=2).replace(
        b"numpy._core.multiarray", b"numpy.core.multiarray"
    )
    (tmp_path / "old").write_bytes(old)
    assert torch.equal(read_pickle(tmp_path / "old").images.flatten(1), torch.from_numpy(pixels))


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(pickle.dumps({b"data": Hostile(tmp_path / "made"), b"labels": []}))
    with pytest.raises(BadInput, match=r"asks for posix\.mkdir"):
        read_pickle(tmp_path / "bad")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("damage", [lambda c: c[:-7], lambda c: b"", lambda c: b"\xff" * len(c), lambda c: c[:9]])
def test_whatever_is_wrong_with_a_file_is_told(tmp_path: Path, damage) -> None:
    for kind, read in (("py", read_pickle), ("bin", read_binary)):
        path = next(iter(sorted(write_cifar10(tmp_path / kind, kind).iterdir())))
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(BadInput, match="fetch it again") as told:
            read(path)
        assert str(path) in str(told.value)


def test_missing_files_are_named(trainers, tmp_path: Path) -> None:
    (write_cifar10(tmp_path, "bin") / "data_batch_3.bin").unlink()
    outcome = trainers("cifar10", "--data-dir", tmp_path, "--output-dir", tmp_path / "out")
    assert outcome.code == 2
    message = outcome.event("error")["message"]
    assert "data_batch_3.bin" in message and "data_batch_2" not in message and str(tmp_path) in message
    absent = trainers("cifar10", "--data-dir", tmp_path / "absent", "--output-dir", tmp_path / "out", "--offline")
    assert absent.code == 2 and "CIFAR-10 is not complete" in absent.event("error")["message"]


def test_it_learns_and_kills_change_nothing(trainers, tmp_path: Path) -> None:
    write_cifar10(tmp_path, "py")
    args = ("cifar10", "--data-dir", tmp_path, "--epochs", 4, "--batch-size", 16, "--lr", 0.003)
    last = assert_kills_change_nothing(trainers, tmp_path, *args, seed=1, **ALONE)
    assert last.event("result")["metrics"]["val_accuracy"] > 0.5
