"""The cluster engine over the fake API server, with the real client: lives of Jobs, faults, and streams."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.kubernetes import KubernetesServer
from tests.fakes.kubernetes.kinds import Kind as FakeKind
from tools.engines.base import (
    EngineRefused,
    EngineUnavailable,
    NameTaken,
    Observation,
    Standing,
    StopReason,
    Submission,
)
from tools.engines.kubernetes import connection, reflector
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.engines.kubernetes.reflector import Kind
from tools.progress import ExitCode
from tools.spec import parse_spec

SETTINGS = ClusterSettings(namespace="training")
SPEC = parse_spec("digits", {})
LOCAL_QUEUES = FakeKind(group="kueue.x-k8s.io", version="v1beta2", plural="localqueues", kind="LocalQueue", model=None)
NAME = "digits-7-c53b6e"
LINE = 'SIGNALBOX {{"event": "progress", "step": {step}, "steps": 10, "loss": 0.5}}'


@pytest.fixture
async def cluster() -> AsyncIterator[KubernetesServer]:
    async with KubernetesServer() as server:
        yield server


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(reflector, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(connection, "SECONDS", 3.0)


@pytest.fixture
async def engine(cluster: KubernetesServer, tmp_path: Path) -> AsyncIterator[KubernetesEngine]:
    async with KubernetesEngine(
        SETTINGS, kubeconfig=str(cluster.kubeconfig(tmp_path / "kubeconfig")), look_seconds=0
    ) as made:
        yield made


def submission(engine: KubernetesEngine, digest: str = "d" * 64) -> Submission:
    return Submission(
        name=NAME,
        proposal_id="c53b6e",
        digest=digest,
        manifest=engine.render(SPEC),
        run_id="r1",
        tracking_uri="http://mlflow:5000",
    )


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class World:
    """What a cluster's own controllers do to the one Job here."""

    def __init__(self, cluster: KubernetesServer) -> None:
        self._cluster = cluster

    def pod(self, name: str = f"{NAME}-0-x", **status: Any) -> None:
        uid = self.job()["metadata"]["uid"]
        labels = {"app.kubernetes.io/managed-by": "signalbox", "batch.kubernetes.io/job-name": NAME}
        meta = {"name": name, "labels": labels, "ownerReferences": [{"kind": "Job", "name": NAME, "uid": uid}]}
        containers = [{"name": "trainer", "image": "trainer:1"}]
        self._cluster.put("pods", {"metadata": meta, "spec": {"containers": containers}, "status": status})

    def runs(self, name: str = f"{NAME}-0-x") -> None:
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
        self.pod(name, phase="Running", conditions=[scheduled])

    def ends(self, code: int, name: str = f"{NAME}-0-x", **state: Any) -> None:
        told = {"terminated": {"exitCode": code, "finishedAt": now(), **state}}
        statuses = [{"name": "trainer", "state": told}]
        self.pod(name, phase="Failed" if code else "Succeeded", containerStatuses=statuses)

    def concludes(self, kind: str, reason: str = "") -> None:
        conditions = [{"type": kind, "status": "True", "reason": reason, "message": reason}]
        self._cluster.put("jobs", {"metadata": {"name": NAME}, "status": {"conditions": conditions}})

    def job(self) -> dict[str, Any]:
        kind = next(one for one in self._cluster.store.objects if one.plural == "jobs")
        return self._cluster.store.get(kind, "training", NAME).obj

    def removes(self, plural: str, name: str) -> None:
        kind = next(one for one in self._cluster.store.objects if one.plural == plural)
        self._cluster.store.remove(kind, "training", name)


@pytest.fixture
def world(cluster: KubernetesServer) -> World:
    return World(cluster)


async def until(engine: KubernetesEngine, holds: Callable[[Observation], bool]) -> Observation:
    async with asyncio.timeout(5):
        while not holds(seen := await engine.observe(NAME)):
            await asyncio.sleep(0.01)
    return seen


