"""The language model, on a tiny random GPT-2 and text of the test's own making; no hub is asked."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from tests.trainers.conftest import ALONE, Trainers, finish
from tests.trainers.language import make_folder
from trainers.distilgpt2 import learning_rate_share, parse
from trainers.packing import to_blocks
from trainers.reporting import BadInput
from trainers.texts import Text, read_text

ARGS = ("distilgpt2", "--model", "tiny", "--dataset", "text", "--block-size", 32, "--lr", 0.003, "--epochs", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


def test_perplexity_falls_and_interruption_changes_nothing(trainers: Trainers, folder: Path, tmp_path: Path) -> None:
    args = (*ARGS, "--data-dir", folder, "--output-dir")
    uninterrupted = trainers.started(*args, tmp_path / "whole", **ALONE)
    stopped = trainers.interrupted(*args, tmp_path / "parts", after=lambda event: event["event"] == "progress", **ALONE)
    assert stopped.code == 4, stopped.stderr
    resumed = trainers(*args, tmp_path / "parts", "--resume", **ALONE)
    assert resumed.code == 0, resumed.stderr
    whole = finish(uninterrupted)
    assert whole.code == 0, whole.stderr
    epochs = [event["metrics"] for event in whole.events if event["event"] == "epoch"]
    baseline, last = epochs[0], whole.event("result")["metrics"]
    assert len(epochs) == 3
    assert 150 < baseline["val_perplexity"] < 400  # a model that knows nothing guesses among 256 bytes
    assert last["val_perplexity"] < baseline["val_perplexity"] / 4
    assert last["val_perplexity"] == pytest.approx(math.exp(last["val_loss"]))

    assert resumed.event("result")["metrics"]["val_loss"] == last["val_loss"]
    weights = [(tmp_path / part / "model" / "model.safetensors").read_bytes() for part in ("whole", "parts")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("args", [("--model", "absent"), ("--dataset", "absent"), ("--dataset", "absent" * 50)])
def test_what_is_not_there_is_named_fast(
    trainers: Trainers, folder: Path, tmp_path: Path, args: tuple[str, str]
) -> None:
    started = time.monotonic()
    offline = "0" if "--model" in args else "1"  # once with a hub that does not answer, once without asking
    env = {"HF_HUB_OFFLINE": offline, "HF_ENDPOINT": "http://127.0.0.1:9"}
    outcome = trainers(*ARGS, "--data-dir", folder, "--output-dir", tmp_path, *args, **env)
    assert outcome.code == 2
    assert str(folder / args[1]) in outcome.event("error")["message"]
    assert time.monotonic() - started < 60  # the hub's library alone waits for minutes


def test_text_that_brings_no_validation_part_lends_its_end(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "tiny")
    args = parse(["--dataset", "short.txt", "--block-size", "32", "--data-dir", str(folder)])
    lines = read_text("text", folder).train
    blocks = to_blocks(Text(lines, None), args, tokenizer)
    text = "".join(lines)
    held_out = round(0.05 * (len(text) // 32))
    assert len(blocks.train) == len(text) // 32 - held_out
    assert tokenizer.decode(blocks.train[0]) + tokenizer.decode(blocks.train[1]) == text[:64]
    assert blocks.words == len(text[len(text) // 32 * 32 - held_out * 32 : len(text) // 32 * 32].split())
    with pytest.raises(BadInput, match="smaller block size"):
        to_blocks(read_text("short.txt", folder), args, tokenizer)


def test_the_parts_of_a_folder_are_told_by_name(folder: Path, tmp_path: Path) -> None:
    text = read_text("text", folder)
    assert (len(text.train), text.validation[0]) == (400, "signal 0 is red\n")
    assert read_text("short.txt", folder).validation is None
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(BadInput, match="UTF-8"):
        read_text("latin.txt", tmp_path)


def test_the_learning_rate_rises_and_falls() -> None:
    shares = [learning_rate_share(step / 1000) for step in range(1001)]
    assert max(shares) == pytest.approx(1.0)
    assert shares[0] == 0.0 and shares[-1] == pytest.approx(0.1)
    assert shares.index(max(shares)) == 60
