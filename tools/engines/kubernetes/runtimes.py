"""A ClusterTrainingRuntime: where a training of several nodes runs, and what its cluster's owner has laid down. Pure.

It has what a TrainJob may not choose: volumes, security, account, tolerations, and how torchrun's processes meet. So it
is a part of what people approve, by its digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Raw = Mapping[str, Any]

API = "/apis/trainer.kubeflow.org/v1alpha1"
OPENAPI = "/openapi/v3/apis/trainer.kubeflow.org/v1alpha1"
CONTAINER = "node"  # Kubeflow Trainer puts image, command and resources into the container of this name
_STEP = "trainer.kubeflow.org/trainjob-ancestor-step"
_GRACE_SECONDS = 30  # Kubernetes' own


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """As it was found. `deadlines`: whether TrainJobs have a deadline (Kubeflow Trainer 2.2)."""

    name: str
    digest: str
    grace_seconds: int
    claims: Mapping[str, str]  # folder → the PersistentVolumeClaim mounted there
    selector: Mapping[str, str]  # labels of the nodes that it takes
    torchrun: bool
    deadlines: bool


def runtime_of(obj: Raw, schema: Raw | None) -> Runtime:
    """From the raw object, and the API group's OpenAPI document (None where it may not be read)."""
    spec = obj["spec"]
    pod = _pod(spec)
    volumes = {
        one["name"]: (one.get("persistentVolumeClaim") or {}).get("claimName") for one in pod.get("volumes") or ()
    }
    trainer = next((one for one in pod.get("containers") or () if one["name"] == CONTAINER), None)
    mounts = (trainer or {}).get("volumeMounts") or ()
    return Runtime(
        name=obj["metadata"]["name"],
        digest=hashlib.sha256(json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()).hexdigest(),
        grace_seconds=int(pod.get("terminationGracePeriodSeconds") or _GRACE_SECONDS),
        claims={one["mountPath"]: claim for one in mounts if (claim := volumes.get(one["name"]))},
        selector=dict(pod.get("nodeSelector") or {}),
        torchrun=trainer is not None and "torch" in (spec.get("mlPolicy") or {}),
        deadlines=schema is not None and _has_deadlines(schema),
    )


def _pod(spec: Raw) -> Raw:
    """The pod of the runtime's trainer."""
    for one in ((spec.get("template") or {}).get("spec") or {}).get("replicatedJobs") or ():
        template = one.get("template") or {}
        labels = (template.get("metadata") or {}).get("labels") or {}
        if labels.get(_STEP) == "trainer":
            return ((template.get("spec") or {}).get("template") or {}).get("spec") or {}
    return {}


def _has_deadlines(schema: Raw) -> bool:
    for one in ((schema.get("components") or {}).get("schemas") or {}).values():
        kinds = {known.get("kind") for known in one.get("x-kubernetes-group-version-kind") or ()}
        if "TrainJob" in kinds:
            return "activeDeadlineSeconds" in one["properties"]["spec"]["properties"]
    return False
