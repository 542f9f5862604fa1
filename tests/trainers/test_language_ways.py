"""The language model's trainer by its options, killed, by several processes, and out of memory: as real processes."""

from __future__ import annotations

import re
import resource
import signal
import socket
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainers.conftest import ALONE, Outcome, Trainers, finish, interrupt
from tests.trainers.killing import assert_kills_change_nothing
from tests.trainers.language import make_folder

ARGS = ("--model", "tiny", "--dataset", "text", "--block-size", 32, "--lr", 0.003, "--seed", 3)
WITHOUT_CHANCE = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"))


def metrics(outcome: Outcome) -> list[dict[str, float]]:
    return [event["metrics"] for event in outcome.events if event["event"] == "epoch"]


def test_killed_at_any_moment_the_model_is_the_same(trainers: Trainers, folder: Path, tmp_path: Path) -> None:
    """With all options that keep a state of their own; without them, tests/trainers/test_distilgpt2.py."""
    options = ("--accumulation", 2, "--lora-rank", 4, "--gradient-checkpointing", "--lr", 0.01)
    args = ("distilgpt2", *ARGS, "--data-dir", folder, "--epochs", 6, *options)
    last = assert_kills_change_nothing(trainers, tmp_path, *args, kills=(signal.SIGKILL, signal.SIGTERM), **ALONE)
    assert last.event("result")["metrics"]["val_loss"] < 5.4, "it has learnt something"
    weights = [(tmp_path / part / "model" / "model.safetensors").read_bytes() for part in ("whole", "parts")]
    assert weights[0] == weights[1]
    # Adapters are merged: who loads the folder needs to know nothing of them.
    assert (
        load_file(tmp_path / "parts" / "model" / "model.safetensors").keys()
        == load_file(folder / "tiny" / "model.safetensors").keys()
    )


def test_two_processes_train_what_one_does_and_stop_at_one_step(trainers: Trainers, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, **WITHOUT_CHANCE)
    # 7 blocks a step: no two processes share that evenly, and the last step of an epoch has fewer than two.
    args = (*ARGS, "--data-dir", folder, "--epochs", 2, "--batch-size", 7, "--precision", "fp32")
    alone = trainers("distilgpt2", *args, "--output-dir", tmp_path / "alone", **ALONE)
    assert alone.code == 0, alone.stderr
    both = finish(trainers.together("trainers.distilgpt2", *args, "--output-dir", tmp_path / "both"))
    assert both.code == 0, both.stderr
    both.event("started")  # the only one: one of them reports
    for one, two in zip(metrics(alone), metrics(both), strict=True):
        for name in one.keys() & {"val_loss", "val_word_perplexity", "train_loss"}:  # the last not before training
            assert two[name] == pytest.approx(one[name], rel=1e-4), name
    expected, found = (load_file(tmp_path / part / "model" / "model.safetensors") for part in ("alone", "both"))
    for name, weight in expected.items():
        torch.testing.assert_close(_learnt(name, found[name]), _learnt(name, weight), rtol=1e-4, atol=1e-5)

    process = trainers.together("trainers.distilgpt2", *args, "--output-dir", tmp_path / "stopped")
    stopped = interrupt(process, lambda event: event["event"] == "progress")
    assert stopped.code == 4 and "--resume goes on from it" in stopped.notes(), stopped.stderr
    position: dict[str, Any] = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["position"]
    assert position["batch"] > 0 or position["epoch"] > 1
    resumed = trainers("distilgpt2", *args, "--output-dir", tmp_path / "stopped", "--resume", **ALONE)
    assert resumed.code == 0, resumed.stderr
    assert metrics(resumed)[-1]["val_loss"] == pytest.approx(metrics(alone)[-1]["val_loss"], rel=1e-4)
    nowhere = finish(trainers.together("trainers.distilgpt2", *args[:2], "--dataset", "none.txt", "--data-dir", folder))
    assert nowhere.code == 2, "a cluster must know that another try is in vain"


