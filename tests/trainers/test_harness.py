"""How a training ends when something fails: one sentence, an exit status of its own, and what is kept."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
import torch

from tests.trainers.conftest import ROOT, Outcome, finish
from trainers.memory import advice, container_room, fitting_batch, is_out_of_memory

FRAME = """
import errno, os, signal, torch
from trainers.arguments import Parser, add_common_arguments
from trainers.harness import main
def parse():
    parser = Parser()
    add_common_arguments(parser)
    args = parser.parse_args()
    args.epochs, args.lr, args.batch_size = 1, 0.1, 48
    return args
def train(run):
    BEFORE
    model = torch.nn.Linear(1, 1)
    with run.training(samples=48, device=torch.device("cpu"), parts={"model": model}):
        run.save()
        FAIL
main("test", parse, train)
"""


def failing(fail: str, folder: Path, before: str = "pass") -> Outcome:
    """A real trainer's process whose loop does that, and the other before it."""
    command = [sys.executable, "-c", FRAME.replace("FAIL", fail).replace("BEFORE", before), "--output-dir", str(folder)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT) as process:
        return finish(process)


def test_out_of_memory_is_told_with_the_batch_size_that_fits(tmp_path):
    outcome = failing("torch.empty(2**60, dtype=torch.uint8)", tmp_path)
    assert outcome.code == 3
    message = outcome.event("error")["message"]
    assert "1.1e+09 GiB" in message and "batch size of 1," in message  # nothing larger would fit in any machine
    assert str(tmp_path / "checkpoint.pt") in outcome.notes() and (tmp_path / "checkpoint.pt").exists()


def test_a_full_disk_is_told_wherever_it_is_met(tmp_path):
    outcome = failing("raise OSError(errno.ENOSPC, 'No space left on device', 'somewhere')", tmp_path)
    assert outcome.code == 1
    assert "The disk is full (somewhere); free some space" in outcome.event("error")["message"]
    assert "is kept" in outcome.notes()


def test_divergence_is_told_and_keeps_the_checkpoint(tmp_path):
    fail = "next(run.batches()); run.step_done(48, loss=torch.tensor(float('nan')))"
    outcome = failing(fail, tmp_path)
    assert outcome.code == 1
    assert "The loss is nan at step 1; train with a learning rate below 0.1." in outcome.event("error")["message"]
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["position"]["batch"] == 0
    assert "is kept" in outcome.notes()


@pytest.mark.parametrize("launched", [False, True])
def test_a_signal_after_a_failure_changes_neither_status_nor_record(trainers, tmp_path, launched):
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(store)
    run_id = client.create_run(client.create_experiment("yard")).info.run_id
    trainer = ("launch", "trainers.mnist_cnn") if launched else ("mnist_cnn",)
    env = {"MLFLOW_TRACKING_URI": store, "MLFLOW_RUN_ID": run_id}
    env |= {"PET_STANDALONE": "1", "PET_NPROC_PER_NODE": "1"} if launched else {}
    args = ("--dataset", "mnist", "--offline", "--data-dir", tmp_path, "--output-dir", tmp_path / "out")
    outcome = trainers.interrupted(*trainer, *args, after=lambda event: event["event"] == "error", **env)
    assert outcome.code == 2, outcome.stderr
    assert "MNIST is not complete" in outcome.event("error")["message"]
    assert client.get_run(run_id).info.status == "FAILED"
    assert not (tmp_path / "out" / "mlflow-unsent.json").exists()


def test_a_signal_after_a_failure_hurries_a_record_that_nobody_takes(trainers, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{silent.getsockname()[1]}", "MLFLOW_RUN_ID": "0" * 32}
        env |= {"MLFLOW_HTTP_REQUEST_TIMEOUT": "100"}
        args = ("mnist_cnn", "--dataset", "mnist", "--offline", "--data-dir", tmp_path, "--output-dir", tmp_path)
        started = time.monotonic()
        outcome = trainers.interrupted(*args, after=lambda event: event["event"] == "error", **env)
    assert outcome.code == 2, outcome.stderr
    assert time.monotonic() - started < 60 and (tmp_path / "mlflow-unsent.json").exists()


def test_an_interruption_tells_of_its_own_checkpoint_only(tmp_path):
    (tmp_path / "checkpoint.pt").write_bytes(b"of another training")
    outcome = failing("pass", tmp_path, before="os.kill(os.getpid(), signal.SIGTERM)")
    assert outcome.code == 4, outcome.stderr
    assert outcome.notes() == "Interrupted; nothing was to be saved yet."


def test_any_other_failure_names_itself(tmp_path):
    outcome = failing("{}['absent']", tmp_path)
    assert outcome.code == 1
    assert "KeyError: 'absent'" in outcome.event("error")["message"] and "Traceback" in outcome.stderr


@pytest.mark.parametrize(
    ("batch_size", "tried", "room", "fitting"),
    [(64, 0.0, 1e9, 32), (48, 1e6, 1e9, 32), (64, 8e9, 1e9, 8), (64, 1e30, 1e9, 1), (1, 1e6, 1e9, None)],
)
def test_the_batch_is_halved_to_a_power_of_two_that_fits(batch_size, tried, room, fitting):
    assert fitting_batch(batch_size, tried, room) == fitting


def test_a_gpus_message_is_read():
    words = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB."
    assert is_out_of_memory(torch.cuda.OutOfMemoryError(words))
    assert "another 2.5 GiB; train with a batch size of 32" in advice(RuntimeError(words), 64, "cpu")
    assert "even for a batch size of 1;" in advice(MemoryError(), 1, "cpu")


def test_failed_allocations_are_told_from_other_errors():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_container_s_limit_counts_and_files_that_can_be_dropped_do_not(tmp_path):
    assert container_room(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 400\ninactive_file 250\nactive_file 50\n")
    assert container_room(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("1000\n")
    assert container_room(tmp_path) == 550
    (tmp_path / "memory.max").write_text("400\n")
    assert container_room(tmp_path) == 0
    older = tmp_path / "older" / "memory"
    older.mkdir(parents=True)
    (older / "memory.limit_in_bytes").write_text("1000\n")
    (older / "memory.usage_in_bytes").write_text("700\n")
    (older / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 250\n")
    assert container_room(tmp_path / "older") == 550
