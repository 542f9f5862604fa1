"""The record in MLflow: a run that was given, a run of one's own, and a server that is not there."""

from __future__ import annotations

import json
import time
from pathlib import Path

import mlflow
import pytest

from tests.trainers.conftest import finish
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
    assert [file.path for file in client.list_artifacts(run_id)] == ["checkpoint.pt"]


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


def test_what_failed_in_the_middle_is_sent_again(tmp_path, client, store, experiment, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    run_id = client.create_run(experiment).info.run_id
    writer = Writer(run_id=run_id, name="n", experiment="e", output_dir=str(tmp_path))
    metric = {"kind": "metric", "name": "loss", "value": 0.5, "step": 1, "timestamp": 1}

    def lines():
        yield json.dumps(metric)
        Path(store.removeprefix("sqlite:///")).rename(tmp_path / "away")
        time.sleep(3)
        (tmp_path / "away").rename(store.removeprefix("sqlite:///"))
        yield json.dumps({**metric, "step": 2})
        yield json.dumps({"kind": "end", "status": "FINISHED"})

    assert writer.serve(lines())
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == [1, 2]
    assert client.get_run(run_id).info.status == "FINISHED"
    assert not (tmp_path / RUN_FILE).exists()
