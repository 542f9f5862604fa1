"""Trainings of several nodes: TrainJobs of a strict API server, with a stand-in for Kubeflow Trainer behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.core.errors import Refused
from bot.core.job import JobPhase
from bot.core.proposal import Proposal
from bot.slack import said
from bot.store.reading import OpenJob
from tests.fakes.kubernetes import Cluster
from tests.fakes.kubernetes.kinds import JOBS, PODS
from tests.fakes.kubernetes.trainer import RUNTIMES, Trainer, runtime
from tests.integration.test_kubernetes_faults import RATES, Place, dollars
from tests.world import World, hand
from tools.engines.base import EngineRefused, EngineUnavailable, NameTaken, Standing, Submission
from tools.engines.kubernetes import reflector
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.rates import RateCard
from tools.spec import parse_spec

SETTINGS = ClusterSettings(namespace="training", runtime="torch")
LINE = 'SIGNALBOX {{"event": "progress", "step": {step}, "steps": 10, "loss": 0.5}}'


class Nodes(Place):
    """A cluster with Kubeflow Trainer, and one bot on it."""

    @property
    def trainer(self) -> Trainer:
        assert self.cluster.trainer is not None
        return self.cluster.trainer

    @property
    def engine(self) -> KubernetesEngine:
        made = self.bot.world.engine
        assert isinstance(made, KubernetesEngine)
        return made

    async def asked(self, **more: object) -> Proposal:
        return await self.bot.propose(recipe="distilgpt2", **{"nodes": 2, "max_runtime_minutes": 60, **more})

    async def approved(self) -> Proposal:
        return await self.bot.approve(await self.asked())

    async def looked(self, proposal: Proposal, rounds: int = 4) -> OpenJob:
        """As the reconciler looks when the streams have told what there is."""
        for _ in range(rounds):
            await asyncio.sleep(0.05)
            found = await super().looked(proposal, 1)
        return found

    def train_job(self, proposal: Proposal) -> dict[str, Any]:
        return self.cluster.store.get(self.trainer.jobs, "training", proposal.job_name).obj

    def pods(self, proposal: Proposal) -> list[dict[str, Any]]:
        name = f"{proposal.job_name}-node-0"
        there = self.cluster.store.find(JOBS, "training", name)
        return [] if there is None else self.cluster.pods(name)

    async def running(self) -> Proposal:
        """Both nodes at work, the second ten minutes after the first."""
        proposal = await self.approved()
        await self.looked(proposal)
        first, second = self.pods(proposal)
        self.cluster.run(self.cluster.schedule(first))
        self.bot.world.clock.forward(minutes=10)
        self.cluster.run(self.cluster.schedule(second))
        assert (await self.looked(proposal, 2)).job.phase is JobPhase.RUNNING
        return proposal


@asynccontextmanager
async def nodes(folder: Path, settings: ClusterSettings = SETTINGS, *, deadlines: bool = True) -> AsyncIterator[Nodes]:
    world = World(url=f"sqlite:///{folder / 'nodes.db'}", rates=RateCard.parse({"versions": [RATES]}))
    async with Cluster() as cluster:
        cluster.clock = world.clock
        cluster.install_trainer(deadlines=deadlines)
        config = str(cluster.kubeconfig(folder / "kubeconfig"))
        async with KubernetesEngine(settings, kubeconfig=config, look_seconds=0, clock=world.clock) as engine:
            world.engine = engine  # type: ignore[assignment]
            async with world.bot() as bot:
                yield Nodes(cluster, bot)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Nodes]:
    async with nodes(tmp_path) as made:
        yield made


async def test_a_whole_life_on_two_nodes(place: Nodes) -> None:
    assert (await place.engine.offers()).endswith("start at once; several nodes by TrainJobs in the runtime torch")
    proposal = await place.approved()
    assert proposal.offer.resources.nodes == 2 and str(proposal.offer.estimate.ceiling) == "$0.56"
    await place.looked(proposal, 1)
    made = place.train_job(proposal)
    assert made["metadata"]["annotations"]["signalbox.dev/spec-digest"] == proposal.digest
    assert made["metadata"]["annotations"]["signalbox.dev/approvers"] == "ann"
    assert (made["spec"]["suspend"], made["spec"]["activeDeadlineSeconds"]) == (False, 3540)
    variables = {one["name"]: one.get("value") for one in place.pods(proposal)[0]["spec"]["containers"][0]["env"]}
    assert (variables["PET_NNODES"], variables["PET_NPROC_PER_NODE"]) == ("2", "1")
    assert variables["MLFLOW_RUN_ID"] == (await place.looked(proposal, 1)).job.run_id
    first, second = place.pods(proposal)
    place.cluster.run(place.cluster.schedule(first))
    place.cluster.unschedulable(second, "0/1 nodes are available: 1 Insufficient cpu.")
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.RUNNING and "Insufficient cpu" in found.trouble, "one of two is not enough"
    place.cluster.run(place.cluster.schedule(second))
    place.cluster.log(second["metadata"]["name"], LINE.format(step=9))
    place.cluster.log(first["metadata"]["name"], LINE.format(step=4))
    await place.looked(proposal)
    assert (await place.bot.store.progress(proposal.id)).step == 4, "the first node's words"
    assert await place.engine.logs(proposal.job_name, 5) == []
    for pod in (first, second):
        place.cluster.succeed(pod)
    found = await place.looked(proposal)
    assert (found.job.phase, len(found.job.intervals)) == (JobPhase.SUCCEEDED, 2)
    assert await place.engine.reflector.train_jobs.ready.wait() and place.cluster.streams.most == 5


async def test_every_node_is_charged_for_its_own_time(place: Nodes) -> None:
    proposal = await place.running()
    place.bot.world.clock.forward(minutes=50)
    for pod in place.pods(proposal):
        place.cluster.succeed(pod)
    job = (await place.looked(proposal)).job
    hours = sum((held.seconds(held.ended_at or job.approved_at) for held in job.intervals), Decimal(0)) / 3600
    assert [held.resources.nodes for held in job.intervals] == [1, 1] and Decimal("1.8") < hours < Decimal("2")
    assert dollars(job) == f"${hours * Decimal('0.28'):.4f}"


async def test_nodes_that_started_in_the_same_second_are_two(place: Nodes, tmp_path: Path) -> None:
    proposal = await place.approved()
    await place.looked(proposal)
    first, second = place.pods(proposal)
    for pod in (first, second):
        place.cluster.run(place.cluster.schedule(pod))
    assert len({held.started_at for held in (await place.looked(proposal, 2)).job.intervals}) == 1
    await place.engine.aclose()
    lost = place.cluster.pod(second)
    meta = {key: value for key, value in lost["metadata"].items() if key != "finalizers"}
    place.cluster.store.replace(PODS, "training", lost | {"metadata": meta | {"deletionGracePeriodSeconds": 0}})
    place.cluster.store.remove(PODS, "training", meta["name"])
    world = place.bot.world
    async with KubernetesEngine(SETTINGS, kubeconfig=str(tmp_path / "kubeconfig"), look_seconds=0) as later:
        world.engine = later  # type: ignore[assignment]
        async with world.bot() as restarted:
            looking = Nodes(place.cluster, restarted)
            place.cluster.run(place.cluster.schedule(place.pods(proposal)[-1]))
            job = (await looking.looked(proposal)).job
            assert len(job.intervals) == 3, "what one held is not forgotten because another began with it"
            gone = [held for held in job.intervals[:2] if held.ended_at is not None]
            assert len(gone) == 1 and gone[0].ended_at == job.intervals[2].started_at


async def test_a_node_that_comes_later_in_the_same_second_is_noticed(place: Nodes) -> None:
    stands = place.bot.world.clock()
    place.cluster.clock = lambda: stands
    proposal = await place.approved()
    await place.looked(proposal)
    for number, pod in enumerate(place.pods(proposal), 1):
        place.cluster.run(place.cluster.schedule(pod))
        assert len((await place.looked(proposal)).job.intervals) == number


async def test_cancelled_while_it_runs(place: Nodes) -> None:
    proposal = await place.running()
    await place.bot.deciding.cancel(hand("rae"), proposal.number)
    job = (await place.looked(proposal)).job
    assert (job.phase, job.reason) == (JobPhase.CANCELLED, "Cancelled by rae.")
    assert place.train_job(proposal)["spec"]["suspend"] is True and not place.pods(proposal)
    assert len(job.intervals) == 2 and all(held.ended_at for held in job.intervals)


async def test_cancelled_before_it_started(place: Nodes) -> None:
    proposal = await place.approved()
    place.cluster.spoil("patch", "trainjobs", "500")
    await place.looked(proposal, 1)
    assert place.train_job(proposal)["spec"]["suspend"] is True
    await place.bot.deciding.cancel(hand("rae"), proposal.number)
    assert (await place.looked(proposal)).job.phase is JobPhase.CANCELLED
    assert not place.pods(proposal)


async def test_the_cluster_s_own_deadline(place: Nodes) -> None:
    proposal = await place.running()
    place.bot.world.clock.forward(minutes=60)
    place.cluster.tick()
    job = (await place.looked(proposal)).job
    assert (job.phase, job.reason) == (JobPhase.FAILED, "Stopped at its maximum runtime of 60 min.")


async def test_what_a_node_holds_in_its_grace_time_is_charged(place: Nodes) -> None:
    proposal = await place.running()
    place.cluster.slow_termination = True
    place.bot.world.clock.forward(minutes=60)
    place.cluster.tick()
    assert (await place.looked(proposal, rounds=1)).job.phase is JobPhase.RUNNING, "its nodes write their checkpoint"
    place.cluster.finish_termination()
    job = (await place.looked(proposal)).job
    assert (job.phase, job.reason) == (JobPhase.FAILED, "Stopped at its maximum runtime of 60 min.")
    assert not any(held.estimated for held in job.intervals)


async def test_where_there_is_none_signalbox_keeps_it_and_the_card_says_so(tmp_path: Path) -> None:
    async with nodes(tmp_path, deadlines=False) as place:
        proposal = await place.running()
        manifest = proposal.offer.manifest
        assert "activeDeadlineSeconds" not in manifest["train_job"]["spec"]
        card = "\n".join(said.program(proposal.offer))
        assert "*Note* Its maximum runtime is kept by Signalbox itself" in card
        assert "2 nodes × 4 CPU cores, kubernetes engine, TrainJob in the runtime torch" in card
        place.bot.world.clock.forward(minutes=30)
        assert (await place.looked(proposal, 1)).job.phase is JobPhase.RUNNING
        place.bot.world.clock.forward(
            minutes=11, seconds=30
        )  # the next look is before the hour, the grace time within it
        job = (await place.looked(proposal, 2)).job
        assert (job.phase, job.reason) == (JobPhase.FAILED, "Stopped at its maximum runtime of 60 min.")
        assert place.train_job(proposal)["spec"]["suspend"] is True


@pytest.mark.parametrize("verb", ["create", "patch"])
async def test_a_lost_answer_starts_nothing_twice(place: Nodes, verb: str) -> None:
    proposal = await place.approved()
    place.cluster.spoil(verb, "trainjobs", "lost")
    await place.looked(proposal)
    assert len(place.pods(proposal)) == 2 and len(list(place.cluster.store.scan(place.trainer.jobs))) == 1


def submission(proposal: Proposal) -> Submission:
    """As the steps of its job would make it."""
    return Submission(
        name=proposal.job_name,
        proposal_id=proposal.id,
        digest=proposal.digest,
        manifest=proposal.offer.manifest,
        run_id="r1",
        tracking_uri="",
    )


async def test_another_s_train_job_of_our_name_is_left_alone(place: Nodes) -> None:
    proposal = await place.approved()
    there = {"metadata": {"name": proposal.job_name}, "spec": {"runtimeRef": {"name": "torch"}, "suspend": True}}
    place.cluster.put("trainjobs", there)
    before = place.train_job(proposal)
    job = (await place.looked(proposal)).job
    assert job.phase is JobPhase.FAILED and "another job by the name" in job.reason
    given = submission(proposal)
    with pytest.raises(NameTaken, match="another TrainJob by the name"):
        await place.engine.create(given)
    assert place.train_job(proposal) == before


def without_runtime(place: Nodes) -> None:
    place.cluster.store.remove(RUNTIMES, "", "torch")


def changed(place: Nodes) -> None:
    made = runtime(serviceAccountName="admin")
    place.cluster.put("clustertrainingruntimes", made)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (without_runtime, "It was approved to run in Kubeflow Trainer's runtime torch, and the cluster does not have"),
        (lambda place: place.trainer.uninstall(), "It was approved to run in Kubeflow Trainer's runtime torch"),
        (changed, "The runtime torch is not as it was when this was approved"),
    ],
)
async def test_what_was_approved_and_is_gone_does_not_start(
    place: Nodes, what: Callable[[Nodes], None], words: str
) -> None:
    proposal = await place.approved()
    what(place)
    job = (await place.looked(proposal)).job
    assert job.phase is JobPhase.FAILED and job.reason.startswith(words)
    assert "anew" in job.reason and not list(place.cluster.store.scan(place.trainer.jobs))


async def test_a_runtime_that_changes_between_its_creation_and_its_release_runs_nothing(place: Nodes) -> None:
    proposal = await place.approved()
    given = submission(proposal)
    uid = await place.engine.create(given)
    changed(place)
    with pytest.raises(EngineRefused, match="not as it was when this was approved"):
        await place.engine.release(given.name, uid)
    assert place.train_job(proposal)["spec"]["suspend"] is True


@pytest.mark.parametrize(
    ("settings", "what", "words"),
    [
        (
            replace(SETTINGS, runtime=None),
            None,
            "needs Kubeflow Trainer and a runtime for it, named in SIGNALBOX_RUNTI",
        ),
        (replace(SETTINGS, auto=True), without_runtime, "There is no ClusterTrainingRuntime torch"),
        (SETTINGS, lambda place: place.trainer.uninstall(), "There is no ClusterTrainingRuntime torch"),
        (SETTINGS, lambda place: place.cluster.forbid("get", "clustertrainingruntimes"), "may not read"),
        (replace(SETTINGS, output_claim="kept"), None, "does not mount the PersistentVolumeClaim kept at /output"),
    ],
)
async def test_what_cannot_run_is_not_proposed(
    tmp_path: Path, settings: ClusterSettings, what: Callable[[Nodes], None] | None, words: str
) -> None:
    async with nodes(tmp_path, settings) as place:
        place.cluster.put("persistentvolumeclaims", {"metadata": {"name": "kept"}})
        if what:
            what(place)
        with pytest.raises(Refused, match=words):
            await place.asked()
        assert (await place.asked(nodes=1)).offer.manifest["job"]["kind"] == "Job", "one node needs none of it"


async def test_a_trainer_that_goes_and_comes(place: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of one node do not mind; without it nothing more than a list a minute is asked."""
    monkeypatch.setattr(reflector, "ABSENT_SECONDS", 0.05)
    place.trainer.uninstall()
    seen = place.engine.reflector
    await seen.ready()
    async with asyncio.timeout(5):
        while place.cluster.streams.now < 3:
            await asyncio.sleep(0.01)
    assert seen.fresh and not seen.train_jobs.served and place.cluster.streams.most == 3
    alone = await place.bot.approve(await place.asked(nodes=1))
    assert (await place.looked(alone)).job.phase is JobPhase.SUBMITTED
    assert (await place.engine.observe("nothing")).standing is Standing.ABSENT
    place.cluster.install_trainer()
    both = await place.approved()
    await place.looked(both)
    assert seen.fresh and seen.train_jobs.served and len(place.pods(both)) == 2


