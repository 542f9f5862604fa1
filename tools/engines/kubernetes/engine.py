"""The port over a cluster. Each training is one Job, or one TrainJob where it takes several nodes (`forms`): created
suspended, released once by its uid, read from streams.

Cancelling is a patch too, because the Role has no right to delete: a Job whose time is cut to nothing ends as failed,
its pods with it (the kubelet sends SIGTERM, after the grace time SIGKILL), and its time to live removes it. A TrainJob
is suspended, which ends its pods alike. A Job that was never released is let go with no time left, so that it ends
before it has a pod; one in a queue does, once that lets it go. All are marked, so that whoever observes knows why.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from tools.cost import Resources
from tools.engines.base import (
    EngineRefused,
    EngineUnavailable,
    NameTaken,
    Observation,
    Standing,
    Submission,
    must_be_for,
)
from tools.engines.kubernetes import manifest, reading, trainjob
from tools.engines.kubernetes.connection import Connection, Problem, Unreachable, translated
from tools.engines.kubernetes.forms import JOB, TRAIN_JOB, Form, belongs
from tools.engines.kubernetes.logs import LOOK_SECONDS, Logs
from tools.engines.kubernetes.machines import Machines
from tools.engines.kubernetes.manifest import (
    CANCELLED,
    DIGEST,
    MAX_EXEC,
    QUEUE,
    RELEASED,
    RUNTIME,
    WANTED_QUEUE,
    ClusterSettings,
)
from tools.engines.kubernetes.places import Places
from tools.engines.kubernetes.preflight import checked, found, queues_in, runtime, several
from tools.engines.kubernetes.reflector import Kind, Reflector
from tools.engines.kubernetes.runtimes import Runtime
from tools.engines.kubernetes.waiting import GONE_AT, lost
from tools.progress import Progress
from tools.spec import TrainingSpec

LAG_SECONDS = 2.0  # that the pods' stream may be behind the Jobs', when a Job has ended
RELEASES = 4  # tries, when the cluster's own controllers change it at the same moment

Raw = dict[str, Any]


class KubernetesEngine:
    """Opened at its first request; `aclose` ends its streams. `max_jobs`: trainings that may wait in the cluster."""

    name = "kubernetes"

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        kubeconfig: str | None = None,
        max_jobs: int = 20,
        look_seconds: float = LOOK_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._here = settings  # as they hold in the cluster, by the last preflight
        self._runtime: Runtime | None = None  # and what it found for several nodes
        self._max_jobs = max_jobs
        self._clock = clock
        self._connection = Connection(kubeconfig)
        self._core = f"/api/v1/namespaces/{settings.namespace}"
        self._logs = Logs(self._connection, settings.namespace, look_seconds)
        self.reflector = Reflector(self._connection, settings.namespace, manifest.SELECTOR)
        self._places = Places(self._connection, settings.namespace, self.reflector.pods)
        self._machines = Machines(self._connection, settings.product_label)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self.reflector.aclose()
        await self._connection.aclose()

    async def preflight(self, spec: TrainingSpec) -> None:
        """Refuse what this cluster could never run; what is rendered next is what was found now."""
        async with _translated():
            here = await checked(spec, self._settings, self._connection)
            runs_in = await several(spec, here, self._connection) if spec.machines > 1 else None
            self._here, self._runtime = here, runs_in

    async def offers(self) -> str:
        """Whether a queue decides when they start, and whether one may take several nodes."""
        async with _translated():
            here = await found(self._settings, self._connection)
            there = await runtime(here.runtime, self._connection) if here.runtime else None
        starts = f"wait in the queue {here.queue}" if here.queue else "start at once"
        more = f"; several nodes by TrainJobs in the runtime {there.name}" if there else ""
        if here.runtime and there is None:
            more = f"; one node each, for there is no runtime {here.runtime}"
        return f"{self.name}: Jobs in the namespace {here.namespace} {starts}{more}"

    def resources(self, spec: TrainingSpec) -> Resources:
        """What the pod requests; a GPU's hour includes its host."""
        return Resources(
            cpu_cores=self._settings.cpu_cores,
            gpus=spec.gpus,
            gpu_product=self._settings.gpu_product if spec.gpus else None,
            memory_gib=manifest.memory_gib(spec, self._settings),
            nodes=spec.machines,
        )

    def render(self, spec: TrainingSpec) -> dict[str, Any]:
        """The exact Job or TrainJob, with what a card shows of it beside."""
        if spec.machines > 1:
            assert self._runtime is not None, "preflight finds it, or refuses"
            return trainjob.document(spec, self._here, self._runtime)
        return manifest.document(spec, self._here)

    async def free_slots(self) -> int:
        """How many may wait at once. Who runs when is the cluster's own decision."""
        return self._max_jobs

    async def create(self, submission: Submission) -> str:
        """Put there, suspended. One of that name with the same digest is this very one: an answer was lost."""
        must_be_for(self.name, submission.manifest)
        form = TRAIN_JOB if "train_job" in submission.manifest else JOB
        job = (trainjob if form is TRAIN_JOB else manifest).complete(submission)
        where = job["metadata"].setdefault("namespace", self._settings.namespace)
        if where != self._settings.namespace:
            raise EngineRefused(
                f"It was approved for the namespace {where}, and Signalbox now works in {self._settings.namespace}. "
                "Propose it again."
            )
        async with _translated(submission.name):
            await self._must_have(reading.notes_on(job).get(WANTED_QUEUE))
            if form is TRAIN_JOB:
                await self._must_run_in(**submission.manifest["runtime"])
            try:
                made = await self._connection.post(self._path(form), job, fieldValidation="Strict")
            except Problem as problem:
                if problem.code != 409 or problem.reason != "AlreadyExists":
                    raise
                made = await self._connection.get(self._path(form, submission.name))
        if reading.notes_on(made).get(DIGEST) != submission.digest:
            raise NameTaken(
                f"There is another {form.kind} by the name {submission.name} in the namespace {where}; it was left "
                f"alone. Delete that {form.kind} to go on."
            )
        self._streams(form)[0].put(made)
        return str(made["metadata"]["uid"])

    async def _must_have(self, queue: str | None) -> None:
        """What was approved to wait for its turn never starts without a queue, nor waits in one that is gone."""
        if queue is None:
            return
        queues = await queues_in(self._settings.namespace, self._connection)
        if queues is not None and queue not in queues:
            raise EngineRefused(
                f"It was approved to wait in Kueue's queue {queue}, and there is none by that name any more. "
                "Make that queue again, or propose the training anew."
            )

    async def _must_run_in(self, name: str, digest: str) -> None:
        """The runtime is a part of what was approved."""
        there = await runtime(name, self._connection)
        if there is None:
            raise EngineRefused(
                f"It was approved to run in Kubeflow Trainer's runtime {name}, and the cluster does not have that any "
                "more. Make it again, or propose the training anew."
            )
        if there.digest != digest:
            raise EngineRefused(
                f"The runtime {name} is not as it was when this was approved, so it was not started. "
                "Propose the training anew."
            )

    def _path(self, form: Form, name: str = "") -> str:
        path = form.of(self._settings.namespace)
        return f"{path}/{name}" if name else path

    def _streams(self, form: Form) -> tuple[Kind, Kind]:
        """Where objects of this form and their pods are kept up to date."""
        seen = self.reflector
        return (seen.jobs, seen.pods) if form is JOB else (seen.train_jobs, seen.train_pods)

    def _forms(self) -> list[Form]:
        """Those that there may be: where TrainJobs are made, that none may be seen does not mean that none is there."""
        return [JOB, TRAIN_JOB] if self._settings.runtime or self.reflector.train_jobs.served else [JOB]

    async def release(self, name: str, uid: str) -> None:
        """By a patch that carries the uid and the version that was read, so that no late repetition undoes a cancel."""
        async with _translated(name):
            for _ in range(RELEASES):
                form, job = await self._found(name, uid)
                told = reading.notes_on(job)
                if RELEASED in told or CANCELLED in told:
                    return
                if form is TRAIN_JOB:  # Trainer reads the runtime anew when it lets a TrainJob go
                    await self._must_run_in(job["spec"]["runtimeRef"]["name"], told.get(RUNTIME, ""))
                try:
                    patched = await self._connection.patch(self._path(form, name), _release(job))
                    self._streams(form)[0].put(patched)
                    return
                except Problem as problem:
                    if problem.code != 409:
                        raise
        raise EngineUnavailable(f"The job {name} changes all the time and was not released yet; it is tried again.")

    async def _found(self, name: str, uid: str) -> tuple[Form, Raw]:
        form, job = await self._looked_up(name)
        if job is None:
            raise EngineRefused(f"The job {name} is not in the cluster any more; it was not started.")
        if job["metadata"]["uid"] != uid:
            raise EngineRefused(f"The job {name} is not the one that was created; it was not started.")
        return form, job

    async def _looked_up(self, name: str) -> tuple[Form, Raw | None]:
        """In the cluster itself."""
        for form in self._forms():
            try:
                return form, await self._connection.get(self._path(form, name))
            except Problem as problem:
                if not _missing(problem):
                    raise
        return JOB, None

    async def cancel(self, name: str, uid: str) -> None:
        """End it for good. One that is gone or was replaced has nothing left to cancel."""
        async with _translated(name):
            form, there = self._known(name)
            if there is None:
                form, there = await self._looked_up(name)
            if there is None or there["metadata"]["uid"] != uid or CANCELLED in reading.notes_on(there):
                return
            try:
                patched = await self._connection.patch(self._path(form, name), _cancel(form, there))
                self._streams(form)[0].put(patched)
            except Problem as problem:
                replaced = problem.code == 422 and "metadata.uid" in problem.message
                if not replaced and not _missing(problem):
                    raise

    def _known(self, name: str) -> tuple[Form, Raw | None]:
        """As the streams have it, while they are fresh."""
        if self.reflector.fresh:
            for form in (JOB, TRAIN_JOB):
                if (there := self._streams(form)[0].objects.get(name)) is not None:
                    return form, there
        return JOB, None

    async def observe(self, name: str) -> Observation:
        """From the streams while they are fresh. That a Job is not there is always asked of the API server itself."""
        async with _translated(name):
            await self.reflector.begun()
            form, job = self._known(name)
            pods = await self._streamed(form, job) if job is not None else None
            events = list(self.reflector.events.objects.values())
            if pods is None:
                job, pods, events = await self._asked(name)
            if job is None:
                job, pods = self._bereft(name)
            if job is None:
                return Observation(standing=Standing.ABSENT)
            pods = [pod for pod in pods if belongs(pod, job)]
            place, machines = await self._places.of(job, pods), await self._machines.of(pods)
            progress = await self._progress(job, pods)
            return reading.observation(job, pods, events, progress, place, machines, self._clock())

    def _bereft(self, name: str) -> tuple[Raw | None, list[Raw]]:
        """One that was deleted, while pods of it still hold their nodes: in their grace time, or left on purpose."""
        for form in (JOB, TRAIN_JOB):
            kept, kept_pods = self._streams(form)
            pods = kept_pods.of(name)
            for job in kept.of(name):
                mine = [pod for pod in pods if belongs(pod, job) and not reading.over(pod)]
                if GONE_AT in job and not all(lost(pod, self._clock()) for pod in mine):
                    return job, pods
        return None, []

    async def _streamed(self, form: Form, job: Raw) -> list[Raw] | None:
        """Its pods as their stream tells them. None if the Job is over and its pods seem not to be, even a bit later:
        what a training left behind (its exit status, its end) must not be missed for a stream that lags. A TrainJob is
        over before its pods are."""
        name, kept = job["metadata"]["name"], self._streams(form)[1]
        if form is TRAIN_JOB or not reading.ended(job):
            return kept.of(name)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAG_SECONDS):
                while pods := kept.of(name):
                    if all(reading.over(pod) for pod in pods if belongs(pod, job)):
                        return pods
                    await asyncio.sleep(LAG_SECONDS / 40)
        return None

    async def _asked(self, name: str) -> tuple[Raw | None, list[Raw], list[Raw]]:
        """The same by requests: the object, its pods (with those remembered), the namespace's warnings."""
        form, job = await self._looked_up(name)
        if job is None:
            return None, [], []
        kept, kept_pods = self._streams(form)
        kept.put(job)
        pods, events = await asyncio.gather(
            self._connection.get(f"{self._core}/pods", labelSelector=f"{form.labels[0]}={name}"),
            self._connection.get(f"{self._core}/events", fieldSelector="type=Warning", limit=500),
        )
        version = str((pods.get("metadata") or {}).get("resourceVersion") or "")
        return job, kept_pods.compared(name, pods["items"], version), list(events["items"])

    async def _progress(self, job: Raw, pods: Sequence[Mapping[str, Any]]) -> Progress:
        pod = reading.newest(job, pods)
        if pod is None:
            return Progress()
        meta = pod["metadata"]
        return await self._logs.progress(meta["name"], str(meta["uid"]), over=reading.over(pod), gone=GONE_AT in pod)

    async def logs(self, name: str, lines: int) -> Sequence[str]:
        """The tail of the newest pod's log."""
        async with _translated(name):
            job, pods, _ = await self._asked(name)
            pod = reading.newest(job, pods) if job is not None and lines > 0 else None
            if pod is None:
                return []
            try:
                return await self._logs.tail(pod["metadata"]["name"], lines)
            except Problem as problem:
                if problem.code in (400, 404):  # its container has not started, or the pod is gone
                    return []
                raise


