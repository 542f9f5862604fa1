"""The fake cluster in a process of its own, filled with trainings, ordered over HTTP: for benches that count CPU.

    python -m tests.bench.cluster KUBECONFIG --running 1000 --finished 10000

It writes KUBECONFIG and prints the address that takes orders, once all is there. Times are `time.time()` of this
machine, which all processes on it share.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from bot.settings import SOURCE
from tests.fakes.kubernetes import Cluster
from tests.fakes.kubernetes.kinds import JOBS
from tests.fakes.kubernetes.store import Change
from tests.world import World
from tools.engines.base import Submission
from tools.engines.kubernetes import manifest
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.rates import RateCard
from tools.spec import parse_spec

NAMESPACE = "training"
DIGEST = "d" * 64
LONG = {"max_runtime_minutes": 60}  # more than the bench takes on a slow machine
CLOSE_SECONDS = 2.0  # between two ends of all streams, where that is the fault
RATES = {"version": "r1", "effective_from": "2026-01-01T00:00:00Z", "cpu_core_hour": "0.05", "memory_gib_hour": "0.01"}
SPEAK_SECONDS = 10.0  # between two lines of progress of one training
PROGRESS = 'SIGNALBOX {{"event": "progress", "step": {step}, "steps": 10000, "loss": 0.5}}'
DONE = 'SIGNALBOX {"event": "result", "metrics": {"val_accuracy": 0.97}}'


class Trainings:
    """What runs, and what is done to it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._running: dict[str, str] = {}  # proposal → Job
        self._pods: dict[str, str] = {}  # Job → pod
        self._step = 0
        self.uids: dict[str, str] = {}
        self.seen: dict[str, dict[str, float]] = {}  # Job → when it was there, when it was released
        cluster.store.listeners.append(self._see)

    def _see(self, change: Change) -> None:
        if change.kind is not JOBS or change.type == "DELETED":
            return
        obj = change.entry.obj
        times = self.seen.setdefault(obj["metadata"]["name"], {"there": time.time()})
        if not obj["spec"].get("suspend"):
            times.setdefault("released", time.time())

    def fill(self, running: int, finished: int) -> None:
        """Jobs with their pods, as a cluster has them after a day."""
        for number in range(1, running + 1):
            name = f"run-{number}"
            made = self._put(job(name, f"p{number}"))
            (pod,) = self._cluster.pods(name)
            self._cluster.schedule(pod)
            self._cluster.pull(pod)
            pod = self._cluster.run(pod)
            self._cluster.put("pods", {"metadata": {"name": pod["metadata"]["name"], "managedFields": _fields()}})
            self._running[f"p{number}"], self._pods[name] = name, pod["metadata"]["name"]
            self.uids[name] = made["metadata"]["uid"]
        over = [{"type": "Complete", "status": "True", "lastTransitionTime": self._cluster.store.now()}]
        for number in range(1, finished + 1):
            name = f"old-{number}"
            made = self._put(job(name, f"q{number}") | {"status": {"conditions": over, "succeeded": 1}})
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": made["metadata"]["uid"]}
            meta = pod["metadata"] | {"name": f"{name}-0-x", "managedFields": _fields(), "ownerReferences": [owner]}
            meta["labels"] = meta["labels"] | {"job-name": name, "batch.kubernetes.io/job-name": name}
            meta.pop("finalizers", None)
            done = _ended(pod["status"], self._cluster.store.now())
            self._cluster.put("pods", {"metadata": meta, "spec": pod["spec"], "status": done})

    def _put(self, made: dict[str, Any]) -> dict[str, Any]:
        made["metadata"]["managedFields"] = _fields()
        return self._cluster.put("jobs", made)

    def end(self) -> dict[str, Any]:
        """One training ends well; whose, and when."""
        proposal = next(iter(self._running))
        name = self._running.pop(proposal)
        pod = self._pods.pop(name)
        self._cluster.log(pod, DONE)
        at = time.time()
        self._cluster.succeed(pod)
        return {"proposal": proposal, "at": at}

    async def speak(self) -> None:
        """Every training tells its progress now and then."""
        while True:
            begun = time.monotonic()
            self._step += 1
            for pod in list(self._pods.values()):
                self._cluster.log(pod, PROGRESS.format(step=self._step))
            await asyncio.sleep(SPEAK_SECONDS - (time.monotonic() - begun))


def job(name: str, proposal: str) -> dict[str, Any]:
    shown = manifest.document(parse_spec("digits", LONG), ClusterSettings(namespace=NAMESPACE))
    made = manifest.complete(
        Submission(
            name=name, proposal_id=proposal, digest=DIGEST, manifest=shown, run_id="r", tracking_uri="http://mlflow"
        )
    )
    made["spec"]["suspend"] = False
    made["metadata"]["annotations"][manifest.RELEASED] = "2026-11-24T12:00:00+00:00"
    return made


