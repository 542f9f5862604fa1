"""What the engine asks of an API server that holds many trainings, or is not well: little, and never all at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.fakes.kubernetes import Cluster
from tools.engines.base import EngineUnavailable, Observation, Standing, Submission
from tools.engines.kubernetes import connection, logs, reflector
from tools.engines.kubernetes import engine as module
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.spec import parse_spec

SPEC = parse_spec("digits", {})
LINE = 'SIGNALBOX {{"event": "progress", "step": {step}, "steps": 10, "loss": 0.5}}'


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster() as made:
        yield made


@pytest.fixture
async def engine(cluster: Cluster, tmp_path: Path) -> AsyncIterator[KubernetesEngine]:
    async with another(cluster, tmp_path) as made:
        yield made


def another(cluster: Cluster, folder: Path) -> KubernetesEngine:
    config = str(cluster.kubeconfig(folder / "kubeconfig"))
    settings = ClusterSettings(namespace="training", output_claim="kept")
    return KubernetesEngine(settings, kubeconfig=config, look_seconds=0)


def submission(engine: KubernetesEngine, name: str) -> Submission:
    return Submission(
        name=name,
        proposal_id=name,
        digest="d" * 64,
        manifest=engine.render(SPEC),
        run_id="r1",
        tracking_uri="http://mlflow:5000",
    )


async def started(engine: KubernetesEngine, *names: str) -> None:
    for name in names:
        await engine.release(name, await engine.create(submission(engine, name)))


def runs(cluster: Cluster, *names: str) -> list[str]:
    """Each Job's pod, which runs."""
    pods = [cluster.pods(name)[0] for name in names]
    for pod in pods:
        cluster.schedule(pod)
        cluster.run(pod)
    return [pod["metadata"]["name"] for pod in pods]


async def until(engine: KubernetesEngine, name: str, holds: Callable[[Observation], bool]) -> Observation:
    async with asyncio.timeout(10):
        while not holds(seen := await engine.observe(name)):
            await asyncio.sleep(0.02)
    return seen


def running(seen: Observation) -> bool:
    return seen.standing is Standing.RUNNING


async def test_whoever_looks_first_waits_for_the_lists(cluster: Cluster, tmp_path: Path) -> None:
    names = [f"a-{number}" for number in range(20)]
    async with another(cluster, tmp_path) as before:
        await started(before, *names)
    runs(cluster, *names)
    cluster.requests.clear()
    async with another(cluster, tmp_path) as engine:
        seen = await asyncio.gather(*(engine.observe(name) for name in names))
    assert {one.standing for one in seen} == {Standing.RUNNING}
    asked = {key: number for key, number in cluster.counts.items() if key[1] != "pods/log"}
    assert sum(asked.values()) <= 7, "three lists, three streams and their one node, whatever there is to look at"


async def test_while_nothing_can_be_listed_nobody_asks_by_itself(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "FIRST_WAIT_SECONDS", 0.02)
    async with another(cluster, tmp_path) as before:
        await started(before, "a")
    cluster.spoil_all("500")
    cluster.requests.clear()
    async with another(cluster, tmp_path) as engine:
        for _ in range(20):
            with pytest.raises(EngineUnavailable, match="HTTP 500"):
                await engine.observe("a")
        assert not cluster.counts["get", "jobs"]
        cluster.spoil_all("")
        await engine.reflector.ready()
        assert (await engine.observe("a")).standing is Standing.PENDING


async def test_a_short_outage_changes_nothing_that_is_known(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "READS_A_SECOND", 0.01)
    await started(engine, "a")
    await engine.reflector.ready()
    runs(cluster, "a")
    await until(engine, "a", running)
    cluster.spoil_all("500")
    cluster.close_watches()
    async with asyncio.timeout(10):
        while not any(kind.failures for kind in (engine.reflector.jobs, engine.reflector.pods)):
            await asyncio.sleep(0.02)
    cluster.requests.clear()
    assert (await engine.observe("a")).standing is Standing.RUNNING
    assert not cluster.counts["get", "jobs"]


async def test_a_long_outage_is_told(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "GRACE_SECONDS", 0.0)
    await started(engine, "a")
    await engine.reflector.ready()
    cluster.spoil_all("500")
    cluster.close_watches()
    async with asyncio.timeout(10):
        while engine.reflector.fresh:
            await asyncio.sleep(0.02)
    with pytest.raises(EngineUnavailable, match="HTTP 500"):
        await engine.observe("a")


async def test_where_watches_fail_lists_are_taken(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "FIRST_WAIT_SECONDS", 0.02)
    await started(engine, "a")
    for kind in ("jobs", "pods", "events"):
        cluster.forbid("watch", kind)
    await engine.reflector.ready()
    runs(cluster, "a")
    await until(engine, "a", running)
    assert not cluster.counts["get", "jobs"] - 1, "only the release asked for the Job by itself"


async def test_a_stream_that_says_nothing_is_opened_anew(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "FIRST_WAIT_SECONDS", 0.02)
    await started(engine, "a")
    await engine.reflector.ready()
    async with asyncio.timeout(10):
        while cluster.streams.now < 3:
            await asyncio.sleep(0.02)
    monkeypatch.setattr(reflector, "QUIET_SECONDS", 0.3)
    await started(engine, "b")  # what the streams say ends their first, patient wait
    cluster.silence_watches()
    runs(cluster, "a")
    await until(engine, "a", running)


