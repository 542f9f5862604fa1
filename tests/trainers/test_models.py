"""Models that cannot be trained, first steps that diverge, and checkpoints of something else: one sentence each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

from tests.trainers.conftest import ALONE, Trainers, finish
from tests.trainers.language import make_folder
from trainers.causal_model import load_model
from trainers.reporting import BadInput

ARGS = ("distilgpt2", "--dataset", "text", "--block-size", 32, "--lr", 0.003, "--max-steps", 2)
SHAPE = {"vocab_size": 256, "n_positions": 64, "n_embd": 32, "n_head": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


def truncated_weights(model: Path) -> None:
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def broken_config(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "gpt')


def no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def some_weights(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if ".h.1." not in name}
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})


def no_tokenizer(model: Path) -> None:
    for file in model.glob("tokenizer*"):
        file.unlink()


def encoder(model: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=256, max_position_embeddings=64, **shape)).save_pretrained(model)


def not_a_number(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["transformer.wte.weight"][0] = torch.nan
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def ruined(folder: Path, ruin: Callable[[Path], None]) -> str:
    model = folder / f"model-{ruin.__name__}"
    shutil.copytree(folder / "tiny", model)
    ruin(model)
    return model.name


@pytest.mark.parametrize(
    ("ruin", "told"),
    [
        (truncated_weights, "/model.safetensors is damaged"),
        (broken_config, "/config.json is damaged"),
        (no_weights, "holds no model.safetensors"),
        (some_weights, "12 of them are missing or of another shape, transformer.h.1."),
        (no_tokenizer, "has no tokenizer; put its tokenizer.json into"),
        (encoder, "/config.json), which does not write text from left to right; choose a causal"),
    ],
)
def test_a_model_that_cannot_be_trained_is_named(folder: Path, ruin: Callable[[Path], None], told: str) -> None:
    with pytest.raises(BadInput) as refused:
        load_model(ruined(folder, ruin), folder, 32)
    assert told in str(refused.value) and "hub" not in str(refused.value)


@pytest.mark.parametrize(
    ("ruin", "told"),
    [
        (encoder, "/config.json), which does not write text from left to right; choose a causal"),
        (not_a_number, "The loss is nan before any training, so the model's weights are damaged"),
    ],
)
def test_nothing_is_trained_of_it(trainers: Trainers, tmp_path: Path, ruin: Callable[[Path], None], told: str) -> None:
    model = ruined(make_folder(tmp_path / "data"), ruin)
    outcome = trainers(*ARGS, "--model", model, "--data-dir", tmp_path / "data", "--output-dir", tmp_path, **ALONE)
    assert outcome.code == 2, outcome.stderr
    assert told in outcome.event("error")["message"] and "Traceback" not in outcome.stderr
    assert not (tmp_path / "checkpoint.pt").exists()


def test_what_a_model_does_not_support_is_told_before_training(
    trainers: Trainers, folder: Path, tmp_path: Path
) -> None:
    cannot = {
        "--gradient-checkpointing": OpenAIGPTLMHeadModel(OpenAIGPTConfig(**SHAPE, n_layer=1)),
        "--lora-rank=4": GPT2LMHeadModel(GPT2Config(**SHAPE, n_layer=0, bos_token_id=0, eos_token_id=0)),
    }
    started = []
    for option, model in cannot.items():
        name = type(model).__name__
        shutil.copytree(folder / "tiny", folder / name)
        model.save_pretrained(folder / name)
        args = (*ARGS, "--model", name, "--data-dir", folder, "--output-dir", tmp_path, option)
        started.append(trainers.started(*args, **ALONE))
    for told, outcome in zip(
        ("does not support --gradient-checkpointing; train without it", "takes no LoRA adapters"),
        map(finish, started),
        strict=True,
    ):
        assert outcome.code == 2, outcome.stderr
        assert told in outcome.event("error")["message"]
        assert [event["event"] for event in outcome.events] == ["error"] and "Traceback" not in outcome.stderr


def test_a_first_step_that_diverges_leaves_nothing_of_it(trainers: Trainers, folder: Path, tmp_path: Path) -> None:
    model = folder / "steep"
    shutil.copytree(folder / "tiny", model)
    weights = load_file(model / "model.safetensors")
    weights["transformer.h.0.mlp.c_fc.bias"][:] = 1e30  # its loss is a number, the slope there is none
    weights["transformer.h.0.mlp.c_proj.weight"][:] = 0
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "checkpoint.pt").write_bytes(b"of another training")
    args = (*ARGS, "--model", "steep", "--data-dir", folder, "--output-dir")
    often = trainers.started(*args, tmp_path / "new", "--checkpoint-seconds", 0, **ALONE)
    old = trainers(*args, tmp_path / "old", **ALONE)
    new = finish(often)
    for step, outcome in ((2, old), (1, new)):  # the weights are looked at before they are saved
        assert outcome.code == 1, outcome.stderr
        told = f"The loss is nan at step {step}; train with a learning rate below 0.003."
        assert outcome.event("error")["message"] == told
        assert "Traceback" not in outcome.stderr
    assert "is kept" in new.notes() and "checkpoint" not in old.notes()
    assert (tmp_path / "old" / "checkpoint.pt").read_bytes() == b"of another training"
    kept = torch.load(tmp_path / "new" / "checkpoint.pt", weights_only=True)
    assert kept["position"]["batch"] == 0 and kept["position"]["epoch"] == 1
    assert all(weight.isfinite().all() for weight in kept["parts"]["model"].values())


def test_no_training_goes_on_from_other_data_or_another_model(trainers: Trainers, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    args = (*ARGS, "--model", "tiny", "--lora-rank", 4, "--data-dir", folder, "--output-dir", tmp_path / "out")
    first = trainers(*args, **ALONE)
    assert first.code == 0, first.stderr
    checkpoint = (tmp_path / "out" / "checkpoint.pt").read_bytes()
    text = folder / "text" / "train.txt"
    before = text.read_text()
    text.write_text(before.replace("signal 8 is red", "signal 8 is lit"))
    assert_refused(trainers, args, "The training data have changed since the checkpoint")
    text.write_text(before)
    torch.manual_seed(1)
    config = json.loads((folder / "tiny" / "config.json").read_text())
    GPT2LMHeadModel(GPT2Config(**config)).save_pretrained(folder / "tiny")
    assert_refused(trainers, args, "The model's frozen weights have changed since the checkpoint")
    assert (tmp_path / "out" / "checkpoint.pt").read_bytes() == checkpoint


def assert_refused(trainers: Trainers, args: tuple[object, ...], told: str) -> None:
    outcome = trainers(*args, "--resume", **ALONE)
    assert outcome.code == 2, outcome.stderr
    message = outcome.event("error")["message"]
    assert told in message and message.endswith("or without --resume."), message