def _fields() -> list[dict[str, Any]]:
    """As large as a real object's."""
    names = {f"f:field-{number}": {".": {}, f"k:{number}": {"f:name": {}}} for number in range(40)}
    return [{"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:spec": names}}]


def _ended(status: dict[str, Any], now: str) -> dict[str, Any]:
    end = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
    containers = [one | {"state": {"terminated": end}, "ready": False} for one in status["containerStatuses"]]
    return status | {"phase": "Succeeded", "containerStatuses": containers}


class Orders:
    """What the bench asks for."""

    def __init__(self, cluster: Cluster, trainings: Trainings) -> None:
        self._cluster = cluster
        self._trainings = trainings
        self._closing: asyncio.Task[None] | None = None

    def application(self) -> web.Application:
        made = web.Application()
        asked: dict[str, Callable[[dict[str, Any]], Any]] = {
            "/fault": self._fault,
            "/end": lambda _: self._trainings.end(),
            "/uids": lambda _: self._trainings.uids,
            "/seen": lambda _: self._trainings.seen,
            "/figures": lambda _: self._figures(),
        }
        for path, answer in asked.items():
            made.router.add_post(path, _answering(answer))
        return made

    def _fault(self, order: dict[str, Any]) -> dict[str, Any]:
        """One of the faults that clients of the API are known to fail at; nothing ends it."""
        what, cluster = order["what"], self._cluster
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        cluster.streams.expired = what == "expired"
        cluster.spoil_all(what if what in ("429", "500", "hang") else "")
        if what == "closed":
            self._closing = asyncio.create_task(self._close())
        elif what == "silent":
            cluster.silence_watches()
        elif what:
            cluster.close_watches()
        return {}

    async def _close(self) -> None:
        while True:
            self._cluster.close_watches()
            await asyncio.sleep(CLOSE_SECONDS)

    def _figures(self) -> dict[str, Any]:
        """Since the last time that this was asked."""
        cluster = self._cluster
        asked = {" ".join(key): number for key, number in cluster.counts.items()}
        told = {"asked": asked, "listed": dict(cluster.listed), "streams": cluster.streams.most}
        cluster.requests.clear()
        cluster.listed.clear()
        cluster.streams.most = cluster.streams.now
        return told


def _answering(answer: Callable[[dict[str, Any]], Any]) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response(answer(await request.json()))

    return handle


async def _serve(kubeconfig: Path, running: int, finished: int) -> None:
    async with Cluster() as cluster:
        trainings = Trainings(cluster)
        trainings.fill(running, finished)
        if not running:
            cluster.autorun()  # what is created from now on ends at once, and waits in nobody's way
        cluster.compact()
        cluster.kubeconfig(kubeconfig)
        runner = web.AppRunner(Orders(cluster, trainings).application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
        await trainings.speak()


@asynccontextmanager
async def world_over(url: str, kubeconfig: Path) -> AsyncIterator[World]:
    """The real time, and the real engine."""
    world = World(url=url, clock=lambda: datetime.now(UTC), rates=RateCard.parse({"versions": [RATES]}))  # type: ignore[arg-type]
    async with KubernetesEngine(ClusterSettings(namespace=NAMESPACE), kubeconfig=str(kubeconfig)) as engine:
        world.engine = engine  # type: ignore[assignment]
        yield world


class Far:
    """A fake cluster's orders, given from another process."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def __call__(self, order: str, **given: Any) -> Any:
        async with self._session.post(f"{self._address}/{order}", json=given) as response:
            response.raise_for_status()
            return await response.json()


@asynccontextmanager
async def far_cluster(kubeconfig: Path, *, running: int = 0, finished: int = 0) -> AsyncIterator[Far]:
    """A process with the fake cluster, while the block runs."""
    counts = ("--running", str(running), "--finished", str(finished))
    async with (
        process("-m", "tests.bench.cluster", str(kubeconfig), *counts) as one,
        aiohttp.ClientSession() as session,
    ):
        yield Far(session, await line_of(one))


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process of the bench's, ended with the block."""
    one = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=SOURCE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        yield one
    finally:
        if one.returncode is None:
            one.kill()
        await one.wait()


async def line_of(one: asyncio.subprocess.Process) -> str:
    assert one.stdout is not None
    line = (await one.stdout.readline()).decode().strip()
    assert line, "a process of the bench ended early; its words are above"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kubeconfig", type=Path)
    parser.add_argument("--running", type=int, default=0)
    parser.add_argument("--finished", type=int, default=0)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.kubeconfig, arguments.running, arguments.finished))


if __name__ == "__main__":
    main()
