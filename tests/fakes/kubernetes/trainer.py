"""A stand-in for Kubeflow Trainer: a TrainJob that is not suspended has a Job, hence pods, as its runtime lays down.

What is as in Trainer (v1alpha1): the fields, and which of them never change; that an unknown runtime is refused; names
and labels of the Job and its pods (the JobSet between is left out); torchrun's environment; that suspending ends the
pods; conditions Suspended, Complete, Failed; the deadline, which ends it, counted from the last release.
"""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.fakes.kubernetes import conditions
from tests.fakes.kubernetes.controller import finished
from tests.fakes.kubernetes.kinds import JOBS, Kind
from tests.fakes.kubernetes.problems import Json, Problem
from tests.fakes.kubernetes.store import Change, Key

if TYPE_CHECKING:
    from tests.fakes.kubernetes.cluster import Cluster

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
STEP = f"{GROUP}/trainjob-ancestor-step"
TRAINER: Json = {
    "image": "string", "command": "array", "args": "array", "numNodes": "integer", "numProcPerNode": "integer",
    "env": [{"name": "string", "value": "string", "valueFrom": "object"}],
    "resourcesPerNode": {"limits": "object", "requests": "object", "claims": "array"},
}  # fmt: skip
SPEC: Json = {
    "runtimeRef": {"apiGroup": "string", "kind": "string", "name": "string"}, "initializer": "object",
    "trainer": TRAINER, "runtimePatches": "array", "suspend": "boolean", "managedBy": "string",
}  # fmt: skip
TOP: Json = {"apiVersion": "string", "kind": "string", "metadata": "object", "status": "object"}
RUNTIMES = Kind(
    group=GROUP, version=VERSION, plural="clustertrainingruntimes", kind="ClusterTrainingRuntime", model=None,
    namespaced=False,
)  # fmt: skip


def runtime(name: str = "torch", **pod: Any) -> Json:
    """A ClusterTrainingRuntime that starts torchrun in a pod that "restricted" admits, with `pod` over it."""
    safe = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "node", "image": "none", "securityContext": safe, "volumeMounts": []}
    spec = {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 60, "containers": [container],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }  # fmt: skip
    job = {"metadata": {"labels": {STEP: "trainer"}}, "spec": {"backoffLimit": 0, "template": {"spec": spec | pod}}}
    template = {"spec": {"replicatedJobs": [{"name": "node", "template": job}]}}
    torch = {"numNodes": 1, "torch": {"numProcPerNode": "auto"}}
    return {"metadata": {"name": name}, "spec": {"mlPolicy": torch, "template": template}}


