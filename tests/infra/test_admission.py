"""The admission policies' CEL, evaluated against good and bad Jobs; needs the package common-expression-language.

An API server compiles the same expressions; beyond plain CEL they use only `split` and `dyn`, which are given here.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.engines.base import Submission
from tools.engines.kubernetes import manifest, trainjob
from tools.engines.kubernetes.forms import TRAIN_JOB
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.engines.kubernetes.runtimes import runtime_of
from tools.spec import parse_spec

cel = pytest.importorskip("cel")

TRAINING = Path(__file__).parents[2] / "infra" / "k8s" / "base" / "training"
PARAMS = {"data": {"image-prefixes": "signalbox-trainer:,ghcr.io/acme/", "runtimes": "torch-distributed"}}


def _policies() -> dict[str, Any]:
    found = {}
    for file in sorted(TRAINING.glob("admission-*.yaml")):
        for one in yaml.safe_load_all(file.read_text()):
            if one["kind"] == "ValidatingAdmissionPolicy":
                found[one["metadata"]["name"]] = one["spec"]
    return found


POLICIES = _policies()


def _refusals(policy: str, new: Any, old: Any = None) -> list[str]:
    """Messages of the validations that say no; an expression that fails counts as no, as failurePolicy Fail has it."""
    names = {"object": new, "oldObject": old, "params": PARAMS, "variables": {}}

    def value(expression: str) -> Any:
        context = cel.Context()
        for name, content in names.items():
            context.add_variable(name, content)
        context.add_function("split", lambda text, by: text.split(by))
        context.add_function("dyn", lambda any_value: any_value)
        return cel.evaluate(expression, context)

    for variable in POLICIES[policy].get("variables", []):
        names["variables"][variable["name"]] = value(variable["expression"])
    refused = []
    for one in POLICIES[policy]["validations"]:
        try:
            said = value(one["expression"])
        except Exception as error:  # as an API server would: no
            said = f"{type(error).__name__}: {error}"
        if said is not True:
            refused.append(one["message"] if said is False else f"{one['message']} ({said})")
    return refused


def _job() -> dict[str, Any]:
    return {
        "metadata": {
            "name": "digits-1-ba3fbb",
            "labels": {"app.kubernetes.io/managed-by": "signalbox"},
            "annotations": {"signalbox.dev/proposal": "1", "signalbox.dev/spec-digest": "49ff"},
        },
        "spec": {
            "suspend": True,
            "activeDeadlineSeconds": 900,
            "backoffLimit": 2,
            "template": {
                "spec": {
                    "serviceAccountName": "signalbox-trainer",
                    "automountServiceAccountToken": False,
                    "containers": [
                        {
                            "name": "trainer",
                            "image": "signalbox-trainer:0.1.0",
                            "env": [
                                {"name": "MLFLOW_RUN_ID", "value": "ea45"},
                                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "tmp", "emptyDir": {}},
                        {"name": "data", "persistentVolumeClaim": {"claimName": "datasets"}},
                    ],
                }
            },
        },
    }


def _with(path: str, value: Any, base: dict[str, Any] | None = None) -> dict[str, Any]:
    """A copy with one place changed; None takes it away."""
    whole = copy.deepcopy(base or _job())
    place: Any = whole
    *way, last = [int(step) if step.isdigit() else step for step in path.split("|")]
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return whole


POD = "spec|template|spec"
FIRST = f"{POD}|containers|0"
BAD = {
    "unlabelled": ("metadata|labels", None),
    "another's label": ("metadata|labels", {"app.kubernetes.io/managed-by": "helm"}),
    "no annotations": ("metadata|annotations", None),
    "no digest": ("metadata|annotations", {"signalbox.dev/proposal": "1"}),
    "empty proposal": ("metadata|annotations", {"signalbox.dev/proposal": "", "signalbox.dev/spec-digest": "1"}),
    "starts at once": ("spec|suspend", False),
    "suspend unsaid": ("spec|suspend", None),
    "no deadline": ("spec|activeDeadlineSeconds", None),
    "foreign image": (f"{FIRST}|image", "docker.io/evil/miner:1"),
    "image that only begins alike": (f"{FIRST}|image", "signalbox-trainer-evil:0.1.0"),
    "foreign init image": (f"{POD}|initContainers", [{"name": "i", "image": "evil:1"}]),
    "hostPath": (f"{POD}|volumes|0", {"name": "tmp", "hostPath": {"path": "/"}}),
    "secret volume": (f"{POD}|volumes|0", {"name": "tmp", "secret": {"secretName": "x"}}),
    "configMap volume": (f"{POD}|volumes|0", {"name": "tmp", "configMap": {"name": "x"}}),
    "projected token": (f"{POD}|volumes|0", {"name": "tmp", "projected": {"sources": []}}),
    "another account": (f"{POD}|serviceAccountName", "default"),
    "another account, old field": (f"{POD}|serviceAccount", "default"),
    "token": (f"{POD}|automountServiceAccountToken", True),
    "token unsaid": (f"{POD}|automountServiceAccountToken", None),
    "env from a secret": (
        f"{FIRST}|env",
        [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}],
    ),
    "envFrom": (f"{FIRST}|envFrom", [{"secretRef": {"name": "a"}}]),
    "init env from a secret": (
        f"{POD}|initContainers",
        [{"image": "signalbox-trainer:1", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "a"}}}]}],
    ),
    "privileged": (f"{FIRST}|securityContext", {"privileged": True}),
    "hostNetwork": (f"{POD}|hostNetwork", True),
    "hostPID": (f"{POD}|hostPID", True),
    "hostIPC": (f"{POD}|hostIPC", True),
    "nodeName": (f"{POD}|nodeName", "node-1"),
}


def test_a_proper_job_may_be_made() -> None:
    assert _refusals("signalbox-jobs-create", _job()) == []
    assert _refusals("signalbox-jobs-create", _with(f"{FIRST}|image", "ghcr.io/acme/trainer@sha256:0")) == []
    assert _refusals("signalbox-jobs-create", _with(f"{POD}|volumes", None)) == []
    assert _refusals("signalbox-jobs-create", _with(f"{FIRST}|env", None)) == []


SETTINGS = {
    "plain": (ClusterSettings(), "digits", {}),
    "GPU, claim and queue": (
        ClusterSettings(gpu_product="L4", data_claim="datasets", queue="training"),
        "mnist",
        {"gpus": 1},
    ),
    "checkpoints kept": (ClusterSettings(output_claim="checkpoints"), "digits", {}),
    "resumed": (ClusterSettings(output_claim="checkpoints"), "digits", {"resume_from": "digits-1-ba3fbb"}),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_what_the_engine_makes_may_be_made_released_and_cancelled(what: str) -> None:
    settings, recipe, parameters = SETTINGS[what]
    submission = Submission(
        name="digits-1-ba3fbb",
        proposal_id="ba3fbb",
        digest="d" * 64,
        manifest=manifest.document(parse_spec(recipe, parameters), settings),
        run_id="ea45",
        tracking_uri="http://mlflow:5000",
    )
    made = manifest.complete(submission)
    assert _refusals("signalbox-jobs-create", made) == []
    marked = {**made["metadata"]["annotations"], manifest.RELEASED: "2026-11-24T12:00:00+00:00"}
    labels = {**made["metadata"]["labels"], manifest.QUEUE: "training", manifest.MAX_EXEC: "810"}
    released = _with("spec|suspend", False, _with("metadata|annotations", marked, made))
    assert _refusals("signalbox-jobs-update", released, made) == []
    assert _refusals("signalbox-jobs-update", _with("metadata|labels", labels, released), made) == []
    stopped = {**marked, manifest.CANCELLED: "2026-11-24T12:01:00+00:00"}
    ended = _with("spec|activeDeadlineSeconds", 0, _with("metadata|annotations", stopped, released))
    assert _refusals("signalbox-jobs-update", ended, released) == []


@pytest.mark.parametrize("what", BAD)
def test_a_bad_job_is_refused_for_exactly_one_reason(what: str) -> None:
    refused = _refusals("signalbox-jobs-create", _with(*BAD[what]))
    assert len(refused) == 1, refused
    assert "(" not in refused[0] or "Error" not in refused[0], "refused by its rule, not by an expression that broke"


def test_every_rule_about_jobs_has_a_bad_job() -> None:
    said = {message for path in BAD.values() for message in _refusals("signalbox-jobs-create", _with(*path))}
    assert said == {one["message"] for one in POLICIES["signalbox-jobs-create"]["validations"]}


def test_an_empty_list_of_images_allows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for listed in ("", ",", "signalbox-trainer"):
        monkeypatch.setitem(PARAMS["data"], "image-prefixes", listed)
        assert len(_refusals("signalbox-jobs-create", _job())) == 1, listed


CHANGES = {
    "released": ("spec|suspend", False),
    "stopped": ("spec|activeDeadlineSeconds", 0),
    "queued": (
        "metadata|labels",
        {"app.kubernetes.io/managed-by": "signalbox", "kueue.x-k8s.io/queue-name": "training"},
    ),
}
FORBIDDEN = {
    "another image": (f"{FIRST}|image", "ghcr.io/acme/other:1"),
    "more retries": ("spec|backoffLimit", 9),
    "new field": ("spec|parallelism", 4),
    "field gone": ("spec|backoffLimit", None),
    "longer": ("spec|activeDeadlineSeconds", 901),
    "no deadline any more": ("spec|activeDeadlineSeconds", None),
    "another digest": ("metadata|annotations", {"signalbox.dev/proposal": "1", "signalbox.dev/spec-digest": "50"}),
    "annotations gone": ("metadata|annotations", None),
    "label gone": ("metadata|labels", {}),
    "owner": ("metadata|ownerReferences", [{"name": "x"}]),
    "finalizer": ("metadata|finalizers", ["x"]),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_the_bot_may_change(what: str) -> None:
    assert _refusals("signalbox-jobs-update", _with(*CHANGES[what]), _job()) == []


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_the_bot_may_not_change(what: str) -> None:
    refused = _refusals("signalbox-jobs-update", _with(*FORBIDDEN[what]), _job())
    assert refused and not any("Error" in one for one in refused), refused


def test_another_s_job_is_left_alone() -> None:
    foreign = _with("metadata|labels", {"app.kubernetes.io/managed-by": "helm"})
    assert _refusals("signalbox-jobs-update", _with("spec|suspend", False, foreign), foreign)
    assert _refusals("signalbox-jobs-update", _with("spec|suspend", False), foreign), "nor taken over"


def test_the_engine_s_train_job_may_be_made_released_and_cancelled() -> None:
    found = yaml.safe_load((TRAINING.parents[1] / "components" / "trainer" / "runtime.yaml").read_text())
    found["metadata"]["name"] = "torch-distributed"
    spec = parse_spec("distilgpt2", {"nodes": 2, "gpus": 8})
    submission = Submission(
        name="distilgpt2-1-ba3fbb",
        proposal_id="ba3fbb",
        digest="d" * 64,
        manifest=trainjob.document(spec, ClusterSettings(), runtime_of(found, None)),
        run_id="ea45",
        tracking_uri="http://mlflow:5000",
    )
    made = trainjob.complete(submission)
    assert _refusals("signalbox-trainjobs-create", made) == []
    marked = {**made["metadata"]["annotations"], manifest.RELEASED: "2026-11-24T12:00:00+00:00"}
    released = _with("spec|suspend", False, _with("metadata|annotations", marked, made))
    assert _refusals("signalbox-jobs-update", released, made) == []
    stopped = {**marked, manifest.CANCELLED: "2026-11-24T12:01:00+00:00"}
    ended = _with("metadata|annotations", stopped, {**released, "spec": released["spec"] | TRAIN_JOB.stop})
    assert _refusals("signalbox-jobs-update", ended, released) == []
    assert _refusals("signalbox-jobs-update", _with("spec|trainer|numNodes", 8, made), made)


def test_a_train_job() -> None:
    good: dict[str, Any] = {
        "metadata": _job()["metadata"],
        "spec": {
            "suspend": True,
            "runtimeRef": {"name": "torch-distributed"},
            "trainer": {"image": "ghcr.io/acme/t:1", "numNodes": 2},
        },
    }
    name = "signalbox-trainjobs-create"
    assert _refusals(name, good) == []
    bad = {
        "metadata|labels": {},
        "metadata|annotations": {},
        "spec|suspend": False,
        "spec|runtimeRef": {"name": "other"},
        "spec|runtimePatches": [],
        "spec|trainer": {"image": "evil:1"},
        "spec|trainer|env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "a"}}}],
    }
    said = [_refusals(name, _with(path, value, good)) for path, value in bad.items()]
    assert [len(one) for one in said] == [1] * len(bad), said
    assert {one[0] for one in said} == {one["message"] for one in POLICIES[name]["validations"]}
    assert _refusals(name, _with("spec|runtimeRef", {"name": "torch-distributed", "kind": "TrainingRuntime"}, good))
