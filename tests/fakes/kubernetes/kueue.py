"""A stand-in for Kueue: a Job with a queue label has a Workload, and is kept suspended until a test admits it.

It is no scheduler: who goes first is the test's to say. What is as in Kueue: the label without it is only a label; the
Workload's name, owner and conditions; that a Job released by hand is suspended again before it has a pod; that the
Workload is finished with its Job; that a queue which is not there, or is held, is said in the Workload's condition.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tests.fakes.kubernetes import conditions
from tests.fakes.kubernetes.controller import finished
from tests.fakes.kubernetes.kinds import JOBS, Kind
from tests.fakes.kubernetes.problems import Json
from tests.fakes.kubernetes.store import Change, Key

if TYPE_CHECKING:
    from tests.fakes.kubernetes.cluster import Cluster

GROUP = "kueue.x-k8s.io"
QUEUE, PRIORITY = f"{GROUP}/queue-name", f"{GROUP}/priority-class"
FULL = (
    "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor default, "
    "1 more needed"
)
KINDS = (
    ("workloads", "Workload", True), ("localqueues", "LocalQueue", True), ("clusterqueues", "ClusterQueue", False),
    ("workloadpriorityclasses", "WorkloadPriorityClass", False),
)  # fmt: skip


def workload_name(job: str, uid: str) -> str:
    """job-NAME-xxxxx."""
    return f"job-{job}-{hashlib.sha256(f'{job}/{uid}'.encode()).hexdigest()[:5]}"


class Kueue:
    """Sees Jobs and queues before the Job controller does."""

    def __init__(self, cluster: Cluster, version: str) -> None:
        self.cluster, self.store = cluster, cluster.store
        made = {
            plural: Kind(group=GROUP, version=version, plural=plural, kind=kind, model=None, namespaced=namespaced)
            for plural, kind, namespaced in KINDS
        }
        self.workloads, self.queues = made["workloads"], made["localqueues"]
        cluster.serve(*made.values())
        seen = Kind(group=f"visibility.{GROUP}", version=version, plural="localqueues", kind="LocalQueue", model=None)
        cluster.serve(seen)
        cluster.parts[seen, "pendingworkloads"] = self._pending
        for plural, kind, namespaced in KINDS:
            names = {"plural": plural, "kind": kind, "singular": kind.lower(), "listKind": f"{kind}List"}
            spec = {"group": GROUP, "names": names, "scope": "Namespaced" if namespaced else "Cluster"}
            spec["versions"] = [{"name": version, "served": True, "storage": True}]
            established = {"type": "Established", "status": "True", "reason": "InitialNamesAccepted"}
            status = {"conditions": [established | {"lastTransitionTime": self.store.now()}]}
            cluster.put("customresourcedefinitions",
                        {"metadata": {"name": f"{plural}.{GROUP}"}, "spec": spec, "status": status})  # fmt: skip
        self.queue: dict[Key, None] = {key: None for key, _ in self.store.scan(JOBS)}
        self.of: dict[Key, str] = {}  # a Job → its Workload
        self.pending: set[Key] = set()  # Jobs that wait to be admitted

    # as a controller

    def see(self, change: Change) -> None:
        key = (change.namespace, change.entry.obj["metadata"]["name"])
        if change.kind is JOBS:
            self.queue[key] = None
        elif change.kind is self.queues:
            self.queue |= dict.fromkeys(one for one in self.pending if one[0] == change.namespace)

    def work(self) -> bool:
        if not self.queue:
            return False
        key = next(iter(self.queue))
        del self.queue[key]
        entry = self.store.find(JOBS, *key)
        if entry is None:
            self._forget(key)
        elif entry.obj["metadata"].get("labels", {}).get(QUEUE):
            self._sync(key, entry.obj)
        return True

    def _sync(self, key: Key, job: Json) -> None:
        there = self.workload(job)
        if there is None and not finished(job):
            there = self._create(key, job)
        if there is None:
            return
        if end := finished(job):
            self.pending.discard(key)
            succeeded = end["type"] == "Complete"
            self._set(there, ("Finished", "True", "Succeeded" if succeeded else "Failed", end["message"]))
            return
        if conditions.holds(there, "Admitted"):
            return
        self.pending.add(key)
        self._set(there, ("QuotaReserved", "False", *self._why(key[0], there)))
        if not job["spec"]["suspend"]:
            self.store.replace(JOBS, key[0], job | {"spec": job["spec"] | {"suspend": True}})
            said = "Not admitted by cluster queue"
            self.cluster.event(job, "Normal", "Stopped", said, source="batch/job-kueue-controller")

    def _why(self, namespace: str, workload: Json) -> tuple[str, str]:
        name = workload["spec"]["queueName"]
        queue = self.store.find(self.queues, namespace, name)
        if queue is None:
            return "Inadmissible", f"LocalQueue {name} doesn't exist"
        spec = queue.obj.get("spec") or {}
        if spec.get("stopPolicy", "None") != "None":
            return "Inadmissible", f"LocalQueue {name} is inactive"
        known = conditions.find(workload, "QuotaReserved")
        if known and known["reason"] == "Pending":
            return "Pending", known["message"]
        return "Pending", FULL

    def _pending(self, namespace: str, name: str) -> Json:
        """What the visibility API says of a LocalQueue: who waits, in order."""
        self.store.get(self.queues, namespace, name)
        found = [entry for _, entry in self.store.scan(self.workloads, namespace)]
        found = [one for one in found if one.obj["spec"]["queueName"] == name and _waits(one.obj)]
        found.sort(
            key=lambda one: (-one.obj["spec"]["priority"], one.obj["metadata"]["creationTimestamp"], one.version)
        )
        items = []
        for place, entry in enumerate(found):
            meta = {key: entry.obj["metadata"][key] for key in ("name", "namespace", "ownerReferences")}
            said = {"priority": entry.obj["spec"]["priority"], "localQueueName": name}
            items.append({"metadata": meta, "positionInClusterQueue": place, "positionInLocalQueue": place} | said)
        return {"kind": "PendingWorkloadsSummary", "metadata": {}, "items": items}

    def _create(self, key: Key, job: Json) -> Json:
        meta, labels = job["metadata"], job["metadata"]["labels"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
        name = workload_name(meta["name"], meta["uid"])
        template = {"metadata": job["spec"]["template"].get("metadata") or {}, "spec": job["spec"]["template"]["spec"]}
        spec = {"active": True, "queueName": labels[QUEUE], "priority": 0}
        spec["podSets"] = [{"name": "main", "count": job["spec"]["parallelism"], "template": template}]
        if PRIORITY in labels:
            spec["priorityClassRef"] = {"group": GROUP, "kind": "WorkloadPriorityClass", "name": labels[PRIORITY]}
        if seconds := labels.get(f"{GROUP}/max-exec-time-seconds"):
            spec["maximumExecutionTimeSeconds"] = int(seconds)
        made = {"metadata": {"name": name, "labels": {f"{GROUP}/job-uid": meta["uid"]}}, "spec": spec, "status": {}}
        made["metadata"]["ownerReferences"] = [owner | {"controller": True, "blockOwnerDeletion": True}]
        self.of[key] = name
        entry = self.store.add(self.workloads, key[0], made)
        said = f"Created Workload: {key[0]}/{name}"
        self.cluster.event(job, "Normal", "CreatedWorkload", said, source="batch/job-kueue-controller")
        return entry.obj

    def _forget(self, key: Key) -> None:
        self.pending.discard(key)
        name = self.of.pop(key, None)
        if name is not None and self.store.find(self.workloads, key[0], name):
            self.store.remove(self.workloads, key[0], name)

    def _set(self, workload: Json, *listed: tuple[str, str, str, str], **more: Json | None) -> Json:
        status = dict(workload.get("status") or {})
        for type_, value, reason, message in listed:
            status["conditions"] = conditions.put(
                status.get("conditions"), type_, value, self.store.now(), reason=reason, message=message
            )
        for name, value in more.items():
            status.pop(name, None)
            status |= {} if value is None else {name: value}
        return self.store.replace(self.workloads, workload["metadata"]["namespace"], workload | {"status": status}).obj

    # on command

    def workload(self, job: Json) -> Json | None:
        """The Workload of a Job, where it has one."""
        meta = job["metadata"]
        found = self.store.find(self.workloads, meta["namespace"], workload_name(meta["name"], meta["uid"]))
        return found.obj if found else None

    def admit(self, job: Json) -> Json:
        """Room is reserved, the Workload admitted, the Job released."""
        workload, key = self._waits(job), (job["metadata"]["namespace"], job["metadata"]["name"])
        reason, message = self._why(key[0], workload)
        if reason == "Inadmissible":
            raise ValueError(message)
        queue = self.store.get(self.queues, key[0], workload["spec"]["queueName"]).obj
        where = str((queue.get("spec") or {}).get("clusterQueue", "cluster"))
        assigned = {"name": "main", "count": workload["spec"]["podSets"][0]["count"]}
        assigned["flavors"] = {"cpu": "default", "memory": "default", "nvidia.com/gpu": "default"}
        said = f"Quota reserved in ClusterQueue {where}"
        listed = [("QuotaReserved", "True", "QuotaReserved", said)]
        listed.append(("Admitted", "True", "Admitted", "The workload is admitted"))
        if conditions.holds(workload, "Evicted"):
            listed.append(("Evicted", "False", "QuotaReserved", f"Previously: {said}"))
        done = self._set(workload, *listed, admission={"clusterQueue": where, "podSetAssignments": [assigned]})
        self.pending.discard(key)
        self.cluster.event(done, "Normal", "Admitted", f"Admitted by ClusterQueue {where}", source="kueue-admission")
        job = self.store.get(JOBS, *key).obj
        self.store.replace(JOBS, key[0], job | {"spec": job["spec"] | {"suspend": False}})
        said = f"Admitted by clusterQueue {where}"
        self.cluster.event(job, "Normal", "Started", said, source="batch/job-kueue-controller")
        return done

    def preempt(self, job: Json, message: str = "Preempted to accommodate a workload with a higher priority") -> Json:
        """Its room goes to another: the Job is suspended, its pod deleted, the Workload waits again."""
        workload, key = self.workload(job), (job["metadata"]["namespace"], job["metadata"]["name"])
        if workload is None or not conditions.holds(workload, "Admitted"):
            raise ValueError(f"{key[1]} is not admitted")
        done = self._set(
            workload, ("QuotaReserved", "False", "Pending", message), ("Evicted", "True", "Preempted", message),
            ("Preempted", "True", "InClusterQueue", message), ("Admitted", "False", "NoReservation", message),
            admission=None,
        )  # fmt: skip
        self.cluster.event(done, "Normal", "Preempted", message, source="kueue-admission")
        self.pending.add(key)
        self.queue[key] = None
        self.cluster.settle()
        return done

    def wait(self, job: Json, message: str) -> Json:
        """Why it is not admitted yet, as the Workload says it."""
        return self._set(self._waits(job), ("QuotaReserved", "False", "Pending", message))

    def _waits(self, job: Json) -> Json:
        workload = self.workload(job)
        if workload is None:
            raise ValueError(f"{job['metadata']['name']} has no Workload: it has no queue label")
        if conditions.holds(workload, "Admitted") or conditions.holds(workload, "Finished"):
            raise ValueError(f"{job['metadata']['name']} does not wait")
        return workload


def _waits(workload: Json) -> bool:
    return not conditions.holds(workload, "Admitted") and not conditions.holds(workload, "Finished")
