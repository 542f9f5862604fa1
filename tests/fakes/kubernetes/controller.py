"""The Job controller and the garbage collector, run to the end after every write, so that a test never waits for them.

As in the real one: a pod counts once, when it is over and still has the finalizer `batch.kubernetes.io/job-tracking`,
which is then taken off; a Job that is to fail or succeed says so first (FailureTarget, SuccessCriteriaMet) and is
Failed or Complete when its last pod is over; suspending is no failure, it takes the finalizer off and deletes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol

from tests.fakes.kubernetes import conditions
from tests.fakes.kubernetes.events import Recorder
from tests.fakes.kubernetes.kinds import JOBS, NAMESPACES, PODS, QUOTAS
from tests.fakes.kubernetes.problems import Json, Problem
from tests.fakes.kubernetes.schema import quantity
from tests.fakes.kubernetes.store import Change, Key, Store

TRACKING = "batch.kubernetes.io/job-tracking"
FOREGROUND = "foregroundDeletion"
INDEX = "batch.kubernetes.io/job-completion-index"
OVER = ("Succeeded", "Failed")
LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Host(Protocol):
    """What the controller needs of the cluster around it."""

    store: Store
    event: Recorder

    def create_pod(self, namespace: str, pod: Json) -> Json:
        """Through admission; a `Problem` if it is refused."""

    def terminate(self, pod: Json, grace: int | None = None) -> None:
        """Deletes one pod as the API does, gracefully."""


def phase(pod: Json) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def finished(job: Json) -> Json | None:
    """The condition that ended the Job."""
    return next((conditions.find(job, one) for one in ("Complete", "Failed") if conditions.holds(job, one)), None)


def _active(pod: Json) -> bool:
    return phase(pod) not in OVER and "deletionTimestamp" not in pod["metadata"]


def _indexes(text: str) -> set[int]:
    """ "0,2-4" → {0, 2, 3, 4}."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _ranges(found: set[int]) -> str:
    """{0, 2, 3, 4} → "0,2-4"; two neighbours are written "2,3"."""
    runs: list[list[int]] = []
    for one in sorted(found):
        if runs and runs[-1][-1] == one - 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