async def stands(engine: KubernetesEngine, standing: Standing) -> Observation:
    return await until(engine, lambda seen: seen.standing is standing)


async def test_a_whole_life(cluster: KubernetesServer, engine: KubernetesEngine, world: World) -> None:
    await engine.preflight(SPEC)
    assert (await engine.observe(NAME)).standing is Standing.ABSENT
    await engine.reflector.ready()
    uid = await engine.create(submission(engine))
    seen = await engine.observe(NAME)  # at once: an answer overtakes the stream
    assert (seen.standing, seen.uid, seen.digest) == (Standing.SUSPENDED, uid, "d" * 64)
    await engine.release(NAME, uid)
    assert (await engine.observe(NAME)).standing is Standing.PENDING
    await engine.release(NAME, uid)  # once more starts nothing anew
    assert world.job()["spec"]["suspend"] is False
    world.runs()
    cluster.log(f"{NAME}-0-x", "Training on 4 cores")
    cluster.log(f"{NAME}-0-x", LINE.format(step=3))
    seen = await stands(engine, Standing.RUNNING)
    assert (len(seen.attempts), seen.progress.step) == (1, 3)
    cluster.log(f"{NAME}-0-x", LINE.format(step=9))
    cluster.log(f"{NAME}-0-x", 'SIGNALBOX {"event": "result", "metrics": {"val_accuracy": 0.97}}')
    cluster.log(f"{NAME}-0-x", "\x1b[32mdone\x1b[0m")
    assert (await until(engine, lambda seen: seen.progress.step == 9)).standing is Standing.RUNNING
    world.ends(0)
    world.concludes("Complete")
    seen = await stands(engine, Standing.ENDED)
    assert (seen.exit_code, seen.stopped) == (0, None)
    assert seen.progress.result == {"val_accuracy": 0.97}
    assert seen.attempts[0].ended_at is not None
    assert await engine.logs(NAME, 10) == ["Training on 4 cores", "done"]
    assert await engine.logs(NAME, 1) == ["done"]


async def test_without_streams_the_same_is_asked(
    cluster: KubernetesServer, engine: KubernetesEngine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.reflector, "start", lambda: None)
    uid = await engine.create(submission(engine))
    assert (await engine.observe(NAME)).standing is Standing.SUSPENDED
    await engine.release(NAME, uid)
    world.runs()
    assert (await engine.observe(NAME)).standing is Standing.RUNNING
    world.ends(2)
    world.concludes("Failed", "PodFailurePolicy")
    seen = await engine.observe(NAME)
    assert (seen.standing, seen.exit_code) == (Standing.ENDED, ExitCode.BAD_INPUT)
    assert ("watch", "jobs") not in cluster.requests


async def test_a_second_try_is_a_second_attempt(engine: KubernetesEngine, world: World) -> None:
    await engine.release(NAME, await engine.create(submission(engine)))
    world.runs()
    world.ends(1)
    await until(engine, lambda seen: seen.standing is Standing.PENDING and len(seen.attempts) == 1)
    world.runs(f"{NAME}-0-y")
    seen = await stands(engine, Standing.RUNNING)
    assert [one.ended_at is None for one in seen.attempts] == [False, True]


async def test_a_deleted_pod_is_remembered(engine: KubernetesEngine, world: World) -> None:
    await engine.reflector.ready()
    uid = await engine.create(submission(engine))
    await engine.release(NAME, uid)
    world.runs()
    await stands(engine, Standing.RUNNING)
    await engine.cancel(NAME, uid)
    assert (await engine.observe(NAME)).standing is Standing.RUNNING  # until the last pod is gone
    world.ends(4)
    world.removes("pods", f"{NAME}-0-x")
    world.concludes("Failed", "DeadlineExceeded")
    seen = await stands(engine, Standing.ENDED)
    assert (seen.exit_code, seen.stopped, len(seen.attempts)) == (4, StopReason.CANCELLED, 1)
    assert seen.attempts[0].estimated is False