async def test_rights_that_are_taken_away_lose_no_training(place: Nodes, tmp_path: Path) -> None:
    proposal = await place.running()
    for verb in ("get", "list", "watch"):
        place.cluster.forbid(verb, "trainjobs")
    config = str(place.cluster.kubeconfig(tmp_path / "later"))
    async with KubernetesEngine(SETTINGS, kubeconfig=config) as later:
        with pytest.raises(EngineUnavailable, match=r"role\.yaml"):
            await later.observe(proposal.job_name)
    async with KubernetesEngine(replace(SETTINGS, runtime=None), kubeconfig=config) as alone:
        assert (await alone.observe("another")).standing is Standing.ABSENT, "who makes none needs no right to see them"


async def test_too_few_nodes_have_such_gpus(place: Nodes) -> None:
    for number in (1, 2):
        node = {"metadata": {"name": f"gpu-{number}"}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}
        place.cluster.put("nodes", node)
    await place.engine.preflight(parse_spec("distilgpt2", {"gpus": 8, "nodes": 2}))
    with pytest.raises(EngineRefused, match=r"2 node\(s\) of the cluster have 8 GPU\(s\), and it asks for 3"):
        await place.engine.preflight(parse_spec("distilgpt2", {"gpus": 8, "nodes": 3}))
    with pytest.raises(Refused, match="16 GPUs"):  # the policy counts them all
        await place.asked(gpus=8)