def _missing(problem: Problem) -> bool:
    """Whether it is the object, or its kind, that is not there, by the API's own words, and not the namespace."""
    told = problem.reason == "NotFound" or problem.message.startswith("404 page not found")  # else a proxy's page
    return problem.code == 404 and told and "namespaces" not in problem.message


def _release(job: Raw) -> Raw:
    """Without a queue it starts now; in one it stays suspended, and Kueue starts it when its turn comes."""
    meta = job["metadata"]
    patch: Raw = {
        "metadata": {
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            "annotations": {RELEASED: datetime.now(UTC).isoformat(timespec="seconds")},
        }
    }
    queue = reading.notes_on(job).get(WANTED_QUEUE)
    if queue is None:
        return patch | {"spec": {"suspend": False}}
    patch["metadata"]["labels"] = {QUEUE: queue, MAX_EXEC: str(job["spec"]["activeDeadlineSeconds"])}
    return patch


def _cancel(form: Form, obj: Raw) -> Raw:
    """A Job that no queue holds back is let go as well: with no time left it ends before it has a pod."""
    mark = {CANCELLED: datetime.now(UTC).isoformat(timespec="seconds")}
    free = form is JOB and QUEUE not in (obj["metadata"].get("labels") or {})
    spec = {**form.stop, "suspend": False} if free else dict(form.stop)
    return {"metadata": {"uid": obj["metadata"]["uid"], "annotations": mark}, "spec": spec}


@asynccontextmanager
async def _translated(name: str = "") -> AsyncIterator[None]:
    """What went wrong on the way, as sentences of ours."""
    try:
        yield
    except (Problem, Unreachable) as error:
        raise translated(error, name) from error
