"""Where a training stands in line: told of what waits, asked seldom, and never a failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.fakes.kubernetes import Cluster
from tests.integration.test_kubernetes_streams import started, submission, until
from tools.engines.base import Observation, Standing, StopReason
from tools.engines.kubernetes import places
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings

NAMES = ("a", "b", "c")


@asynccontextmanager
async def waiting(cluster: Cluster, folder: Path, queue: str | None = "training") -> AsyncIterator[KubernetesEngine]:
    """Three trainings, released one after the other."""
    settings = ClusterSettings(namespace="training", queue=queue)
    config = str(cluster.kubeconfig(folder / "kubeconfig"))
    async with KubernetesEngine(settings, kubeconfig=config, look_seconds=0) as engine:
        await started(engine, *NAMES)
        await engine.reflector.ready()
        yield engine


async def said(engine: KubernetesEngine) -> list[str]:
    return [(await engine.observe(name)).waiting for name in NAMES]


def asked(cluster: Cluster) -> int:
    return cluster.counts["get", "localqueues/pendingworkloads"]


@pytest.mark.parametrize("version", ["v1beta2", "v1beta1"])
async def test_kueue_says_its_place(tmp_path: Path, version: str) -> None:
    async with Cluster() as cluster:
        cluster.install_kueue(version=version)
        async with waiting(cluster, tmp_path) as engine:
            expected = [f"It waits in the queue training: number {place} of 3." for place in (1, 2, 3)]
            assert await said(engine) == expected == await said(engine)
            assert asked(cluster) == 1, "the queue is asked for all of them, and not at every look"


async def test_a_place_gets_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.0)
    async with Cluster() as cluster:
        cluster.install_kueue()
        async with waiting(cluster, tmp_path) as engine:
            assert (await engine.observe("c")).waiting == "It waits in the queue training: number 3 of 3."
            cluster.admit("a")
            assert (await engine.observe("c")).waiting == "It waits in the queue training: number 2 of 2."
            await until(engine, "a", lambda seen: not seen.waiting)


async def test_cancelled_before_its_release_it_ends_without_a_pod(tmp_path: Path) -> None:
    """Left suspended it would stay for good, and fill the namespace's quota of Jobs: the bot may not delete."""
    async with Cluster() as cluster, waiting(cluster, tmp_path, queue=None) as engine:
        uid = await engine.create(submission(engine, "late"))
        await engine.cancel("late", uid)
        seen = await until(engine, "late", lambda seen: seen.standing is Standing.ENDED)
        assert seen.stopped is StopReason.CANCELLED and not seen.attempts
        async with asyncio.timeout(10):
            while not any(one["type"] == "Failed" for one in cluster.job("late")["status"].get("conditions", ())):
                await asyncio.sleep(0.05)
        assert not cluster.pods("late") and cluster.job("late")["spec"]["ttlSecondsAfterFinished"] > 0


async def test_cancelled_in_the_queue_it_has_no_pod_when_its_turn_comes(tmp_path: Path) -> None:
    async with Cluster() as cluster:
        cluster.install_kueue()
        async with waiting(cluster, tmp_path) as engine:
            await engine.cancel("a", (await engine.observe("a")).uid or "")
            cluster.admit("a")
            seen = await until(engine, "a", lambda seen: seen.standing is Standing.ENDED)
            assert seen.stopped is StopReason.CANCELLED and not seen.attempts
            assert not cluster.pods("a") and cluster.job("a")["status"]["conditions"][-1]["type"] == "Failed"


async def test_without_the_right_nothing_is_said(tmp_path: Path) -> None:
    async with Cluster() as cluster:
        cluster.install_kueue()
        cluster.forbid("get", "localqueues/pendingworkloads")
        async with waiting(cluster, tmp_path) as engine:
            for _ in range(2):
                assert await said(engine) == ["It waits in the queue training."] * 3
            assert asked(cluster) == 1


@pytest.mark.parametrize("fault", ["500", "429", "lost"])
async def test_a_fault_says_nothing(tmp_path: Path, fault: str) -> None:
    async with Cluster() as cluster:
        cluster.install_kueue()
        async with waiting(cluster, tmp_path) as engine:
            cluster.spoil("get", "localqueues/pendingworkloads", fault)
            assert (await engine.observe("a")).waiting.startswith("It waits in the queue training")


async def test_where_places_are_not_served_nothing_is_said(tmp_path: Path) -> None:
    async with Cluster() as cluster:
        cluster.install_kueue()
        cluster.kinds = {key: kind for key, kind in cluster.kinds.items() if not key[0].startswith("visibility.")}
        async with waiting(cluster, tmp_path) as engine:
            assert await said(engine) == ["It waits in the queue training."] * 3


async def test_without_a_queue_the_older_pods_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.0)
    async with Cluster() as cluster, waiting(cluster, tmp_path, queue=None) as engine:
        for name in NAMES:
            cluster.unschedulable(cluster.pods(name)[0], "0/1 nodes are available")

        def refused(seen: Observation) -> bool:
            return "No node" in seen.waiting

        for name in NAMES:
            await until(engine, name, refused)
        first, second, third = await said(engine)
        assert first == "No node can take it now: 0/1 nodes are available."
        assert second == "No node can take it now: 1 other training waits longer; 0/1 nodes are available."
        assert third == "No node can take it now: 2 other trainings wait longer; 0/1 nodes are available."
        assert asked(cluster) == 0
        cluster.run(cluster.schedule(cluster.pods("a")[0]))
        assert (await until(engine, "a", lambda seen: not seen.waiting)).attempts
