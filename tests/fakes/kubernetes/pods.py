"""The scheduler and the kubelet, on command: each step writes the pod's status as the real ones do, and their events.

A pod is given by its name (in `training`) or as an object, and the fresh object comes back; if the step let it go, the
last that was known of it.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Any

from tests.fakes.kubernetes import conditions
from tests.fakes.kubernetes.controller import OVER, JobController, phase
from tests.fakes.kubernetes.events import Recorder
from tests.fakes.kubernetes.kinds import JOBS, NODES, PODS
from tests.fakes.kubernetes.problems import Json
from tests.fakes.kubernetes.store import Store, stamp

Pod = str | Json
NODE = "node-0"
UNREADY = "ContainersNotReady"
REFUSED = (
    "failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
)  # fmt: skip


class Kubelet:
    """Steps of a pod's life. A part of `Cluster`, which has the store, the events and the controller."""

    store: Store
    event: Recorder
    jobs: JobController
    slow_termination: bool = False  # a deleted pod stays until `finish_termination`

    # reading

    def pod(self, pod: Pod, namespace: str = "training") -> Json:
        """As it is now."""
        if isinstance(pod, str):
            return self.store.get(PODS, namespace, pod).obj
        return self.store.get(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"]).obj

    def pods(self, job_name: str, namespace: str = "training") -> list[Json]:
        """The pods of a Job, oldest first, with those that are over."""
        return self.jobs.pods(self.store.get(JOBS, namespace, job_name).obj)

    # the scheduler

    def schedule(self, pod: Pod, node: str = NODE) -> Json:
        """Bound to a node, where its containers wait for their images."""
        there = self.pod(pod)
        if there["spec"].get("nodeName"):
            raise ValueError(f"{there['metadata']['name']} is already on {there['spec']['nodeName']}")
        now = self.store.now()
        status = dict(there.get("status") or {})
        status["conditions"] = conditions.put(status.get("conditions"), "PodScheduled", "True", now)
        bound = self.store.replace(
            PODS, there["metadata"]["namespace"],
            there | {"spec": there["spec"] | {"nodeName": node}, "status": status},
        ).obj  # fmt: skip
        meta = bound["metadata"]
        said = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        self.event(bound, "Normal", "Scheduled", said, source="default-scheduler")
        more = {"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}], "startTime": now}
        return self._waiting(bound, "ContainerCreating", sandbox=False, **more)

    def unschedulable(self, pod: Pod, message: str = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.") -> Json:
        """No node takes it: the condition and a FailedScheduling Warning."""
        there = self.pod(pod)
        if there["spec"].get("nodeName"):
            raise ValueError(f"{there['metadata']['name']} is already on {there['spec']['nodeName']}")
        more = {"reason": "Unschedulable", "message": message}
        found = self._status(there, listed=[("PodScheduled", "False", more)], phase="Pending")
        self.event(found, "Warning", "FailedScheduling", message, source="default-scheduler")
        return found

    # the kubelet

    def pull(self, pod: Pod) -> Json:
        """Pulls the images: the containers still wait, the sandbox is there."""
        there = self._on_node(pod, "Pending")
        for one in there["spec"]["containers"]:
            self.event(there, "Normal", "Pulling", f'Pulling image "{one["image"]}"', source="kubelet")
        return self._waiting(there, "ContainerCreating", sandbox=True)

    def image_pull_backoff(self, pod: Pod, message: str = "") -> Json:
        """The image is not to be had: ErrImagePull first, then ImagePullBackOff; the pod stays Pending for ever."""
        there = self._on_node(pod, "Pending")
        image = there["spec"]["containers"][0]["image"]
        why = message or f"rpc error: code = NotFound desc = {REFUSED.format(image=image)}"
        self.event(there, "Normal", "Pulling", f'Pulling image "{image}"', source="kubelet")
        there = self._waiting(there, "ErrImagePull", sandbox=True, message=why)
        self.event(there, "Warning", "Failed", f'Failed to pull image "{image}": {why}', source="kubelet")
        self.event(there, "Warning", "Failed", "Error: ErrImagePull", source="kubelet")
        there = self._waiting(there, "ImagePullBackOff", sandbox=True, message=f'Back-off pulling image "{image}"')
        self.event(there, "Normal", "BackOff", f'Back-off pulling image "{image}"', source="kubelet")
        self.event(there, "Warning", "Failed", "Error: ImagePullBackOff", source="kubelet")
        return there

    def run(self, pod: Pod) -> Json:
        """Its containers run and are ready."""
        there = self._on_node(pod, "Pending")
        now = self.store.now()
        statuses = [
            self._container(one, {"running": {"startedAt": now}}, ready=True, id_=_container_id())
            for one in there["spec"]["containers"]
        ]
        found = self._status(
            there, phase="Running", podIP="10.244.0.7", podIPs=[{"ip": "10.244.0.7"}], containerStatuses=statuses,
            listed=[("PodReadyToStartContainers", "True", {}), ("Initialized", "True", {}), ("Ready", "True", {}),
                    ("ContainersReady", "True", {})],
        )  # fmt: skip
        for one in there["spec"]["containers"]:
            said = f'Successfully pulled image "{one["image"]}" in 1s (1s including waiting)'
            self.event(found, "Normal", "Pulled", said, source="kubelet")
            self.event(found, "Normal", "Created", f"Container created: {one['name']}", source="kubelet")
            self.event(found, "Normal", "Started", f"Container started: {one['name']}", source="kubelet")
        return found

    def succeed(self, pod: Pod) -> Json:
        return self._over(self._on_node(pod, "Running"), "Succeeded", 0, "Completed")

    def fail(self, pod: Pod, exit_code: int = 1, reason: str = "Error", message: str = "") -> Json:
        """Its containers ended by themselves; OOMKilled is always 137. `message` is the termination message."""
        code = 137 if reason == "OOMKilled" else exit_code
        if code == 0:
            raise ValueError("a container that exits 0 has not failed")
        return self._over(self._on_node(pod, "Running"), "Failed", code, reason, message=message)

    def evict(self, pod: Pod, reason: str = "TerminationByKubelet", message: str = "") -> Json:
        """Failed with DisruptionTarget. By the kubelet the object stays; by the Eviction API or preemption it goes."""
        there = self.pod(pod)
        if phase(there) in OVER:
            raise ValueError(f"{there['metadata']['name']} is over: {phase(there)}")
        words = {
            "TerminationByKubelet": "The node was low on resource: memory.",
            "EvictionByEvictionAPI": "Eviction API: evicting",
            "PreemptionByScheduler": "default-scheduler: preempting to accommodate a higher priority pod",
        }
        message = message or words[reason]
        listed = [("DisruptionTarget", "True", {"reason": reason, "message": message})]
        if reason == "TerminationByKubelet":
            found = self._over(there, "Failed", 137, "Error", listed=listed, why={"reason": "Evicted"} | _said(message))
            self.event(found, "Warning", "Evicted", message, source="kubelet")
            return found
        found = self._status(there, listed=listed)
        if reason == "PreemptionByScheduler":
            self.event(found, "Normal", "Preempted", message, source="default-scheduler")
        self.terminate(found)
        return found

    def lose_node(self, pod: Pod) -> Json:
        """Its node answers no more: nobody says how the containers ended, they read as running to the last."""
        there = self._on_node(pod)
        node = there["spec"]["nodeName"]
        if known := self.store.find(NODES, "", node):
            status = dict(known.obj.get("status") or {})
            more = {"reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
            listed = conditions.put(status.get("conditions"), "Ready", "Unknown", self.store.now(), **more)
            self.store.replace(NODES, "", known.obj | {"status": status | {"conditions": listed}})
        why = {"reason": "DeletionByTaintManager", "message": "Taint manager: deleting due to NoExecute taint"}
        found = self._status(there, listed=[("Ready", "False", {}), ("DisruptionTarget", "True", why)])
        self.event(found, "Warning", "NodeNotReady", "Node is not ready", source="node-controller")
        meta = found["metadata"]
        said = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
        self.event(found, "Normal", "TaintManagerEviction", said, source="taint-eviction-controller")
        self._mark(found, None)
        if not self.slow_termination:
            self._end_deletion(self.pod(found), lost=True)
        return found

    # deletion

    def terminate(self, pod: Pod, grace: int | None = None) -> None:
        """Deleted as the API does: at once if nothing of it runs, else marked, and gone when the kubelet is done."""
        there = self.pod(pod)
        meta = there["metadata"]
        if grace == 0 or not there["spec"].get("nodeName") or phase(there) in OVER:
            self.store.remove(PODS, meta["namespace"], meta["name"])
            return
        if "deletionTimestamp" in meta:
            return
        there = self._mark(there, grace)
        for one in there["spec"]["containers"]:
            self.event(there, "Normal", "Killing", f"Stopping container {one['name']}", source="kubelet")
        if not self.slow_termination:
            self._end_deletion(self.pod(there))

    def finish_termination(self) -> None:
        """What is being deleted has stopped, and goes."""
        for _, entry in list(self.store.scan(PODS)):
            there = self.store.find(PODS, entry.obj["metadata"]["namespace"], entry.obj["metadata"]["name"])
            if there is not None and "deletionTimestamp" in there.obj["metadata"]:
                self._end_deletion(there.obj, lost=conditions.holds(there.obj, "DisruptionTarget"))

    def _mark(self, pod: Json, grace: int | None) -> Json:
        seconds = pod["spec"].get("terminationGracePeriodSeconds", 30) if grace is None else grace
        end = stamp(datetime.fromisoformat(self.store.now()) + timedelta(seconds=seconds))
        meta = pod["metadata"] | {"deletionTimestamp": end, "deletionGracePeriodSeconds": seconds}
        return self.store.replace(PODS, meta["namespace"], pod | {"metadata": meta}).obj

    def _end_deletion(self, pod: Json, *, lost: bool = False) -> None:
        meta = pod["metadata"]
        if phase(pod) not in OVER:
            if lost and (conditions.find(pod, "DisruptionTarget") or {}).get("reason") == "DeletionByTaintManager":
                self._status(pod, phase="Failed")
            else:
                self._over(pod, "Failed", 143, "Error")
        there = self.store.find(PODS, meta["namespace"], meta["name"])
        if there is not None:
            done = there.obj["metadata"] | {"deletionGracePeriodSeconds": 0}
            self.store.replace(PODS, meta["namespace"], there.obj | {"metadata": done})

    # shapes

    def _on_node(self, pod: Pod, wanted: str = "") -> Json:
        """The pod, if it is where that step is possible: on a node, not over, in the `wanted` phase."""
        there = self.pod(pod)
        name, now = there["metadata"]["name"], phase(there)
        if not there["spec"].get("nodeName"):
            raise ValueError(f"{name} is on no node: schedule it first")
        if now in OVER:
            raise ValueError(f"{name} is over: {now}")
        if wanted and now != wanted:
            raise ValueError(f"{name} is {now} and not {wanted}")
        return there

    def _status(self, pod: Json, *, listed: list[tuple[str, str, Json]] | None = None, **fields: Any) -> Json:
        status, now = dict(pod.get("status") or {}), self.store.now()
        for type_, value, more in listed or ():
            more = {"lastProbeTime": None} | more
            status["conditions"] = conditions.put(status.get("conditions"), type_, value, now, **more)
        made = pod | {"status": status | {key: value for key, value in fields.items() if value is not None}}
        return self.store.replace(PODS, pod["metadata"]["namespace"], made).obj

    def _waiting(self, pod: Json, reason: str, *, sandbox: bool, message: str = "", **fields: Any) -> Json:
        names = [one["name"] for one in pod["spec"]["containers"]]
        unready = {"reason": UNREADY, "message": f"containers with unready status: [{' '.join(names)}]"}
        waiting = {"waiting": {"reason": reason} | _said(message)}
        statuses = [self._container(one, waiting, ready=False) for one in pod["spec"]["containers"]]
        return self._status(
            pod, phase="Pending", containerStatuses=statuses, **fields,
            listed=[("PodReadyToStartContainers", "True" if sandbox else "False", {}), ("Initialized", "True", {}),
                    ("Ready", "False", unready), ("ContainersReady", "False", unready)],
        )  # fmt: skip

    def _container(self, one: Json, state: Json, *, ready: bool, id_: str = "") -> Json:
        made = {"name": one["name"], "image": one["image"], "imageID": "", "ready": ready, "started": ready}
        made |= {"restartCount": 0, "state": state, "lastState": {}}
        if id_:
            made |= {"containerID": id_, "imageID": f"docker.io/library/{one['image']}@sha256:{'0' * 64}"}
        return made

    def _over(
        self, pod: Json, ends: str, code: int, reason: str, *, message: str = "",
        listed: list[tuple[str, str, Json]] | None = None, why: Json | None = None,
    ) -> Json:  # fmt: skip
        """All containers ended; what never started has no start."""
        now, before = self.store.now(), {}
        for one in (pod.get("status") or {}).get("containerStatuses") or []:
            before[one["name"]] = one
        statuses = []
        for one in pod["spec"]["containers"]:
            old = before.get(one["name"]) or {"state": {}}
            started = (old["state"].get("running") or {}).get("startedAt")
            if started is None and ends == "Failed":
                gone = {"exitCode": 137, "reason": "ContainerStatusUnknown"}
                gone |= {"message": "The container could not be located when the pod was terminated"}
                gone |= {"startedAt": None, "finishedAt": None}
                statuses.append(self._container(one, {"terminated": gone}, ready=False))
                continue
            end = {"exitCode": code, "reason": reason, "startedAt": started or now, "finishedAt": now} | _said(message)
            id_ = old.get("containerID") or _container_id()
            shape = self._container(one, {"terminated": end | {"containerID": id_}}, ready=False, id_=id_)
            statuses.append(shape)
        word = {"reason": "PodCompleted" if ends == "Succeeded" else "PodFailed"}
        first = word if ends == "Succeeded" else {}
        if not pod["spec"].get("nodeName"):
            return self._status(pod, phase=ends, listed=listed, **(why or {}))
        return self._status(
            pod, phase=ends, containerStatuses=statuses, **(why or {}),
            listed=[("PodReadyToStartContainers", "False", {}), ("Initialized", "True", first),
                    ("Ready", "False", word), ("ContainersReady", "False", word), *(listed or [])],
        )  # fmt: skip


def _said(message: str) -> Json:
    return {"message": message} if message else {}


def _container_id() -> str:
    return "containerd://" + uuid.uuid4().hex * 2