class Trainer:
    """Sees TrainJobs and their Jobs, behind the Job controller."""

    def __init__(self, cluster: Cluster, *, deadlines: bool) -> None:
        self.cluster, self.store = cluster, cluster.store
        spec = SPEC | ({"activeDeadlineSeconds": "integer"} if deadlines else {})
        self.jobs = Kind(
            group=GROUP, version=VERSION, plural="trainjobs", kind="TrainJob", model=None, shape=TOP | {"spec": spec},
            immutable=("runtimeRef", "initializer", "trainer", "activeDeadlineSeconds", "managedBy"),
        )  # fmt: skip
        cluster.serve(self.jobs, RUNTIMES)
        known = [{"group": GROUP, "version": VERSION, "kind": "TrainJob"}]
        schema = {"x-kubernetes-group-version-kind": known, "properties": {"spec": {"properties": spec}}}
        document = {"components": {"schemas": {"io.kubeflow.trainer.v1alpha1.TrainJob": schema}}}
        cluster.openapi[f"{GROUP}/{VERSION}"] = document
        self.queue: dict[Key, None] = {}
        cluster.put("clustertrainingruntimes", runtime())

    def judge(self, obj: Json) -> None:
        """As Trainer's admission webhook: its runtime must be there."""
        name = obj["spec"]["runtimeRef"]["name"]
        if self.store.find(RUNTIMES, "", name) is None:
            said = (
                f'ClusterTrainingRuntime.{GROUP} "{name}" not found: specified clusterTrainingRuntime must be created'
            )
            raise Problem(
                403, "Forbidden", f'admission webhook "validator.trainjob.{GROUP}" denied the request: {said}'
            )

    def uninstall(self) -> None:
        """As if its definitions were deleted, and with them all TrainJobs."""
        for key, _ in list(self.store.scan(self.jobs)):
            self.store.remove(self.jobs, *key)
        self.cluster.kinds = {key: kind for key, kind in self.cluster.kinds.items() if kind.group != GROUP}

    # as a controller

    def see(self, change: Change) -> None:
        meta = change.entry.obj["metadata"]
        if change.kind is self.jobs:
            self.queue[change.namespace, meta["name"]] = None
        elif change.kind is JOBS and (name := (meta.get("labels") or {}).get("jobset.sigs.k8s.io/jobset-name")):
            self.queue[change.namespace, name] = None

    def work(self) -> bool:
        if not self.queue:
            return False
        key = next(iter(self.queue))
        del self.queue[key]
        entry, job = self.store.find(self.jobs, *key), self.job(key)
        if entry is not None:
            self._sync(key, entry.obj, job)
        elif job is not None:
            self.cluster.jobs.remove(job, "Background")
        return True

    def tick(self) -> None:
        """Ends what is over its deadline."""
        for key, entry in list(self.store.scan(self.jobs)):
            one, held = entry.obj, conditions.find(entry.obj, "Suspended")
            seconds = one["spec"].get("activeDeadlineSeconds")
            if not seconds or one["spec"].get("suspend") or finished(one):
                continue
            since = (held or {}).get("lastTransitionTime") or one["metadata"]["creationTimestamp"]
            if self.store.clock() > datetime.fromisoformat(since) + timedelta(seconds=seconds):
                self._says(key, one, "Failed", "True", "DeadlineExceeded", "TrainJob exceeded its active deadline")
                if (job := self.job(key)) is not None:
                    self.cluster.jobs.remove(job, "Background")

    def job(self, key: Key) -> Json | None:
        """The Job of a TrainJob."""
        found = self.store.find(JOBS, key[0], f"{key[1]}-node-0")
        return found.obj if found else None

    def _sync(self, key: Key, one: Json, job: Json | None) -> None:
        if finished(one):
            return
        suspended = bool(one["spec"].get("suspend"))
        if job is None and not suspended:
            self.cluster.put("jobs", self._job(one), namespace=key[0])
        elif job is not None and job["spec"]["suspend"] is not suspended and not finished(job):
            self.store.replace(JOBS, key[0], job | {"spec": job["spec"] | {"suspend": suspended}})
        if suspended:
            one = self._says(key, one, "Suspended", "True", "Suspended", "TrainJob is suspended")
        elif conditions.find(one, "Suspended"):
            one = self._says(key, one, "Suspended", "False", "Resumed", "TrainJob is resumed")
        end = finished(job) if job is not None else None
        if end is not None:
            reason = "AllJobsCompleted" if end["type"] == "Complete" else "FailedJobs"
            self._says(key, one, end["type"], "True", reason, f"jobset {end['type'].lower()}: {end['message']}")

    def _says(self, key: Key, one: Json, type_: str, value: str, reason: str, message: str) -> Json:
        status = dict(one.get("status") or {})
        status["conditions"] = conditions.put(
            status.get("conditions"), type_, value, self.store.now(), reason=reason, message=message
        )
        return self.store.replace(self.jobs, key[0], one | {"status": status}).obj

    def _job(self, one: Json) -> Json:
        """Of the runtime's template, with the TrainJob's trainer in the container `node`."""
        name, trainer = one["metadata"]["name"], one["spec"].get("trainer") or {}
        found = self.store.get(RUNTIMES, "", one["spec"]["runtimeRef"]["name"]).obj["spec"]["template"]["spec"]
        template = copy.deepcopy(found["replicatedJobs"][0]["template"])
        labels = {"jobset.sigs.k8s.io/jobset-name": name, "jobset.sigs.k8s.io/replicatedjob-name": "node"}
        nodes = trainer.get("numNodes", 1)
        index = {"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
        met = [
            {"name": "PET_NNODES", "value": str(nodes)},
            {"name": "PET_NPROC_PER_NODE", "value": str(trainer.get("numProcPerNode", "auto"))},
            {"name": "PET_NODE_RANK", "valueFrom": index},
            {"name": "PET_MASTER_ADDR", "value": f"{name}-node-0-0.{name}"},
            {"name": "PET_MASTER_PORT", "value": "29500"},
        ]
        pod = template["spec"]["template"]
        pod.setdefault("metadata", {}).setdefault("labels", {}).update(labels)
        for container in pod["spec"]["containers"]:
            if container["name"] == "node":
                container |= {key: trainer[key] for key in ("image", "command", "args") if key in trainer}
                container["env"] = [*container.get("env", []), *trainer.get("env", []), *met]
                container["resources"] = trainer.get("resourcesPerNode") or {}
        many = {"parallelism": nodes, "completions": nodes, "completionMode": "Indexed", "suspend": False}
        return {
            "metadata": {"name": f"{name}-node-0", "labels": labels | template["metadata"]["labels"]},
            "spec": template["spec"] | many,
        }