async def test_a_pod_that_goes_while_nobody_looks(
    cluster: KubernetesServer, engine: KubernetesEngine, world: World
) -> None:
    await engine.reflector.ready()
    await engine.release(NAME, await engine.create(submission(engine)))
    world.runs()
    await stands(engine, Standing.RUNNING)
    await engine.reflector.aclose()
    world.removes("pods", f"{NAME}-0-x")
    cluster.compact()
    engine.reflector.start()
    seen = await until(engine, lambda seen: seen.standing is Standing.PENDING)
    assert [one.estimated for one in seen.attempts] == [True]


async def test_cancelled_before_its_start(engine: KubernetesEngine, world: World) -> None:
    uid = await engine.create(submission(engine))
    await engine.cancel(NAME, uid)
    await engine.cancel(NAME, uid)
    world.concludes("Failed", "DeadlineExceeded")
    seen = await stands(engine, Standing.ENDED)
    assert (seen.standing, seen.stopped, seen.attempts) == (Standing.ENDED, StopReason.CANCELLED, ())
    await engine.release(NAME, uid)  # one that was under way undoes nothing
    spec = world.job()["spec"]  # it may go, with no time left: a cluster ends it before it has a pod, and removes it
    assert (spec["suspend"], spec["activeDeadlineSeconds"]) == (False, 0)


async def test_only_what_the_policy_allows_is_patched(engine: KubernetesEngine, world: World) -> None:
    uid = await engine.create(submission(engine))
    before = world.job()
    await engine.release(NAME, uid)
    await engine.cancel(NAME, uid)
    after = world.job()
    changed = {key for key in after["spec"] if after["spec"][key] != before["spec"].get(key)}
    assert changed <= {"suspend", "activeDeadlineSeconds"}
    changed = {key for key in after["metadata"] if after["metadata"][key] != before["metadata"].get(key)}
    assert changed <= {"labels", "annotations", "resourceVersion", "generation"}
    assert before["metadata"]["annotations"].items() <= after["metadata"]["annotations"].items()


async def test_created_twice_is_one(cluster: KubernetesServer, engine: KubernetesEngine) -> None:
    uid = await engine.create(submission(engine))
    assert await engine.create(submission(engine)) == uid
    with pytest.raises(NameTaken, match="left alone"):
        await engine.create(submission(engine, "e" * 64))


async def test_a_lost_answer_is_asked_again(cluster: KubernetesServer, engine: KubernetesEngine, world: World) -> None:
    cluster.spoil("create", "jobs", "lost")
    with pytest.raises(EngineUnavailable):
        await engine.create(submission(engine))
    uid = await engine.create(submission(engine))
    cluster.spoil("patch", "jobs", "lost")
    with pytest.raises(EngineUnavailable):
        await engine.release(NAME, uid)
    await engine.release(NAME, uid)
    assert cluster.requests.count(("patch", "jobs")) == 1, "what was released needs no second patch"


async def test_the_uid_guards(engine: KubernetesEngine, world: World) -> None:
    await engine.create(submission(engine))
    with pytest.raises(EngineRefused, match="not the one that was created"):
        await engine.release(NAME, "another")
    await engine.cancel(NAME, "another")
    assert "activeDeadlineSeconds" in world.job()["spec"] and world.job()["spec"]["activeDeadlineSeconds"] > 1
    world.removes("jobs", NAME)
    with pytest.raises(EngineRefused, match="not in the cluster any more"):
        await engine.release(NAME, "another")
    await engine.cancel(NAME, "another")


async def test_replaced_between_look_and_patch(
    cluster: KubernetesServer, engine: KubernetesEngine, world: World
) -> None:
    uid = await engine.create(submission(engine))
    stale = world.job()
    world.removes("jobs", NAME)
    await engine.create(submission(engine))

    async def late(path: str, **_: Any) -> dict[str, Any]:
        return stale

    engine._connection.get = late  # type: ignore[method-assign]
    with pytest.raises(EngineRefused, match="not the one that was created"):
        await engine.release(NAME, uid)
    assert world.job()["spec"]["suspend"] is True