class JobController:
    """`see` notes what changed, `work` does all that is noted; `tick` looks at the clock."""

    def __init__(self, host: Host) -> None:
        self.host, self.store = host, host.store
        self.queue: dict[Key, None] = {}
        self.owned: dict[str, dict[Key, None]] = {}  # a Job's uid → its pods, oldest first
        self.waiting: set[Key] = set()  # Jobs whose pods were refused
        self.woken: set[Key] = set()  # those of them that try again, for there is room or time went by
        self.deadlines: dict[Key, datetime] = {}  # Jobs that the clock ends or removes, and when

    def see(self, change: Change) -> None:
        key = (change.namespace, change.entry.obj["metadata"]["name"])
        if change.kind is JOBS:
            self.queue[key] = None
        elif change.kind is QUOTAS and _eased(change):
            self._wake(one for one in self.waiting if one[0] == change.namespace)
        elif change.kind is NAMESPACES:
            self._wake(one for one in self.waiting if one[0] == key[1])
        elif change.kind is PODS:
            owner = _owner(change.entry.obj)
            if change.before is not None and (old := _owner(change.before.obj)) and old != owner:
                self.owned.get(old["uid"], {}).pop(key, None)
            if owner is None:
                return
            if change.type == "DELETED":
                self.owned.get(owner["uid"], {}).pop(key, None)
            else:
                self.owned.setdefault(owner["uid"], {})[key] = None
            self.queue[change.namespace, owner["name"]] = None

    def work(self) -> bool:
        """True if there was something to do."""
        if not self.queue:
            return False
        key = next(iter(self.queue))
        del self.queue[key]
        entry = self.store.find(JOBS, *key)
        if entry is None:
            self.waiting.discard(key)
            self.deadlines.pop(key, None)
        else:
            self._sync(key, entry.obj)
        return True

    def tick(self) -> None:
        """Notes the Jobs whose time is over, and those whose pods were refused; then removes what outlived its TTL."""
        now = self.store.clock()
        self._wake(self.waiting)
        for key in [key for key, when in self.deadlines.items() if when <= now]:
            del self.deadlines[key]
            job = self.store.get(JOBS, *key).obj
            if finished(job):
                self.remove(job, "Background")
            else:
                self.queue[key] = None

    def _wake(self, keys: Iterable[Key]) -> None:
        found = list(keys)
        self.woken.update(found)
        self.queue |= dict.fromkeys(found)

    def pods(self, job: Json) -> list[Json]:
        keys = self.owned.get(job["metadata"]["uid"], {})
        return [self.store.get(PODS, *key).obj for key in keys]

    def remove(self, job: Json, propagation: str) -> None:
        """Deletes a Job with its pods (Background), before them (Foreground: it waits) or without them (Orphan)."""
        meta = job["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        if propagation == "Foreground":
            if "deletionTimestamp" not in meta:
                marks = {"deletionTimestamp": self.store.now(), "deletionGracePeriodSeconds": 0}
                marks["finalizers"] = [*meta.get("finalizers", []), FOREGROUND]
                self.store.replace(JOBS, namespace, job | {"metadata": meta | marks})
            return
        pods = self.pods(job)
        self.store.remove(JOBS, namespace, name)
        for pod in pods:
            self._release(pod, orphan=propagation == "Orphan")
            if propagation != "Orphan":
                self._terminate(pod)

    # one Job

    def _sync(self, key: Key, job: Json) -> None:
        pods = self.pods(job)
        if "deletionTimestamp" in job["metadata"]:
            self._finish_deletion(job, pods)
            return
        if finished(job):
            for pod in pods:
                self._release(pod)
            if key not in self.deadlines:
                self._remind(key, job)
            return
        spec, status = job["spec"], dict(job.get("status") or {})
        listed, now = list(status.get("conditions") or []), self.store.now()
        over = [pod for pod in pods if phase(pod) in OVER and TRACKING in pod["metadata"].get("finalizers", ())]
        ends = next((one for one in listed if one["type"] in ("FailureTarget", "SuccessCriteriaMet")), None)
        why = (ends["reason"], ends["message"]) if ends else None
        done = _indexes(status.get("completedIndexes", ""))
        if not spec["suspend"]:
            status.setdefault("startTime", now)  # before its deadline is looked at
        for pod in over:
            if phase(pod) == "Succeeded":
                status["succeeded"] = status.get("succeeded", 0) + 1
                done.add(int((pod["metadata"].get("annotations") or {}).get(INDEX, 0)))
                continue
            action, message = _judged(spec, pod)
            if action != "Ignore":
                status["failed"] = status.get("failed", 0) + 1
            if action == "FailJob" and why is None:
                why = ("PodFailurePolicy", message)
        if spec["completionMode"] == "Indexed" and done:
            status["completedIndexes"] = _ranges(done)
        if why is None:
            why = self._ending(spec, status)
        success = why is not None and why[0] == "CompletionsReached"
        remaining = [pod for pod in pods if phase(pod) not in OVER]
        told: list[tuple[str, str, str]] = []
        if why is not None:
            interim, final = ("SuccessCriteriaMet", "Complete") if success else ("FailureTarget", "Failed")
            more = {"reason": why[0], "message": why[1], "lastProbeTime": now}
            listed = conditions.put(listed, interim, "True", now, **more)
            if not remaining:
                listed = conditions.put(listed, final, "True", now, **more)
                told = [("Normal", "Completed", "Job completed")] if success else [("Warning", *why)]
                if success:
                    status["completionTime"] = now
        elif spec["suspend"]:
            suspended = any(one["type"] == "Suspended" and one["status"] == "True" for one in listed)
            more = {"reason": "JobSuspended", "message": "Job suspended", "lastProbeTime": now}
            if not suspended:
                listed = conditions.put(listed, "Suspended", "True", now, **more)
                told = [("Normal", "Suspended", "Job suspended")]
            status.pop("startTime", None)
        else:
            if any(one["type"] == "Suspended" and one["status"] == "True" for one in listed):
                more = {"reason": "JobResumed", "message": "Job resumed", "lastProbeTime": now}
                listed = conditions.put(listed, "Suspended", "False", now, **more)
                told = [("Normal", "Resumed", "Job resumed")]
        status |= {"conditions": listed} if listed else {}
        runs = why is None and not spec["suspend"]
        missing = self._missing(spec, status, pods, done) if runs else []
        tries = key not in self.waiting or key in self.woken
        made = [pod for index in missing if (pod := self._create(job, index))] if tries else []
        (self.waiting.add if len(made) < len(missing) else self.waiting.discard)(key)
        self.woken.discard(key)
        stopped = not runs
        kept = [pod for pod in pods if _active(pod) and not stopped] + made
        leaving = [pod for pod in pods if phase(pod) not in OVER and pod not in kept]
        status |= {"ready": sum(conditions.holds(pod, "Ready") for pod in kept), "terminating": len(leaving)}
        status |= {"uncountedTerminatedPods": {}}
        status.pop("active", None)
        if kept:
            status["active"] = len(kept)
        self._remind(key, job | {"status": status})
        self.store.replace(JOBS, key[0], job | {"status": status})
        for kind, reason, message in told:
            self.host.event(job, kind, reason, message, source="job-controller")
        for pod in made:
            message = f"Created pod: {pod['metadata']['name']}"
            self.host.event(job, "Normal", "SuccessfulCreate", message, source="job-controller")
        for pod in over:
            self._release(pod)
        for pod in pods if stopped else ():
            if _active(pod):
                if why is None:
                    self._release(pod)  # suspended: its end is not a failure
                self._terminate(pod)
                message = f"Deleted pod: {pod['metadata']['name']}"
                self.host.event(job, "Normal", "SuccessfulDelete", message, source="job-controller")

    def _ending(self, spec: Json, status: Json) -> tuple[str, str] | None:
        if status.get("failed", 0) > spec["backoffLimit"]:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        deadline, started = spec.get("activeDeadlineSeconds"), status.get("startTime")
        if deadline is not None and started and not spec["suspend"]:
            over = datetime.fromisoformat(started) + timedelta(seconds=deadline)
            if self.store.clock() >= over:
                return "DeadlineExceeded", "Job was active longer than specified deadline"
        if status.get("succeeded", 0) >= spec["completions"]:
            return "CompletionsReached", "Reached expected number of succeeded pods"
        return None

    def _remind(self, key: Key, job: Json) -> None:
        self.deadlines.pop(key, None)
        end, spec, started = finished(job), job["spec"], job["status"].get("startTime")
        after = spec.get("ttlSecondsAfterFinished") if end else spec.get("activeDeadlineSeconds")
        since = end["lastTransitionTime"] if end else started
        if after is not None and since:
            self.deadlines[key] = datetime.fromisoformat(since) + timedelta(seconds=after)

    def _missing(self, spec: Json, status: Json, pods: list[Json], done: set[int]) -> list[int]:
        """Which pods to create: one index each."""
        early = spec["podReplacementPolicy"] == "TerminatingOrFailed"
        there = [pod for pod in pods if (_active(pod) if early else phase(pod) not in OVER)]
        left = spec["completions"] - status.get("succeeded", 0)
        room = min(spec["parallelism"], left) - len(there)
        if spec["completionMode"] != "Indexed":
            return [0] * max(room, 0)
        taken = done | {int(pod["metadata"]["annotations"][INDEX]) for pod in there}
        return [index for index in range(spec["completions"]) if index not in taken][: max(room, 0)]

    def _create(self, job: Json, index: int) -> Json | None:
        try:
            return self.host.create_pod(job["metadata"]["namespace"], _pod(job, index))
        except Problem as problem:
            self.host.event(job, "Warning", "FailedCreate", f"Error creating: {problem}", source="job-controller")
            return None

    def _release(self, pod: Json, *, orphan: bool = False) -> None:
        """Takes the finalizer off: the pod is counted, or does not count."""
        there = self.store.find(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        if there is None:
            return
        meta = dict(there.obj["metadata"])
        meta["finalizers"] = [one for one in meta.get("finalizers", ()) if one != TRACKING]
        if not meta["finalizers"]:
            del meta["finalizers"]
        if orphan:
            meta.pop("ownerReferences", None)
        self.store.replace(PODS, meta["namespace"], there.obj | {"metadata": meta})

    def _terminate(self, pod: Json) -> None:
        there = self.store.find(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        if there is not None:
            self.host.terminate(there.obj)

    def _finish_deletion(self, job: Json, pods: list[Json]) -> None:
        for pod in pods:
            self._release(pod)
            if "deletionTimestamp" not in pod["metadata"]:
                self._terminate(pod)
        meta = job["metadata"]
        if not self.pods(job) and FOREGROUND in meta.get("finalizers", ()):
            kept = [one for one in meta["finalizers"] if one != FOREGROUND]
            self.store.replace(JOBS, meta["namespace"], job | {"metadata": meta | {"finalizers": kept}})


def _eased(change: Change) -> bool:
    """Whether a quota may have room that it had not: it is new or gone, says other things, or less is used."""
    if change.before is None or change.type == "DELETED":
        return True
    old, new = change.before.obj, change.entry.obj
    if old.get("spec") != new.get("spec"):
        return True
    used, was = ((one.get("status") or {}).get("used") or {} for one in (new, old))
    return any(quantity(used.get(name, 0)) < quantity(value) for name, value in was.items())


def _owner(obj: Json) -> Json | None:
    return next((one for one in obj["metadata"].get("ownerReferences") or () if one["kind"] == "Job"), None)


def _judged(spec: Json, pod: Json) -> tuple[str, str]:
    """The first rule of the failure policy that fits: its action, and the message if it fails the Job."""
    meta, status = pod["metadata"], pod.get("status") or {}
    for place, rule in enumerate((spec.get("podFailurePolicy") or {}).get("rules") or []):
        for wanted in rule.get("onPodConditions") or []:
            found = conditions.find(pod, wanted["type"])
            if found is not None and found["status"] == wanted.get("status", "True"):
                said = f"Pod {meta['namespace']}/{meta['name']} has condition {wanted['type']} matching"
                return rule["action"], f"{said} {rule['action']} rule at index {place}"
        codes: Any = rule.get("onExitCodes")
        for one in status.get("containerStatuses") or [] if codes else ():
            code = (one["state"].get("terminated") or {}).get("exitCode", 0)
            if code == 0 or codes.get("containerName", one["name"]) != one["name"]:
                continue
            if (code in codes["values"]) is (codes["operator"] == "In"):
                said = (
                    f"Container {one['name']} for pod {meta['namespace']}/{meta['name']} failed with exit code {code}"
                )
                return rule["action"], f"{said} matching {rule['action']} rule at index {place}"
    return "Count", ""


def _pod(job: Json, index: int, choose: Callable[..., list[str]] = random.choices) -> Json:
    """The pod of one index: NAME-0-xxxxx, owned by the Job, with the labels that name both."""
    template, name = job["spec"]["template"], job["metadata"]["name"]
    tail = "".join(choose(LETTERS, k=5))
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if key in ("labels", "annotations")}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
    owner |= {"controller": True, "blockOwnerDeletion": True}
    meta |= {"ownerReferences": [owner], "finalizers": [TRACKING]}
    spec = dict(template["spec"])
    if job["spec"]["completionMode"] != "Indexed":
        return {"metadata": meta | {"name": f"{name}-{tail}", "generateName": f"{name}-"}, "spec": spec}
    meta |= {"name": f"{name}-{index}-{tail}", "generateName": f"{name}-{index}-"}
    meta["annotations"] = (meta.get("annotations") or {}) | {INDEX: str(index)}
    meta["labels"] = (meta.get("labels") or {}) | {INDEX: str(index)}
    where = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
    known = {"name": "JOB_COMPLETION_INDEX", "valueFrom": where}
    for group in ("containers", "initContainers"):
        if group in spec:
            spec[group] = [one | {"env": [*(one.get("env") or []), known]} for one in spec[group]]
    return {"metadata": meta, "spec": spec | {"hostname": f"{name}-{index}"}}
