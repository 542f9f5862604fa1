"""The exact Job of a spec, and what identity adds to it; judged by the same rules as in a cluster."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from tools.engines.base import Submission
from tools.engines.kubernetes.manifest import ClusterSettings, complete, document, render
from tools.spec import parse_spec

SETTINGS = ClusterSettings()
SPEC = parse_spec("digits", {})
GPU = parse_spec("distilgpt2", {"gpus": 1})


def pod(job: dict[str, Any]) -> dict[str, Any]:
    return dict(job["spec"]["template"]["spec"])


def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(job)["containers"]
    return dict(only)


def env(job: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(job)["env"]}


def test_what_the_admission_policy_asks() -> None:
    job = render(SPEC, SETTINGS)
    assert job["spec"]["suspend"] is True
    assert pod(job)["automountServiceAccountToken"] is False
    assert pod(job)["serviceAccountName"] == "signalbox-trainer"
    assert all({"emptyDir", "persistentVolumeClaim"} & volume.keys() for volume in pod(job)["volumes"])
    assert all(one.keys() == {"name", "value"} for one in container(job)["env"])
    assert "envFrom" not in container(job)
    assert not {"hostNetwork", "hostPID", "hostIPC", "nodeName"} & pod(job).keys()


def test_pod_security_is_restricted() -> None:
    job = render(SPEC, SETTINGS)
    assert pod(job)["securityContext"]["runAsNonRoot"] is True
    assert pod(job)["securityContext"]["runAsUser"] == 10001
    assert pod(job)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    own = container(job)["securityContext"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)


def test_how_it_ends() -> None:
    spec = render(SPEC, SETTINGS)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["backoffLimit"]) == ("Indexed", 1, 2)
    assert spec["podReplacementPolicy"] == "Failed"
    ignored, failed = spec["podFailurePolicy"]["rules"]
    assert ignored["action"] == "Ignore"
    assert (failed["action"], failed["onExitCodes"]["values"]) == ("FailJob", [2, 3])
    assert failed["onExitCodes"]["containerName"] == container({"spec": spec})["name"]
    assert spec["ttlSecondsAfterFinished"] == 86400


@pytest.mark.parametrize(("minutes", "deadline", "grace"), [(15, 810, 90), (1, 54, 6), (240, 14280, 120)])
def test_the_approved_runtime_is_the_last_moment(minutes: int, deadline: int, grace: int) -> None:
    job = render(parse_spec("digits", {"max_runtime_minutes": minutes}), SETTINGS)
    assert job["spec"]["activeDeadlineSeconds"] == deadline
    assert pod(job)["terminationGracePeriodSeconds"] == grace


def test_the_trainer_is_started_as_this_machine_would() -> None:
    only = container(render(SPEC, SETTINGS))
    assert only["command"] == ["python", "-m", SPEC.module]
    assert only["args"] == [*SPEC.argv(), "--data-dir", "/data", "--output-dir", "/output"]
    mounted = {one["mountPath"] for one in only["volumeMounts"]}
    assert mounted == {"/data", "/output", "/tmp", "/dev/shm"}
    assert {one["name"] for one in only["volumeMounts"]} == {
        one["name"] for one in pod(render(SPEC, SETTINGS))["volumes"]
    }
    told = env(render(SPEC, SETTINGS))
    assert told["HOME"] == "/tmp" and told["HF_HOME"].startswith("/tmp/") and told["MPLCONFIGDIR"].startswith("/tmp/")
    assert told["CUDA_VISIBLE_DEVICES"] == ""


def test_requests_are_limits() -> None:
    held = container(render(SPEC, SETTINGS))["resources"]
    assert held["requests"] == held["limits"] == {"cpu": "4000m", "memory": "8192Mi", "ephemeral-storage": "10Gi"}


def test_a_gpu() -> None:
    job = render(GPU, replace(SETTINGS, gpu_product="NVIDIA-H100-80GB-HBM3"))
    assert container(job)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container(job)["image"] == SETTINGS.image_gpu
    assert pod(job)["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert pod(job)["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert "CUDA_VISIBLE_DEVICES" not in env(job)
    assert "nodeSelector" not in pod(render(GPU, SETTINGS))


def test_data_of_a_claim() -> None:
    (data, *_) = pod(render(SPEC, replace(SETTINGS, data_claim="sets")))["volumes"]
    assert data == {"name": "data", "persistentVolumeClaim": {"claimName": "sets"}}


def test_memory_that_was_asked_for() -> None:
    more = parse_spec("digits", {"memory_gib": 24})
    assert container(render(more, SETTINGS))["resources"]["limits"]["memory"] == "24576Mi"


def test_checkpoints_of_a_claim_are_a_training_s_own_and_resumed_by_its_next_pod() -> None:
    settings = replace(SETTINGS, output_claim="kept")
    job = render(SPEC, settings)
    mounts = {mount["name"]: mount for mount in container(job)["volumeMounts"]}
    assert pod(job)["volumes"][1] == {"name": "output", "persistentVolumeClaim": {"claimName": "kept"}}
    assert mounts["output"]["subPathExpr"] == "$(SIGNALBOX_JOB)" and "--resume" in container(job)["args"]
    (name,) = [one for one in container(job)["env"] if one["name"] == "SIGNALBOX_JOB"]
    assert "job-name" in name["valueFrom"]["fieldRef"]["fieldPath"]

    later = container(render(parse_spec("digits", {"resume_from": "digits-1-abc"}), settings))
    assert {"name": "output", "mountPath": "/output", "subPath": "digits-1-abc"} in later["volumeMounts"]
    assert later["args"].count("--resume") == 1
    assert "--resume" not in container(render(SPEC, SETTINGS))["args"]


def submission(manifest: dict[str, Any]) -> Submission:
    return Submission(
        name="digits-7-c53b6e",
        proposal_id="c53b6e",
        digest="d" * 64,
        manifest=manifest,
        run_id="r1",
        tracking_uri="http://mlflow:5000",
        approvers=("ann", "bob"),
    )


@pytest.mark.parametrize("of", [render, document])
def test_identity_adds_nothing_else(of: Any) -> None:
    approved = of(SPEC, SETTINGS)
    before = copy.deepcopy(approved)
    made = complete(submission(approved))
    assert approved == before, "the approved manifest was changed"
    assert made["metadata"]["name"] == "digits-7-c53b6e"
    assert made["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "signalbox"
    assert made["metadata"]["annotations"] == {
        "signalbox.dev/proposal": "c53b6e",
        "signalbox.dev/spec-digest": "d" * 64,
        "signalbox.dev/approvers": "ann,bob",
    }
    assert env(made)["MLFLOW_RUN_ID"] == "r1"
    assert env(made)["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    made["metadata"] = render(SPEC, SETTINGS)["metadata"]
    del container(made)["env"][-2:]
    assert made == render(SPEC, SETTINGS)


def test_a_queue_is_approved_and_not_yet_kueues() -> None:
    made = complete(submission(render(SPEC, replace(SETTINGS, queue="training"))))
    assert made["metadata"]["annotations"]["signalbox.dev/queue"] == "training"
    assert "kueue.x-k8s.io/queue-name" not in made["metadata"]["labels"]


def test_what_is_approved_is_json_and_always_the_same() -> None:
    assert json.loads(json.dumps(document(SPEC, SETTINGS))) == document(SPEC, SETTINGS)
    shown = document(SPEC, SETTINGS)
    assert (shown["engine"], shown["namespace"], shown["image"]) == ("kubernetes", "ml-training", SETTINGS.image_cpu)


def test_several_gpus_of_a_node_are_several_processes() -> None:
    spec = parse_spec("distilgpt2", {"gpus": 4})
    only = container(render(spec, SETTINGS))
    assert only["command"] == ["python", "-m", "trainers.launch", "trainers.distilgpt2"]
    told = env(render(spec, SETTINGS))
    assert (told["PET_STANDALONE"], told["PET_NPROC_PER_NODE"], told["OMP_NUM_THREADS"]) == ("1", "4", "1")
    assert only["resources"]["limits"]["nvidia.com/gpu"] == "4"
    grace = pod(render(spec, SETTINGS))["terminationGracePeriodSeconds"]
    assert told["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == str(grace) == "120"
    assert not any(name.startswith(("PET_", "TORCH_ELASTIC_")) for name in env(render(GPU, SETTINGS)))
