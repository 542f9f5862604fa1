"""A proposal's whole life in a cluster: the real reconciler and database, the real client, the fake API server."""

from __future__ import annotations

from pathlib import Path

from bot.bootstrap import chosen_engine
from bot.core.job import JobPhase
from bot.settings import Settings
from tests.fakes.kubernetes import KubernetesServer
from tests.integration.test_kubernetes_engine import now
from tests.world import World
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.engines.local import LocalEngine
from tools.rates import RateCard

RATES = {"version": "r1", "effective_from": "2026-01-01T00:00:00Z", "cpu_core_hour": "0.05", "memory_gib_hour": "0.01"}


async def test_waits_with_its_reason_then_runs_twice_and_ends(tmp_path: Path) -> None:
    world = World(url=f"sqlite:///{tmp_path / 'life.db'}", rates=RateCard.parse({"versions": [RATES]}))
    async with KubernetesServer() as cluster:
        config = str(cluster.kubeconfig(tmp_path / "k"))
        async with KubernetesEngine(ClusterSettings(namespace="training"), kubeconfig=config) as engine:
            world.engine = engine  # type: ignore[assignment]
            async with world.bot() as bot:
                proposal = await bot.approve(await bot.propose())
                name = proposal.job_name

                def pod(number: int, **status: object) -> None:
                    meta = {"name": f"{name}-0-{number}", "labels": labels}
                    cluster.put("pods", {"metadata": meta, "status": status})

                labels = {"app.kubernetes.io/managed-by": "signalbox", "batch.kubernetes.io/job-name": name}
                blocked = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}
                await bot.settle(2)
                pod(1, phase="Pending", conditions=[blocked])
                await engine.reflector.ready()
                await bot.settle(3)
                (waits,) = await bot.store.open_jobs()
                assert (waits.job.phase, waits.trouble) == (JobPhase.SUBMITTED, "No node can take it now: no room.")

                scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
                pod(1, phase="Running", conditions=[scheduled])
                await bot.settle(3)
                (runs,) = await bot.store.open_jobs()
                assert (runs.job.phase, runs.trouble, len(runs.job.intervals)) == (JobPhase.RUNNING, "", 1)

                drained = [{"name": "trainer", "state": {"terminated": {"exitCode": 4, "finishedAt": now()}}}]
                pod(1, phase="Failed", containerStatuses=drained)
                await bot.settle(3)
                (between,) = await bot.store.open_jobs()
                assert between.job.phase is JobPhase.RUNNING, "all pods gone between two attempts is no end"

                pod(2, phase="Running", conditions=[scheduled])
                done = [{"name": "trainer", "state": {"terminated": {"exitCode": 0, "finishedAt": now()}}}]
                pod(2, phase="Succeeded", containerStatuses=done)
                cluster.log(f"{name}-0-2", 'SIGNALBOX {"event": "result", "metrics": {"val_accuracy": 0.97}}')
                complete = [{"type": "Complete", "status": "True"}]
                cluster.put("jobs", {"metadata": {"name": name}, "status": {"conditions": complete}})
                await bot.settle(4)
                job = await bot.store.job(proposal.id)
                assert job is not None
                assert (job.phase, job.metrics) == (JobPhase.SUCCEEDED, {"val_accuracy": 0.97})
                assert [interval.attempt for interval in job.intervals] == [1, 2]
                assert all(interval.ended_at is not None for interval in job.intervals)


async def test_the_setting_chooses(tmp_path: Path) -> None:
    given = {"SIGNALBOX_HOME": str(tmp_path), "SIGNALBOX_LOCAL_GPUS": "0"}
    there = tmp_path / "kubeconfig"
    for engine, expected in (("local", LocalEngine), ("auto", LocalEngine), ("kubernetes", KubernetesEngine)):
        settings = Settings.model_validate(given | {"SIGNALBOX_ENGINE": engine, "KUBECONFIG": str(there)})
        async with chosen_engine(settings) as made:
            assert isinstance(made, expected)
    there.write_text("{}")
    settings = Settings.model_validate(given | {"SIGNALBOX_ENGINE": "auto", "KUBECONFIG": str(there)})
    async with chosen_engine(settings) as made:
        assert isinstance(made, KubernetesEngine)
