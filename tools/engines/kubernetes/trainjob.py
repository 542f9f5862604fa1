"""From a spec to the exact TrainJob of Kubeflow Trainer, for trainings of several nodes. Pure; `manifest` for the rest.

Every node runs the same command, which torchrun turns into processes that find each other by what the runtime puts into
the environment. Its folder of checkpoints is below `/output`, named as the TrainJob is.
"""

from __future__ import annotations

import copy
from typing import Any

from tools.engines.base import Submission
from tools.engines.kubernetes.forms import JOBSET
from tools.engines.kubernetes.manifest import (
    OUTPUT,
    OWN_NAME,
    RECIPE,
    RUNTIME,
    TIME_LIMIT,
    ClusterSettings,
    environment,
    identity,
    image,
    program,
    resources,
    run_variables,
    variables,
)
from tools.engines.kubernetes.runtimes import Runtime
from tools.spec import TrainingSpec

KEPT_HERE = (
    "Its maximum runtime is kept by Signalbox itself, which must be up for that: this Kubeflow Trainer knows none."
)
NOT_QUEUED = "It does not wait in the queue {}: a training of several nodes starts at once."


def render(spec: TrainingSpec, settings: ClusterSettings, runtime: Runtime) -> dict[str, Any]:
    """The TrainJob of this spec, suspended and without identity.

    Like a Job's, the approved runtime is the last moment of all: the grace time is taken from its end.
    """
    seconds = spec.max_runtime_minutes * 60
    limit = max(seconds - runtime.grace_seconds, seconds // 2)
    marks = {RUNTIME: runtime.digest}
    if not runtime.deadlines:
        marks[TIME_LIMIT] = str(limit)
    if settings.output_claim:
        marks[OUTPUT] = settings.output_claim
    own_name = {"name": OWN_NAME, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{JOBSET}']"}}}
    folder = f"/output/{spec.resume_from or f'$({OWN_NAME})'}"
    resume = ["--resume"] if settings.output_claim and not spec.resume_from else []
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"namespace": settings.namespace, "annotations": marks, "labels": {RECIPE: spec.recipe}},
        "spec": {
            "suspend": True,
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "ClusterTrainingRuntime",
                "name": runtime.name,
            },
            "trainer": {
                "image": image(spec, settings),
                "command": program(spec),
                "args": [*spec.argv(), *resume, "--data-dir", "/data", "--output-dir", folder],
                "env": [*variables(environment(spec, settings, runtime.grace_seconds)), own_name],
                "numNodes": spec.machines,
                "numProcPerNode": max(1, spec.gpus),
                "resourcesPerNode": resources(spec, settings),
            },
            **({"activeDeadlineSeconds": limit} if runtime.deadlines else {}),
        },
    }


def document(spec: TrainingSpec, settings: ClusterSettings, runtime: Runtime) -> dict[str, Any]:
    """What is approved and digested: the TrainJob, the runtime's digest, and what a card shows of both."""
    made = render(spec, settings, runtime)
    trainer = made["spec"]["trainer"]
    return {
        "engine": "kubernetes",
        "version": 1,
        "namespace": settings.namespace,
        "runtime": {"name": runtime.name, "digest": runtime.digest},
        "image": trainer["image"],
        "command": [*trainer["command"], *trainer["args"]],
        **({"note": note} if (note := _note(settings, runtime)) else {}),
        "train_job": made,
    }


def _note(settings: ClusterSettings, runtime: Runtime) -> str:
    """What is different from other trainings here, for whoever approves it."""
    said = [] if runtime.deadlines else [KEPT_HERE]
    return " ".join([*said, NOT_QUEUED.format(settings.queue)] if settings.queue else said)


def complete(submission: Submission) -> dict[str, Any]:
    """What is created: the approved TrainJob with its identity, and nothing else."""
    made: dict[str, Any] = copy.deepcopy(dict(submission.manifest["train_job"]))
    identity(made["metadata"], submission, made["metadata"]["labels"][RECIPE])
    trainer = made["spec"]["trainer"]
    trainer["env"] = [*trainer["env"], *run_variables(submission)]
    return made
