"""The record in MLflow: a run that was given, a run of one's own, and a server that is not there."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import numpy
import pytest
import torch

from tests.trainers.conftest import ALONE, finish
from tests.trainers.mlflow_http import Server
from trainers.mnist_cnn import load, parse
from trainers.tracking import RUN_FILE, Writer

ARGS = ("mnist_cnn", "--epochs", 2, "--lr", 0.002, "--output-dir")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(scope="module")
def client(store) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(store)


@pytest.fixture(scope="module")
def experiment(client, tmp_path_factory) -> str:
    return client.create_experiment("yard", artifact_location=tmp_path_factory.mktemp("artifacts").as_uri())


def test_the_run_that_was_given_gets_the_record(trainers, tmp_path, store, client, experiment):
    run_id = client.create_run(experiment).info.run_id
    client.log_param(run_id, "lr", "0.002")  # an equal one and an unequal one, as the bot may have written them
    client.log_param(run_id, "epochs", "two")
    outcome = trainers(*ARGS, tmp_path, MLFLOW_TRACKING_URI=store, MLFLOW_RUN_ID=run_id)
    assert outcome.code == 0, outcome.stderr
    assert outcome.event("started")["run_id"] == run_id
    assert outcome.notes() == ""

    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["batch_size"] == "32"
    assert (run.data.params["lr"], run.data.params["epochs"]) == ("0.002", "two")
    assert {"device", "threads", "torch_version"} <= set(run.data.tags)
    for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "epoch_seconds", "samples_per_second"):
        history = client.get_metric_history(run_id, name)
        assert [point.step for point in history] == [1, 2], name
    assert run.data.metrics["val_accuracy"] == outcome.event("result")["metrics"]["val_accuracy"]
    assert run.data.metrics["duration_seconds"] > 0 and run.data.metrics["peak_memory_mb"] > 100
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == list(range(1, 91))


def test_a_server_stopped_in_the_middle_and_started_again_misses_no_metric(trainers, tmp_path):
    server = Server(tmp_path)
    env = {"MLFLOW_TRACKING_URI": server.url, "MLFLOW_RUN_ID": server.run_id, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    args = ("mnist_cnn", "--epochs", 60, "--output-dir", tmp_path / "out")
    with trainers.started(*args, **ALONE, **env) as process:
        events: list[dict[str, object]] = []
        for line in process.stdout:
            if line.startswith("SIGNALBOX "):
                events.append(json.loads(line.removeprefix("SIGNALBOX ")))
            if server.store.get_metric_history(server.run_id, "loss"):
                break
        before = len(server.store.get_metric_history(server.run_id, "loss"))
        server.stop()
        for line in process.stdout:  # until the writer has met the closed door
            if "MLflow does not take records" in line:
                break
        server.start()
        outcome = finish(process)
    assert outcome.code == 0, outcome.stderr
    assert not (tmp_path / "out" / "mlflow-unsent.json").exists()
    steps = [point.step for point in server.store.get_metric_history(server.run_id, "loss")]
    assert 0 < before < len(steps)
    window = 60 * 45 // 1000
    expected = [
        (epoch - 1) * 45 + batch
        for epoch in range(1, 61)
        for batch in range(1, 46)
        if batch % window == 0 or batch == 45
    ]
    assert sorted(steps) == expected
    accuracy = server.store.get_metric_history(server.run_id, "val_accuracy")
    assert sorted(point.step for point in accuracy) == list(range(1, 61))
    assert server.status == "FINISHED"


def test_the_record_has_the_machine_and_a_model_that_mlflow_reads(trainers, tmp_path, store, client, experiment):
    run_id = client.create_run(experiment).info.run_id
    env = {"MLFLOW_TRACKING_URI": store, "MLFLOW_RUN_ID": run_id, "SIGNALBOX_GIT_COMMIT": "c0ffee"}
    outcome = trainers(*ARGS, tmp_path, **env)
    assert outcome.code == 0, outcome.stderr
    run = client.get_run(run_id)
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert f"torch=={torch.__version__.partition('+')[0]}" in run.data.tags["packages"]
    assert {"hostname", "python_version", "cpus"} <= set(run.data.tags)
    assert 0 <= run.data.metrics["system/cpu_utilization_percentage"] <= 100
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 100

    assert {file.path for file in client.list_artifacts(run_id)} == {"checkpoint.pt", "model"}
    folder = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="model", tracking_uri=store)
    described = mlflow.models.Model.load(folder)
    assert described.run_id == run_id and {"pytorch", "python_function"} <= set(described.flavors)
    (inputs,), (outputs,) = described.signature.inputs.inputs, described.signature.outputs.inputs
    assert (inputs.shape, outputs.shape) == ((-1, 1, 8, 8), (-1, 10))
    example = described.load_input_example(folder)
    # In a process that knows nothing of the trainers, as whoever serves the model has it.
    script = (
        "import json, sys, mlflow.pytorch, torch; images = torch.tensor(json.load(sys.stdin))\n"
        "print(json.dumps(mlflow.pytorch.load_model(sys.argv[1])(images).argmax(1).tolist()))"
    )
    command = [sys.executable, "-c", script, folder]
    elsewhere = subprocess.run(
        command, input=json.dumps(example.tolist()), capture_output=True, text=True, cwd=tmp_path, check=True
    )
    _, validation = load(parse(["--dataset", "digits"]))
    assert numpy.array_equal(example, validation.images[:2].numpy())
    assert json.loads(elsewhere.stdout) == validation.labels[:2].tolist()


def test_failure_and_interruption_are_recorded_in_a_run_of_ones_own(trainers, tmp_path, store, client):
    env = {"MLFLOW_TRACKING_URI": store, "MLFLOW_EXPERIMENT_NAME": "own"}
    failed = trainers.started("mnist_cnn", "--dataset", "mnist", "--output-dir", tmp_path / "a", **env)
    killed = trainers.started(
        "mnist_cnn", "--epochs", 100, "--experiment", "named", "--output-dir", tmp_path / "b", **env
    )
    time.sleep(6)
    killed.terminate()
    for process, code, experiment, status in ((failed, 2, "own", "FAILED"), (killed, 4, "named", "KILLED")):
        outcome = finish(process)
        assert outcome.code == code, outcome.stderr
        (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        assert run.info.status == status
        assert run.info.run_id in outcome.notes()


def test_without_a_server_training_goes_on_and_the_record_is_kept(trainers, tmp_path):
    env = {"MLFLOW_TRACKING_URI": "http://user:secret@127.0.0.1:9", "MLFLOW_RUN_ID": "0" * 32}
    outcome = trainers(*ARGS, tmp_path, **env)
    assert outcome.code == 0, outcome.stderr
    assert "result" in [event["event"] for event in outcome.events]
    kept = tmp_path / "mlflow-unsent.json"
    assert str(kept) in outcome.notes()
    assert "secret" not in outcome.notes() + kept.read_text()
    records = json.loads(kept.read_text())["records"]
    values = {record["name"]: record["value"] for record in records if record["kind"] == "metric"}
    assert values["val_accuracy"] == outcome.event("result")["metrics"]["val_accuracy"]
    assert records[-1] == {"kind": "end", "status": "FINISHED"}


def test_a_server_that_never_answers_holds_up_neither_the_training_nor_its_interruption(trainers, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:  # the system accepts, and nobody reads
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        env = {"MLFLOW_TRACKING_URI": url, "MLFLOW_RUN_ID": "0" * 32, "MLFLOW_HTTP_REQUEST_TIMEOUT": "150"}
        args = ("mnist_cnn", "--batch-size", 8, "--epochs", 8, "--output-dir", tmp_path)
        outcome = trainers.interrupted(*args, after=lambda event: event.get("epoch") == 6, **env)
    assert outcome.code == 4, outcome.stderr
    assert "MLflow does not take records" not in outcome.notes()  # all this while the first request hung
    kept = json.loads((tmp_path / "mlflow-unsent.json").read_text())["records"]
    assert sum(len(json.dumps(record)) for record in kept) > 1 << 16  # more than a pipe takes
    assert (tmp_path / "checkpoint.pt").exists()


def test_what_failed_in_the_middle_is_sent_again(tmp_path, client, store, experiment, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    run_id = client.create_run(experiment).info.run_id
    writer = Writer(run_id=run_id, name="n", experiment="e", output_dir=str(tmp_path), resume=False)
    metric = {"kind": "metric", "name": "loss", "value": 0.5, "step": 1, "timestamp": 1}

    def lines():
        yield json.dumps(metric)
        while not client.get_metric_history(run_id, "loss"):
            time.sleep(0.1)
        Path(store.removeprefix("sqlite:///")).rename(tmp_path / "away")
        yield json.dumps({**metric, "step": 2})
        time.sleep(3)
        (tmp_path / "away").rename(store.removeprefix("sqlite:///"))
        yield json.dumps({"kind": "end", "status": "FINISHED"})
        yield '{"kind": "met'  # as a killed trainer may leave it

    assert writer.serve(lines())
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [1, 2]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert not (tmp_path / RUN_FILE).exists()


def test_only_a_resumed_training_goes_on_with_the_last_run(tmp_path, client, store, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    end = json.dumps({"kind": "end", "status": "FINISHED"})

    def runs_after(*, resume: bool) -> list[str]:
        assert Writer(run_id=None, name="n", experiment="again", output_dir=str(tmp_path), resume=resume).serve([end])
        experiment = client.get_experiment_by_name("again").experiment_id
        return [run.info.run_id for run in client.search_runs([experiment], order_by=["attributes.start_time"])]

    file = tmp_path / RUN_FILE
    (first,) = runs_after(resume=True)  # there is none to go on with
    assert file.read_text() == first
    assert runs_after(resume=True) == [first]
    assert len(second := runs_after(resume=False)) == 2
    assert file.read_text() == second[-1] != first
    file.write_text("")  # as a full disk may leave it
    assert len(runs_after(resume=True)) == 3
    assert [path.name for path in tmp_path.iterdir()] == [RUN_FILE]

    file.unlink()
    file.mkdir()  # it cannot be written
    assert len(runs_after(resume=False)) == 4
    assert "cannot be written" in capsys.readouterr().out
