"""The API server with a cluster behind it: Jobs get pods, pods live as a test commands, the clock is the test's.

`KubernetesServer` alone stores what it is given. `Cluster` is that with the Job controller (`controller`), a scheduler
and kubelets on command (`pods`), admission (`admission`) and, when installed, a stand-in for Kueue (`kueue`).
Controllers run to the end after each write: what a request caused is there when its answer is.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.fakes.kubernetes import jobs
from tests.fakes.kubernetes.admission import Admission, Matches
from tests.fakes.kubernetes.autorun import Autorun, OnStart
from tests.fakes.kubernetes.controller import JobController
from tests.fakes.kubernetes.events import Recorder
from tests.fakes.kubernetes.kinds import JOBS, PODS, Kind
from tests.fakes.kubernetes.kueue import Kueue
from tests.fakes.kubernetes.pods import NODE, Kubelet, Pod
from tests.fakes.kubernetes.problems import Json
from tests.fakes.kubernetes.server import KubernetesServer
from tests.fakes.kubernetes.store import Change, Entry
from tests.fakes.kubernetes.trainer import Trainer


class Cluster(Kubelet, KubernetesServer):
    """`async with Cluster() as cluster`: what a test drives, and what the client talks to."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.event = Recorder(self.store)
        self.jobs = JobController(self)
        self.admission = Admission(self.store)
        self.controllers: list[Any] = [
            self.admission,
            self.jobs,
        ]  # each sees every change, then works until none has work
        self._working = False
        self._running: list[Autorun] = []
        self.kueue: Kueue | None = None
        self.trainer: Trainer | None = None
        self.store.listeners.append(self._changed)
        self.put("nodes", {"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}, "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                            "lastTransitionTime": self.store.now()}],
        }})  # fmt: skip

    def _changed(self, change: Change) -> None:
        for one in self.controllers:
            one.see(change)
        if not self._working:
            self.settle()

    def settle(self) -> None:
        """Until no controller has work."""
        self._working = True
        try:
            while any(one.work() for one in self.controllers):
                pass
        finally:
            self._working = False

    # the clock

    def tick(self) -> None:
        """Looks at the clock: deadlines, TTLs, and pods that were refused and are tried again."""
        self.jobs.tick()
        if self.trainer is not None:
            self.trainer.tick()
        self.settle()

    def advance(self, seconds: float) -> datetime:
        """The clock stands still from here on, that much later; then `tick`."""
        then = self.clock() + timedelta(seconds=seconds)
        self.clock = lambda: then
        self.tick()
        return then

    def autorun(
        self, *, seconds: float = 0.0, pull_seconds: float = 0.0, capacity: int | None = None, node: str = NODE,
        on_start: OnStart | None = None, exit_code: int = 0,
    ) -> Autorun:  # fmt: skip
        """From here on every pod runs by itself, `seconds` long and as long as `on_start(pod)` takes, `capacity` at a
        time (the rest is unschedulable meanwhile). It ends with what `on_start` returns, else with `exit_code`."""
        made = Autorun(self, seconds=seconds, pull_seconds=pull_seconds, capacity=capacity, node=node,
                       on_start=on_start, exit_code=exit_code)  # fmt: skip
        self._running.append(made)
        made.start()
        return made

    def install_kueue(self, *, version: str = "v1beta2", queues: tuple[str, ...] = ("training",)) -> Kueue:
        """From here on the queue label means something; LocalQueues of these names are there."""
        self.kueue = Kueue(self, version)
        self.controllers.insert(0, self.kueue)
        for name in queues:
            self.put("localqueues", {"metadata": {"name": name}, "spec": {"clusterQueue": "cluster"}})
        self.settle()
        return self.kueue

    def install_trainer(self, *, deadlines: bool = True) -> Trainer:
        """From here on TrainJobs get pods; before Kubeflow Trainer 2.2 they had no deadline of their own."""
        self.trainer = Trainer(self, deadlines=deadlines)
        self.controllers.append(self.trainer)
        return self.trainer

    def admit(self, job: Pod, namespace: str = "training") -> Json:
        """Kueue lets the Job go; its Workload."""
        assert self.kueue is not None, "install_kueue first"
        return self.kueue.admit(self.job(job, namespace))

    def preempt(self, job: Pod, namespace: str = "training") -> Json:
        assert self.kueue is not None, "install_kueue first"
        return self.kueue.preempt(self.job(job, namespace))

    def job(self, job: Pod, namespace: str = "training") -> Json:
        """A Job as it is now, by name or by an older object."""
        if isinstance(job, str):
            return self.store.get(JOBS, namespace, job).obj
        return self.store.get(JOBS, job["metadata"]["namespace"], job["metadata"]["name"]).obj

    async def __aexit__(self, *raised: Any) -> None:
        for one in self._running:
            await one.stop()
        await super().__aexit__(*raised)

    # what the API asks for

    def put(self, plural: str, obj: Json, *, namespace: str = "training") -> Json:
        if plural == "jobs" and self.store.find(JOBS, namespace, obj["metadata"]["name"]) is None:
            made = jobs.defaults(obj) | ({"status": obj["status"]} if "status" in obj else {})
            return self.store.add(JOBS, namespace, made, complete=jobs.labelled).obj
        if plural == "pods" and self.store.find(PODS, namespace, obj["metadata"]["name"]) is None:
            obj = {"spec": {"containers": []}, "status": {"phase": "Pending"}} | obj
        return super().put(plural, obj, namespace=namespace)

    def judge(self, kind: Kind, namespace: str, obj: Json) -> None:
        self.admission.judge(kind, namespace, obj)
        if self.trainer is not None and kind is self.trainer.jobs:
            self.trainer.judge(obj)

    def create(self, kind: Kind, namespace: str, obj: Json) -> Entry:
        entry = super().create(kind, namespace, obj)
        if kind is not PODS:
            return entry
        status = {"phase": "Pending", "qosClass": jobs.quality(obj["spec"])}
        return self.store.replace(PODS, namespace, entry.obj | {"status": status})

    def create_pod(self, namespace: str, pod: Json) -> Json:
        """What a controller creates: as through the API, so it may be refused."""
        pod = pod | {"spec": jobs.pod_defaults(pod["spec"])}
        self.judge(PODS, namespace, pod)
        return self.create(PODS, namespace, pod).obj

    def refuse(self, message: str, *, resource: str = "jobs", matches: Matches | None = None) -> None:
        """From here on an admission webhook denies such creates (those that match), by the API or by a controller."""
        self.admission.refusals.append((resource, message, matches))

    def delete(self, kind: Kind, namespace: str, name: str, options: Json) -> Json | None:
        """The object if it is still there, marked; a Job's pods are orphaned unless the request says otherwise."""
        if kind is PODS:
            self.terminate(self.store.get(kind, namespace, name).obj, options.get("gracePeriodSeconds"))
        elif kind is JOBS:
            policy = options.get("propagationPolicy") or "Orphan"
            self.jobs.remove(self.store.get(kind, namespace, name).obj, policy)
        else:
            self.store.remove(kind, namespace, name)
        there = self.store.find(kind, namespace, name)
        return there.obj if there else None