async def test_a_queue_decides_when(cluster: KubernetesServer, tmp_path: Path, world: World) -> None:
    queued = replace(SETTINGS, queue="training")
    async with KubernetesEngine(queued, kubeconfig=str(cluster.kubeconfig(tmp_path / "k"))) as engine:
        with pytest.raises(EngineRefused, match="Install Kueue"):
            await engine.preflight(SPEC)
        cluster.serve(LOCAL_QUEUES)
        cluster.put("localqueues", {"metadata": {"name": "training"}})
        uid = await engine.create(submission(engine))
        await engine.release(NAME, uid)
        made = world.job()
        assert made["spec"]["suspend"] is True
        assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "training"
        seen = await engine.observe(NAME)
        assert (seen.standing, seen.waiting) == (Standing.PENDING, "It waits in the queue training.")


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lambda one: one.spoil("create", "jobs", "503"), EngineUnavailable, "HTTP 503"),
        (lambda one: one.spoil("create", "jobs", "500"), EngineUnavailable, "HTTP 500"),
        (lambda one: one.spoil("create", "jobs", "429"), EngineUnavailable, "too many requests"),
        (lambda one: one.spoil("create", "jobs", "hang"), EngineUnavailable, "does not answer"),
        (lambda one: one.forbid("create", "jobs"), EngineUnavailable, "role.yaml"),
        (lambda one: setattr(one, "token", "another"), EngineUnavailable, "credentials"),
    ],
)
async def test_faults_in_words(
    cluster: KubernetesServer,
    engine: KubernetesEngine,
    spoil: Callable[[KubernetesServer], object],
    kind: type[Exception],
    words: str,
) -> None:
    spoil(cluster)
    began = time.monotonic()
    with pytest.raises(kind, match=words):
        await engine.create(submission(engine))
    assert time.monotonic() - began < 10


async def test_a_proxys_404_is_no_word_of_the_job(cluster: KubernetesServer, engine: KubernetesEngine) -> None:
    uid = await engine.create(submission(engine))
    cluster.spoil("get", "jobs", "404")
    with pytest.raises(EngineUnavailable):
        await engine.release(NAME, uid)
    await engine.release(NAME, uid)


async def test_no_namespace(cluster: KubernetesServer, tmp_path: Path) -> None:
    config = str(cluster.kubeconfig(tmp_path / "k"))
    async with KubernetesEngine(replace(SETTINGS, namespace="nowhere"), kubeconfig=config) as engine:
        with pytest.raises(EngineUnavailable, match="SIGNALBOX_NAMESPACE"):
            await engine.create(submission(engine))
        with pytest.raises(EngineRefused, match="SIGNALBOX_NAMESPACE"):
            await engine.preflight(SPEC)


async def test_nothing_listens(tmp_path: Path) -> None:
    async with KubernetesServer() as gone:
        config = str(gone.kubeconfig(tmp_path / "k"))
    async with KubernetesEngine(SETTINGS, kubeconfig=config) as engine:
        for ask in (engine.observe(NAME), engine.logs(NAME, 5), engine.preflight(SPEC), engine.cancel(NAME, "u")):
            with pytest.raises(EngineUnavailable, match="does not answer"):
                await ask


async def test_no_credentials(tmp_path: Path) -> None:
    async with KubernetesEngine(SETTINGS, kubeconfig=str(tmp_path / "none")) as engine:
        with pytest.raises(EngineUnavailable, match="Set KUBECONFIG"):
            await engine.observe(NAME)


async def test_a_renewed_token_is_read_again(
    cluster: KubernetesServer, engine: KubernetesEngine, tmp_path: Path
) -> None:
    await engine.observe(NAME)
    cluster.token = "the next"
    cluster.kubeconfig(tmp_path / "kubeconfig")
    seen = await asyncio.gather(*(engine.observe(NAME) for _ in range(5)))  # all of them meet the old token's end
    assert {one.standing for one in seen} == {Standing.ABSENT}
    assert await engine.create(submission(engine))