def _learnt(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Without the keys' bias: softmax takes no notice of it, so Adam makes full steps of what rounding leaves there."""
    if not name.endswith("c_attn.bias"):
        return weight
    query, _, value = weight.chunk(3)
    return torch.cat((query, value))


def test_two_nodes_meet_by_what_a_runtime_tells_them(trainers: Trainers, folder: Path, tmp_path: Path) -> None:
    """The environment that Kubeflow Trainer's torch runtime gives the pods of a TrainJob."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    met = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
    args = (*ARGS, "--data-dir", folder, "--epochs", 1, "--output-dir", tmp_path / "out")
    started = [
        trainers.together("trainers.distilgpt2", *args, env=met | {"PET_NODE_RANK": str(rank)}) for rank in (1, 0)
    ]
    second, first = map(finish, started)
    assert (first.code, second.code) == (0, 0), first.stderr
    assert first.event("result")["metrics"]["val_loss"] > 0 and not second.events, "the first of all reports alone"


def test_a_step_that_does_not_fit_says_what_does(trainers: Trainers, tmp_path: Path) -> None:
    folder = make_folder(tmp_path, n_positions=1024)
    (folder / "long.txt").write_text("a text that is long enough for a step\n" * 2000)

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))

    args = ("distilgpt2", "--model", "tiny", "--dataset", "long.txt", "--data-dir", folder, "--precision", "fp32")
    args += ("--block-size", 1024, "--output-dir", tmp_path / "out", "--batch-size", 64)
    failed = trainers(*args, before=little_memory, **ALONE)
    assert failed.code == 3, failed.stderr
    message = failed.event("error")["message"]
    found = re.search(r"does for (\d+); train with a batch size of (\d+), or with --accumulation (\d+)", message)
    assert found, message
    fits, batch_size, accumulation = map(int, found.groups())
    assert fits == batch_size == 64 // accumulation
    advised = trainers(*args, "--accumulation", accumulation, before=little_memory, **ALONE)
    assert advised.code == 0, advised.stderr


def assert_mlflow_reads_the_model(client: mlflow.MlflowClient, run_id: str, place: Path) -> None:
    """As its own kind and as a function, from the only copy of the weights, where `from_pretrained` finds them too."""
    folder = Path(client.download_artifacts(run_id, "model", str(place)))
    assert [file.name for file in folder.rglob("*.safetensors")] == ["model.safetensors"]
    described = mlflow.models.Model.load(folder)
    assert described.run_id == run_id
    signature = described.signature.to_dict()
    assert '"string"' in signature["inputs"] and signature["outputs"] == signature["inputs"]
    example = described.load_input_example(str(folder))
    assert example == "signal 0"
    (answer,) = mlflow.pyfunc.load_model(str(folder)).predict(example)
    assert answer.startswith(example) and len(answer) <= len(example) + 16, "half a block at most"
    pipeline = mlflow.transformers.load_model(str(folder))
    assert pipeline.tokenizer(example)["input_ids"] == AutoTokenizer.from_pretrained(folder)(example)["input_ids"]
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    torch.testing.assert_close(pipeline.model.state_dict(), weights, rtol=0, atol=0)


def test_the_record_has_the_rate_the_pace_and_perplexity_a_word(
    trainers: Trainers, folder: Path, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(store)
    experiment = client.create_experiment("llm", artifact_location=(tmp_path / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    env = {"MLFLOW_TRACKING_URI": store, "MLFLOW_RUN_ID": run_id}
    outcome = trainers("distilgpt2", *ARGS, "--data-dir", folder, "--output-dir", tmp_path / "out", **env, **ALONE)
    assert outcome.code == 0, outcome.stderr
    steps = outcome.event("started")["steps"]
    for name in ("loss", "lr", "tokens_per_second"):
        assert [metric.step for metric in client.get_metric_history(run_id, name)] == list(range(1, steps + 1)), name
    rates = [metric.value for metric in client.get_metric_history(run_id, "lr")]
    assert max(rates) == pytest.approx(0.003, rel=0.05) and rates[-1] == pytest.approx(0.0003, rel=0.05)
    for name in ("val_perplexity", "val_word_perplexity"):
        assert [metric.step for metric in client.get_metric_history(run_id, name)] == [0, 1]
    assert_mlflow_reads_the_model(client, run_id, tmp_path)
    before, after = metrics(outcome)
    # Each byte is a token, and the first has no predecessor.
    tokens = len((folder / "text" / "valid.txt").read_text())
    words = len((folder / "text" / "valid.txt").read_text().split())
    assert after["val_word_perplexity"] == pytest.approx(after["val_perplexity"] ** ((tokens - 1) / words), rel=1e-3)
    assert after["val_word_perplexity"] < before["val_word_perplexity"]
