"""What a cluster offers decides what a card shows; what a card showed is what runs, or nothing does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.core.job import JobPhase
from bot.doctor import examine
from bot.settings import Settings
from tests.fakes.kubernetes import Cluster
from tests.fakes.kubernetes.kinds import JOBS
from tests.integration.test_kubernetes_faults import RATES, Place
from tests.world import World
from tools.engines.base import EngineRefused, EngineUnavailable
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import QUEUE, ClusterSettings
from tools.rates import RateCard
from tools.spec import parse_spec

AUTO = ClusterSettings(namespace="training", queue="training", auto=True)
SPEC = parse_spec("digits", {})


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    world = World(url=f"sqlite:///{tmp_path / 'offers.db'}", rates=RateCard.parse({"versions": [RATES]}))
    async with Cluster() as cluster:
        cluster.clock = world.clock
        config = str(cluster.kubeconfig(tmp_path / "kubeconfig"))
        async with KubernetesEngine(AUTO, kubeconfig=config, look_seconds=0) as engine:
            world.engine = engine  # type: ignore[assignment]
            async with world.bot() as bot:
                yield Place(cluster, bot)


@pytest.mark.parametrize("version", ["v1beta2", "v1beta1"])
async def test_the_queue_is_taken_where_it_is_there(place: Place, version: str) -> None:
    engine = place.bot.world.engine
    assert "start at once" in await engine.offers()
    place.cluster.install_kueue(version=version, queues=("another",))
    assert "start at once" in await engine.offers(), "Kueue without that queue"
    place.cluster.put("localqueues", {"metadata": {"name": "training"}})
    assert "wait in the queue training" in await engine.offers()
    await engine.preflight(SPEC)
    assert engine.render(SPEC)["job"]["metadata"]["annotations"] == {"signalbox.dev/queue": "training"}


async def test_what_may_not_be_known_is_not_guessed(place: Place, tmp_path: Path) -> None:
    place.cluster.install_kueue()
    place.cluster.forbid("list", "localqueues")
    with pytest.raises(EngineUnavailable, match="may not see whether"):
        await place.bot.world.engine.preflight(SPEC)
    config = str(place.cluster.kubeconfig(tmp_path / "chosen"))
    async with KubernetesEngine(replace(AUTO, auto=False), kubeconfig=config) as chosen:
        await chosen.preflight(SPEC)
        assert chosen.render(SPEC)["job"]["metadata"]["annotations"], "who chose the queue has said that it is there"


async def test_approved_without_a_queue_it_starts_without(place: Place) -> None:
    proposal = await place.approved()
    place.cluster.install_kueue()
    assert (await place.looked(proposal)).job.phase is JobPhase.SUBMITTED
    job = place.cluster.job(proposal.job_name)
    assert job["spec"]["suspend"] is False and QUEUE not in job["metadata"]["labels"]


async def test_approved_for_a_queue_that_is_gone_it_does_not_start(place: Place) -> None:
    kueue = place.cluster.install_kueue()
    proposal = await place.approved()
    place.cluster.store.remove(kueue.queues, "training", "training")
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.FAILED and not place.created(proposal)
    assert found.job.reason.startswith("It was approved to wait in Kueue's queue training, and there is none")
    assert found.job.reason.endswith("Make that queue again, or propose the training anew.")


async def test_approved_for_another_engine_it_does_not_start(place: Place) -> None:
    place.bot.world.engine.render = lambda spec: {"engine": "local", "command": []}  # type: ignore[method-assign]
    proposal = await place.approved()
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.FAILED and not list(place.cluster.store.scan(JOBS))
    assert "approved for the local engine" in found.job.reason and "SIGNALBOX_ENGINE=local" in found.job.reason


async def test_doctor_says_what_there_is(tmp_path: Path) -> None:
    async with Cluster() as cluster:
        given = {
            "SIGNALBOX_HOME": str(tmp_path),
            "SIGNALBOX_ENGINE": "auto",
            "SIGNALBOX_NAMESPACE": "training",
            "SIGNALBOX_QUEUE": "training",
            "KUBECONFIG": str(cluster.kubeconfig(tmp_path / "kubeconfig")),
            "MLFLOW_TRACKING_URI": cluster.url,
        }

        async def engine() -> str:
            found = await examine(Settings.model_validate(given))
            return next(f"{one.mark}: {one.say}" for one in found if one.what == "engine")

        assert await engine() == "ok: kubernetes: Jobs in the namespace training start at once"
        cluster.install_kueue()
        assert await engine() == "ok: kubernetes: Jobs in the namespace training wait in the queue training"
    assert (await engine()).startswith("wrong: The cluster's API server does not answer")


async def test_a_job_of_the_cluster_is_not_run_by_this_machine(tmp_path: Path) -> None:
    from bot.bootstrap import local_engine
    from tests.integration.test_kubernetes_engine import submission

    local = local_engine(Settings.model_validate({"SIGNALBOX_HOME": str(tmp_path), "SIGNALBOX_LOCAL_GPUS": "0"}))
    async with KubernetesEngine(AUTO) as cluster:
        with pytest.raises(EngineRefused, match="SIGNALBOX_ENGINE=kubernetes"):
            await local.create(submission(cluster))