async def test_preflight(cluster: KubernetesServer, tmp_path: Path) -> None:
    config = str(cluster.kubeconfig(tmp_path / "k"))
    for settings, words in (
        (replace(SETTINGS, data_claim="sets"), "SIGNALBOX_DATA_CLAIM"),
        (replace(SETTINGS, tracking_uri="sqlite:///x"), "MLFLOW_TRACKING_URI"),
    ):
        async with KubernetesEngine(settings, kubeconfig=config) as engine:
            with pytest.raises(EngineRefused, match=words):
                await engine.preflight(SPEC)


async def test_approved_elsewhere(engine: KubernetesEngine) -> None:
    given = submission(engine)
    manifest = {"job": {**engine.render(SPEC)["job"], "metadata": {"namespace": "default"}}}
    with pytest.raises(EngineRefused, match="approved for the namespace default"):
        await engine.create(replace(given, manifest=manifest))


# -- streams --------------------------------------------------------------------------------------------------


def counted(cluster: KubernetesServer, verb: str) -> Counter[str]:
    return Counter(plural for said, plural in cluster.requests if said == verb)


async def test_three_streams_whatever_is_watched(
    cluster: KubernetesServer, engine: KubernetesEngine, world: World
) -> None:
    await engine.reflector.ready()
    await engine.release(NAME, await engine.create(submission(engine)))
    world.runs()
    await stands(engine, Standing.RUNNING)
    cluster.requests.clear()
    for _ in range(50):
        await engine.observe(NAME)
    assert set(cluster.requests) <= {("get", "pods/log")}


async def test_a_version_that_is_gone_is_listed_anew(
    cluster: KubernetesServer, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "WATCH_SECONDS", 1)
    monkeypatch.setattr(reflector, "FIRST_WAIT_SECONDS", 0.1)
    await engine.reflector.ready()
    await engine.reflector.aclose()
    await engine.create(submission(engine))
    engine.reflector.jobs.objects.clear()
    cluster.compact()
    cluster.requests.clear()
    engine.reflector.start()
    await until_true(lambda: NAME in engine.reflector.jobs.objects)
    assert counted(cluster, "list")["jobs"] == 1
    assert counted(cluster, "watch")["jobs"] <= 2


async def until_true(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_server_that_closes_at_once_is_not_stormed(
    cluster: KubernetesServer, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "FIRST_WAIT_SECONDS", 0.25)
    for _ in range(100):
        cluster.spoil("watch", "jobs", "500")
    await engine.reflector.ready()
    await asyncio.sleep(1.5)
    assert counted(cluster, "watch")["jobs"] <= 5
    assert counted(cluster, "list")["jobs"] == 1
    assert not engine.reflector.fresh


async def test_pages(cluster: KubernetesServer, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reflector, "PAGE", 2)
    labels = {"app.kubernetes.io/managed-by": "signalbox"}
    for number in range(5):
        cluster.put("jobs", {"metadata": {"name": f"a-{number}", "labels": labels}})
    cluster.put("jobs", {"metadata": {"name": "of-others"}})
    await engine.reflector.ready()
    assert sorted(engine.reflector.jobs.objects) == [f"a-{number}" for number in range(5)]
    assert counted(cluster, "list")["jobs"] == 3


def obj(version: int, uid: str = "u", name: str = "a") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": str(version)}}


def test_an_older_state_never_overtakes_a_newer() -> None:
    kind = Kind(path="/x")
    kind.put(obj(105))
    kind.put(obj(101))
    assert kind.objects["a"] == obj(105)
    kind.replace([obj(101)], "103")
    assert kind.objects["a"] == obj(105)
    kind.replace([], "104")
    assert kind.objects, "it came into being after that list"
    kind.replace([], "110")
    assert not kind.objects
