"""The two forms of a training in a cluster, and all in which they differ: a Job of one pod, a TrainJob of several.

A TrainJob (Kubeflow Trainer) makes a JobSet of its own name, that a Job, and that the pods. Everything else (two
phases, marks, streams, conditions, cost) is the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Raw = Mapping[str, Any]

JOBSET = "jobset.sigs.k8s.io/jobset-name"  # a label of each pod: its TrainJob's name
INDEX = "batch.kubernetes.io/job-completion-index"


@dataclass(frozen=True, kw_only=True)
class Form:
    """`path` is its collection in a namespace, `labels` are those of its pods that have its name, the newer first."""

    kind: str
    path: str
    labels: tuple[str, ...]
    stop: Mapping[str, Any]  # the change of its spec that ends it
    warned: tuple[str, ...]  # the kinds whose warnings say why it has no pods

    def of(self, namespace: str) -> str:
        return self.path.format(namespace)

    def name_in(self, pod: Raw) -> str | None:
        """The name of the pod's object."""
        labels = pod["metadata"].get("labels") or {}
        return next((labels[label] for label in self.labels if labels.get(label)), None)


JOB = Form(
    kind="Job",
    path="/apis/batch/v1/namespaces/{}/jobs",
    labels=("batch.kubernetes.io/job-name", "job-name"),
    stop={"activeDeadlineSeconds": 0},
    warned=("Job",),
)
TRAIN_JOB = Form(
    kind="TrainJob",
    path="/apis/trainer.kubeflow.org/v1alpha1/namespaces/{}/trainjobs",
    labels=(JOBSET,),
    stop={"suspend": True},  # its deadline cannot be changed; suspended, its JobSet lets its pods go
    warned=("TrainJob", "JobSet", "Job"),
)


def form_of(obj: Raw) -> Form:
    """Which it is; lists do not say the kind of what is in them."""
    return TRAIN_JOB if "runtimeRef" in (obj.get("spec") or {}) else JOB


def belongs(pod: Raw, obj: Raw) -> bool:
    """Whether this pod is of this very object, not of one before it by the same name."""
    meta, form = obj["metadata"], form_of(obj)
    if form is TRAIN_JOB:  # its pods are owned by a Job of its JobSet
        born = str(pod["metadata"].get("creationTimestamp") or "")
        return form.name_in(pod) == meta["name"] and born >= str(meta.get("creationTimestamp") or "")
    owners = [owner.get("uid") for owner in pod["metadata"].get("ownerReferences") or ()]
    return meta["uid"] in owners if owners else form.name_in(pod) == meta["name"]


def leads(pod: Raw, obj: Raw) -> bool:
    """Whether the training's own words are in this pod's log: those of the first of several."""
    return form_of(obj) is JOB or (pod["metadata"].get("labels") or {}).get(INDEX, "0") == "0"


def nodes(obj: Raw) -> int:
    """How many pods it has at once."""
    return int((obj["spec"].get("trainer") or {}).get("numNodes") or 1)


def limits(obj: Raw) -> Mapping[str, str]:
    """What one of its pods may use."""
    spec = obj["spec"]
    if form_of(obj) is TRAIN_JOB:
        held = (spec.get("trainer") or {}).get("resourcesPerNode") or {}
    else:
        containers = spec["template"]["spec"]["containers"]
        held = (containers[0].get("resources") or {}) if containers else {}
    return held.get("limits") or {}
