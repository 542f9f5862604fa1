"""Pods that live by themselves: scheduled, pulled, run, and over, for tests with more Jobs than one would step through.

Each pod has its task. What really runs for it is the test's: `on_start(pod)` is awaited while the pod is Running, and
what it returns is the exit code. A pod that is deleted meanwhile has its task cancelled, as a kubelet kills it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tests.fakes.kubernetes.controller import OVER, phase
from tests.fakes.kubernetes.kinds import PODS
from tests.fakes.kubernetes.problems import Json
from tests.fakes.kubernetes.store import Change

if TYPE_CHECKING:
    from tests.fakes.kubernetes.cluster import Cluster

OnStart = Callable[[Json], Awaitable[int | None]]
FULL = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."


class Autorun:
    """A scheduler with so many places, and a task for each pod that has one. `errors` are what `on_start` raised."""

    def __init__(
        self, cluster: Cluster, *, seconds: float, pull_seconds: float, capacity: int | None, node: str,
        on_start: OnStart | None, exit_code: int,
    ) -> None:  # fmt: skip
        self.cluster, self.seconds, self.pull_seconds = cluster, seconds, pull_seconds
        self.capacity, self.node, self.on_start, self.exit_code = capacity, node, on_start, exit_code
        self.waiting: deque[str] = deque()  # uids, first come first served
        self.fresh: list[str] = []  # those of them that were not yet told that they wait
        self.pods: dict[str, Json] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.errors: list[Exception] = []
        self.on = True

    def start(self) -> None:
        self.cluster.store.listeners.append(self.see)
        for _, entry in list(self.cluster.store.scan(PODS)):
            self._wanted(entry.obj)
        self._fill()

    def see(self, change: Change) -> None:
        """From within a write: only notes; tasks start when the loop goes on."""
        if change.kind is not PODS or not self.on:
            return
        obj = change.entry.obj
        uid = obj["metadata"]["uid"]
        if change.type == "ADDED":
            self._wanted(obj)
            asyncio.get_running_loop().call_soon(self._fill)
        elif change.type == "DELETED" or "deletionTimestamp" in obj["metadata"] or phase(obj) in OVER:
            self.pods.pop(uid, None)
            task = self.tasks.get(uid)
            if task is not None and task is not asyncio.current_task():
                task.cancel()

    def _wanted(self, pod: Json) -> None:
        if phase(pod) == "Pending" and not pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]:
            self.pods[pod["metadata"]["uid"]] = pod
            self.waiting.append(pod["metadata"]["uid"])
            self.fresh.append(pod["metadata"]["uid"])

    def _fill(self) -> None:
        while self.on and self.waiting and (self.capacity is None or len(self.tasks) < self.capacity):
            uid = self.waiting.popleft()
            pod = self.pods.pop(uid, None)
            if pod is not None:
                task = self.tasks[uid] = asyncio.create_task(self._live(pod))
                task.add_done_callback(lambda _, uid=uid: self._done(uid))  # type: ignore[misc]
        fresh, self.fresh = self.fresh, []
        for uid in fresh if self.on else ():
            pod = self.pods.get(uid)
            if pod is not None:
                self.pods[uid] = self.cluster.unschedulable(pod, FULL)

    def _done(self, uid: str) -> None:
        del self.tasks[uid]
        self._fill()

    async def _live(self, pod: Json) -> None:
        cluster = self.cluster
        cluster.schedule(pod, self.node)
        cluster.pull(pod)
        await asyncio.sleep(self.pull_seconds)
        running = cluster.run(pod)
        try:
            await asyncio.sleep(self.seconds)
            code = await self.on_start(running) if self.on_start else None
        except Exception as error:
            self.errors.append(error)
            code = 1
        code = self.exit_code if code is None else code
        if code:
            cluster.fail(pod, code)
        else:
            cluster.succeed(pod)

    async def stop(self) -> None:
        """No pod starts any more; what runs for those that did is cancelled, their status stays."""
        self.on = False
        if self.see in self.cluster.store.listeners:
            self.cluster.store.listeners.remove(self.see)
        tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
