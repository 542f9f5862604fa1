"""The exact TrainJob of a spec, and what its runtime adds to what is approved."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.fakes.kubernetes.trainer import runtime
from tools.engines.base import Submission
from tools.engines.kubernetes.forms import JOB, TRAIN_JOB, belongs, form_of
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.engines.kubernetes.runtimes import runtime_of
from tools.engines.kubernetes.trainjob import complete, document, render
from tools.spec import TrainingSpec, parse_spec

SETTINGS = ClusterSettings()
SPEC = parse_spec("distilgpt2", {"nodes": 2})
RUNTIME = replace(runtime_of(runtime(), None), deadlines=True)


def trainer(spec: TrainingSpec = SPEC, settings: ClusterSettings = SETTINGS) -> dict[str, Any]:
    return dict(render(spec, settings, RUNTIME)["spec"]["trainer"])


def test_what_runs_on_each_node() -> None:
    made = render(SPEC, SETTINGS, RUNTIME)
    assert (made["apiVersion"], made["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob")
    assert made["spec"]["suspend"] is True and made["spec"]["runtimeRef"]["name"] == "torch"
    only = made["spec"]["trainer"]
    assert only["command"] == ["python", "-m", "trainers.launch", "trainers.distilgpt2"]
    assert only["args"] == [*SPEC.argv(), "--data-dir", "/data", "--output-dir", "/output/$(SIGNALBOX_JOB)"]
    assert (only["numNodes"], only["numProcPerNode"], only["image"]) == (2, 1, SETTINGS.image_cpu)
    assert only["resourcesPerNode"]["limits"] == {"cpu": "4000m", "memory": "8192Mi", "ephemeral-storage": "10Gi"}
    assert not any(one["name"].startswith("PET_") for one in only["env"]), "those are the runtime's to set"
    told = {one["name"]: one.get("value") for one in only["env"]}
    assert told["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == str(RUNTIME.grace_seconds)


def test_gpus_are_those_of_a_node() -> None:
    only = trainer(parse_spec("distilgpt2", {"nodes": 2, "gpus": 8}), replace(SETTINGS, cpu_cores=Decimal(64)))
    assert (only["numNodes"], only["numProcPerNode"], only["image"]) == (2, 8, SETTINGS.image_gpu)
    assert only["resourcesPerNode"]["requests"]["nvidia.com/gpu"] == "8"
    assert {one["name"]: one.get("value") for one in only["env"]}["OMP_NUM_THREADS"] == "8"


def test_checkpoints_are_a_training_s_own_and_gone_on_from() -> None:
    kept = replace(SETTINGS, output_claim="kept")
    made = render(SPEC, kept, RUNTIME)
    assert made["metadata"]["annotations"]["signalbox.dev/output"] == "kept"
    assert "--resume" in made["spec"]["trainer"]["args"]
    (name,) = [one for one in made["spec"]["trainer"]["env"] if one["name"] == "SIGNALBOX_JOB"]
    assert name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['jobset.sigs.k8s.io/jobset-name']"
    later = trainer(parse_spec("distilgpt2", {"nodes": 2, "resume_from": "distilgpt2-1-abc"}), kept)
    assert later["args"][-2:] == ["--output-dir", "/output/distilgpt2-1-abc"] and later["args"].count("--resume") == 1


@pytest.mark.parametrize(("minutes", "limit"), [(240, 14340), (1, 30)])
def test_the_approved_runtime_is_the_last_moment(minutes: int, limit: int) -> None:
    spec = parse_spec("distilgpt2", {"nodes": 2, "max_runtime_minutes": minutes})
    assert render(spec, SETTINGS, RUNTIME)["spec"]["activeDeadlineSeconds"] == limit
    older = document(spec, SETTINGS, replace(RUNTIME, deadlines=False))
    assert "activeDeadlineSeconds" not in older["train_job"]["spec"]
    assert older["train_job"]["metadata"]["annotations"]["signalbox.dev/time-limit-seconds"] == str(limit)
    assert "kept by Signalbox itself" in older["note"] and "note" not in document(spec, SETTINGS, RUNTIME)
    queued = document(spec, replace(SETTINGS, queue="training"), RUNTIME)
    assert queued["note"].startswith("It does not wait in the queue training")


def test_identity_adds_nothing_else() -> None:
    approved = document(SPEC, SETTINGS, RUNTIME)
    assert json.loads(json.dumps(approved)) == approved
    given = Submission(
        name="distilgpt2-7-c53b6e",
        proposal_id="c53b6e",
        digest="d" * 64,
        manifest=approved,
        run_id="r1",
        tracking_uri="http://mlflow:5000",
        approvers=("ann", "bob"),
    )
    made = complete(given)
    assert made["metadata"]["name"] == "distilgpt2-7-c53b6e"
    assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "signalbox"
    assert made["metadata"]["annotations"]["signalbox.dev/approvers"] == "ann,bob"
    assert [one["name"] for one in made["spec"]["trainer"]["env"][-2:]] == ["MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI"]
    del made["spec"]["trainer"]["env"][-2:]
    assert made["spec"] == render(SPEC, SETTINGS, RUNTIME)["spec"]


def test_a_runtime_is_known_by_all_that_it_says() -> None:
    found = runtime_of(runtime(nodeSelector={"nvidia.com/gpu.product": "L4"}), None)
    assert found.digest != RUNTIME.digest and found.selector == {"nvidia.com/gpu.product": "L4"}
    assert not found.deadlines, "what may not be read is not relied on"
    volumes = [{"name": "kept", "persistentVolumeClaim": {"claimName": "checkpoints"}}, {"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "kept", "mountPath": "/output"}, {"name": "tmp", "mountPath": "/tmp"}]
    with_claim = runtime_of(runtime(volumes=volumes, containers=[{"name": "node", "volumeMounts": mounts}]), None)
    assert with_claim.claims == {"/output": "checkpoints"}
    assert not runtime_of(runtime(containers=[{"name": "main"}]), None).torchrun
    assert not runtime_of({"metadata": {"name": "x"}, "spec": {}}, None).torchrun


def test_pods_are_told_apart_by_name_and_birth() -> None:
    obj = {"metadata": {"name": "a", "uid": "u", "creationTimestamp": "2026-11-24T12:00:00Z"}}
    job, several = obj | {"spec": {"template": {}}}, obj | {"spec": {"runtimeRef": {"name": "torch"}}}
    assert (form_of(job), form_of(several)) == (JOB, TRAIN_JOB)

    def pod(name: str, born: str) -> dict[str, Any]:
        labels = {"jobset.sigs.k8s.io/jobset-name": name, "batch.kubernetes.io/job-name": f"{name}-node-0"}
        return {"metadata": {"name": "p", "uid": "p", "labels": labels, "creationTimestamp": born}}

    assert belongs(pod("a", "2026-11-24T12:00:01Z"), several) and not belongs(pod("b", "2026-11-24T12:00:01Z"), several)
    assert not belongs(pod("a", "2026-11-24T11:59:59Z"), several), "of one before it by the same name"