async def test_the_server_is_strict(place: Nodes) -> None:
    """What this API refuses, the engine never sends: fields that nobody knows, and changes of what is fixed."""
    proposal = await place.asked()
    given = proposal.offer.manifest["train_job"]
    path = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/training/trainjobs"
    connection = place.engine._connection
    wrong = {**given, "metadata": {"name": "a"}, "spec": {**given["spec"], "ttlSecondsAfterFinished": 5}}
    with pytest.raises(Exception, match="unknown field"):
        await connection.post(path, wrong, fieldValidation="Strict")
    await connection.post(path, {**given, "metadata": {"name": "a"}}, fieldValidation="Strict")
    with pytest.raises(Exception, match="field is immutable"):
        await connection.patch(f"{path}/a", {"spec": {"activeDeadlineSeconds": 1}})


async def test_a_node_that_needs_more_memory(place: Nodes) -> None:
    proposal = await place.running()
    place.cluster.fail(place.pods(proposal)[0], reason="OOMKilled")
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.FAILED and "more than its limit of 8192Mi" in found.job.reason
    assert found.remedy == {"memory_gib": 12}


async def test_a_pod_that_the_cluster_refuses(place: Nodes) -> None:
    place.cluster.refuse("its runtime is not for this namespace", resource="pods")
    found = await place.looked(await place.approved())
    assert "The cluster refuses its pod" in found.trouble and "not for this namespace" in found.trouble