async def test_a_stream_that_is_not_even_answered_is_asked_for_again(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "FIRST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(connection, "SECONDS", 0.5)
    await started(engine, "a")
    await engine.reflector.ready()
    async with asyncio.timeout(10):
        while cluster.streams.now < 3:
            await asyncio.sleep(0.02)
    cluster.spoil("watch", "pods", "hang")
    cluster.close_watches()
    runs(cluster, "a")
    await until(engine, "a", running)


async def test_logs_that_hang_hold_up_nothing_else(cluster: Cluster, engine: KubernetesEngine) -> None:
    names = [f"a-{number}" for number in range(20)]
    await started(engine, *names)
    await engine.reflector.ready()
    runs(cluster, *names)
    for _ in range(60):
        cluster.spoil("get", "pods/log", "hang")
    looks: list[asyncio.Task[Observation]] = []
    for _ in range(15):  # seconds enough for a log read of each
        looks += [asyncio.create_task(engine.observe(name)) for name in names]
        await asyncio.sleep(0.15)
    try:
        async with asyncio.timeout(5):
            await started(engine, "b")
        assert sum(not look.done() for look in looks) < len(names)
    finally:
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)


async def test_the_silence_of_a_stream_without_bookmarks_is_no_failure(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Events are read from etcd, past the API server's cache: nobody marks time in their stream."""
    monkeypatch.setattr(reflector, "QUIET_SECONDS", 1.6)
    monkeypatch.setattr(reflector, "UNMARKED_SECONDS", 1)
    cluster.streams.bookmark_interval = 0.3
    await engine.reflector.ready()
    await asyncio.sleep(2.5)
    assert cluster.counts["watch", "jobs"] == 1 < cluster.counts["watch", "events"]
    assert engine.reflector.fresh and not caplog.records


async def test_a_version_that_is_gone_at_once_is_not_listed_again_and_again(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "FIRST_WAIT_SECONDS", 0.05)
    cluster.streams.expired = True
    await engine.reflector.ready()
    await asyncio.sleep(1.5)
    assert cluster.listed["jobs"] <= 3
    cluster.streams.expired = False
    await started(engine, "a")
    assert (await engine.observe("a")).standing is Standing.PENDING


async def test_as_long_as_the_server_asks(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflector, "FIRST_WAIT_SECONDS", 0.01)
    cluster.spoil_all("429")
    engine.reflector.start()
    await asyncio.sleep(0.9)
    assert cluster.counts["list", "jobs"] == 1, "Retry-After says a second"
    cluster.spoil_all("")
    async with asyncio.timeout(10):
        await engine.reflector.ready()


@pytest.mark.parametrize("deleted", [False, True])
async def test_an_end_is_told_whole_though_one_stream_is_behind_the_other(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    monkeypatch.setattr(module, "LAG_SECONDS", 0.2)
    await started(engine, "a")
    await engine.reflector.ready()
    (pod,) = runs(cluster, "a")
    seen = await until(engine, "a", running)
    for stream in cluster.streams.open:
        stream.silent = stream.kind.plural == "pods"
    if deleted:
        await engine.cancel("a", seen.uid or "")
        cluster.advance(60)
    else:
        cluster.fail(pod, 2)
    seen = await until(engine, "a", lambda seen: seen.standing is Standing.ENDED)
    assert seen.attempts[0].ended_at is not None and seen.attempts[0].estimated is deleted
    assert seen.exit_code == (None if deleted else 2)


async def test_many_logs_share_so_many_readings(
    cluster: Cluster, engine: KubernetesEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"a-{number}" for number in range(30)]
    await started(engine, *names)
    await engine.reflector.ready()
    pods = runs(cluster, *names)
    cluster.log(pods[-1], LINE.format(step=7))
    await until(engine, names[-1], lambda seen: seen.progress.step == 7)
    monkeypatch.setattr(logs, "READS_A_SECOND", 1.0)
    cluster.requests.clear()
    for _ in range(3):
        await asyncio.gather(*(engine.observe(name) for name in names))
    assert 0 < cluster.counts["get", "pods/log"] <= 10


async def test_what_is_kept_of_an_object_says_the_same_as_the_whole(
    cluster: Cluster, engine: KubernetesEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started(engine, "a", "b", "c", "d")
    await engine.reflector.ready()
    _, pod = runs(cluster, "a", "b")
    cluster.fail(cluster.pods("a")[0], 3, reason="OOMKilled")
    cluster.put("pods", {"metadata": {"name": pod}, "status": {"phase": "Failed", "reason": "NodeLost"}})
    for name in ("a", "b"):
        failed = [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]
        cluster.put("jobs", {"metadata": {"name": name}, "status": {"conditions": failed}})
    cluster.image_pull_backoff(cluster.schedule(cluster.pods("c")[0]))
    cluster.unschedulable(cluster.pods("d")[0])
    told = {"a": "more than its limit of", "b": "NodeLost", "c": "cannot be pulled", "d": "No node can take it"}
    async with another(cluster, tmp_path) as asking:
        monkeypatch.setattr(asking.reflector, "start", lambda: None)
        for name, words in told.items():
            whole = await asking.observe(name)
            assert words in f"{whole.waiting} {whole.progress.error}"
            assert whole.resumable is (name in "ab")
            await until(engine, name, lambda seen, whole=whole: seen == whole)  # type: ignore[misc]
