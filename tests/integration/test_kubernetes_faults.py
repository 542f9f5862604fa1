"""What goes wrong in a cluster, as people are told it: one sentence with the next step, and the cost that was held.

The real use cases, reconciler, engine and client; behind them an API server with controllers and a kubelet stand-in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from bot.core.job import Job, JobPhase, RunEnd
from bot.core.proposal import Proposal
from bot.store.audit import verify
from bot.store.reading import OpenJob
from tests.fakes.kubernetes import Cluster
from tests.fakes.kubernetes.kinds import JOBS, PODS
from tests.world import Bot, World, hand
from tools.cost import actual
from tools.engines.kubernetes import connection
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.rates import RateCard

RATES = {"version": "r1", "effective_from": "2026-01-01T00:00:00Z", "cpu_core_hour": "0.05", "memory_gib_hour": "0.01"}


@dataclass
class Place:
    """A cluster with one bot on it."""

    cluster: Cluster
    bot: Bot

    async def approved(self) -> Proposal:
        return await self.bot.approve(await self.bot.propose(max_runtime_minutes=200))

    async def looked(self, proposal: Proposal, rounds: int = 4) -> OpenJob:
        """The job after the reconciler has looked so often, back-off or not."""
        for _ in range(rounds):
            self.bot.world.clock.forward(minutes=2)
            await self.bot.reconciler.tick()
        found = await self.bot.store.job_detail(proposal.id)
        assert found is not None
        return found

    async def running(self) -> Proposal:
        proposal = await self.approved()
        await self.looked(proposal)
        (pod,) = self.cluster.pods(proposal.job_name)
        self.cluster.schedule(pod)
        self.cluster.run(pod)
        found = await self.looked(proposal)
        assert found.job.phase is JobPhase.RUNNING
        return proposal

    def created(self, proposal: Proposal) -> bool:
        return self.cluster.store.find(JOBS, "training", proposal.job_name) is not None

    def starts(self, proposal: Proposal) -> int:
        return len(self.cluster.pods(proposal.job_name))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    world = World(url=f"sqlite:///{tmp_path / 'faults.db'}", rates=RateCard.parse({"versions": [RATES]}))
    async with Cluster() as cluster:
        cluster.clock = world.clock
        config = str(cluster.kubeconfig(tmp_path / "kubeconfig"))
        settings = ClusterSettings(namespace="training")
        async with KubernetesEngine(settings, kubeconfig=config, look_seconds=0, clock=world.clock) as engine:
            world.engine = engine  # type: ignore[assignment]
            async with world.bot() as bot:
                yield Place(cluster, bot)


def dollars(job: Job) -> str:
    assert all(held.ended_at is not None for held in job.intervals), "nothing is held any more"
    return str(actual(job.intervals, job.finished_at or job.approved_at).amount)


async def test_admission_refuses_the_job(place: Place) -> None:
    place.cluster.refuse("images of this registry are not allowed")
    proposal = await place.approved()
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.FAILED and found.job.intervals == ()
    assert found.job.reason.startswith("An admission webhook of the cluster refuses the Job")
    assert "images of this registry are not allowed" in found.job.reason


async def test_a_quota_is_full(place: Place) -> None:
    """The controller is refused its pod; as soon as there is room, it goes on by itself."""
    full = "exceeded quota: training, requested: requests.cpu=4, used: requests.cpu=8, limited: requests.cpu=8"
    place.cluster.refuse(full, resource="pods")
    proposal = await place.approved()
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.SUBMITTED and "quota" in found.trouble and place.starts(proposal) == 0
    assert place.bot.world.surface.kinds(proposal).count("trouble") == 1, "told once"


async def test_an_image_that_does_not_exist_is_given_up_long_before_the_deadline(place: Place) -> None:
    """A Job never fails for it, and holds its GPU."""
    proposal = await place.approved()
    await place.looked(proposal)
    (pod,) = place.cluster.pods(proposal.job_name)
    place.cluster.schedule(pod)
    place.cluster.image_pull_backoff(pod)
    found = await place.looked(proposal)
    assert "cannot be pulled" in found.trouble and "Check the image's name" in found.trouble
    assert found.job.phase is JobPhase.RUNNING, "its resources are held, and charged, while the image is tried"
    place.bot.world.clock.forward(minutes=31)
    await place.looked(proposal)
    place.cluster.tick()
    place.cluster.finish_termination()
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.FAILED and found.job.reason.startswith("It had its place, but its program")
    (held,) = found.job.intervals
    assert held.ended_at is not None and timedelta(minutes=30) < held.ended_at - held.started_at < timedelta(hours=1)
    assert dollars(found.job) != "$0.00"


async def test_an_image_that_takes_its_time_is_waited_for(place: Place) -> None:
    """The cluster says of nothing that it is wrong."""
    proposal = await place.approved()
    await place.looked(proposal)
    (pod,) = place.cluster.pods(proposal.job_name)
    place.cluster.schedule(pod)
    place.bot.world.clock.forward(minutes=60)
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.RUNNING and found.trouble == ""
    place.cluster.run(pod)
    place.cluster.succeed(pod)
    assert (await place.looked(proposal)).job.phase is JobPhase.SUCCEEDED


async def test_what_lost_its_place_before_it_began_waits_for_another(place: Place) -> None:
    """It holds nothing meanwhile, however long that is."""
    proposal = await place.approved()
    await place.looked(proposal)
    (pod,) = place.cluster.pods(proposal.job_name)
    place.cluster.schedule(pod)
    await place.looked(proposal)
    place.cluster.evict(pod, "PreemptionByScheduler")
    place.cluster.finish_termination()
    (second,) = (one for one in place.cluster.pods(proposal.job_name) if not one["spec"].get("nodeName"))
    place.cluster.unschedulable(second)
    place.bot.world.clock.forward(minutes=60)
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.RUNNING and "No node can take it now" in found.trouble
    place.cluster.schedule(second)
    place.cluster.run(second)
    await place.looked(proposal)
    place.cluster.succeed(second)
    assert (await place.looked(proposal)).job.phase is JobPhase.SUCCEEDED


async def test_a_foreign_job_of_our_name_is_left_alone(place: Place) -> None:
    proposal = await place.approved()
    theirs = {"name": proposal.job_name, "annotations": {"signalbox.dev/spec-digest": "theirs"}}
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}
    place.cluster.put("jobs", {"metadata": theirs, "spec": {"suspend": True, "template": template}})
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.FAILED and "left alone" in found.job.reason
    there = place.cluster.job(proposal.job_name)
    assert there["spec"]["suspend"] and there["spec"]["template"]["spec"]["containers"][0]["image"] == "x"


async def test_a_job_deleted_by_hand_keeps_its_cost(place: Place) -> None:
    proposal = await place.running()
    place.cluster.delete(JOBS, "training", proposal.job_name, {"propagationPolicy": "Background"})
    place.cluster.finish_termination()
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.FAILED and "no longer has the job" in found.job.reason
    assert dollars(found.job) != "$0.00" and found.job.intervals[-1].estimated


async def test_a_job_deleted_by_hand_is_charged_for_its_grace_time(place: Place) -> None:
    proposal = await place.running()
    place.cluster.slow_termination = True
    place.cluster.delete(JOBS, "training", proposal.job_name, {"propagationPolicy": "Background"})
    found = await place.looked(proposal, rounds=1)
    assert found.job.phase is JobPhase.RUNNING and found.job.intervals[-1].ended_at is None, "its pod still runs"
    place.cluster.finish_termination()
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.FAILED and "somebody deleted it" in found.job.reason


async def test_what_ended_while_nobody_looked_is_charged_until_the_cluster_says_that_it_was_over(
    place: Place, tmp_path: Path
) -> None:
    """Its pods went with the Job's end, and its trainer was killed before it could close its run."""
    proposal = await place.running()
    world = place.bot.world
    await place.bot.deciding.cancel(hand("rae"), proposal.number)
    place.cluster.slow_termination = True
    await place.looked(proposal, rounds=1)
    world.clock.forward(seconds=30)
    place.cluster.finish_termination()
    place.cluster.tick()
    over = world.clock()
    world.clock.forward(hours=2)
    settings, config = ClusterSettings(namespace="training"), str(tmp_path / "kubeconfig")
    async with KubernetesEngine(settings, kubeconfig=config, look_seconds=0, clock=world.clock) as engine:
        world.engine = engine  # type: ignore[assignment]
        job = (await Place(place.cluster, Bot(world, place.bot.store)).looked(proposal)).job
    assert job.phase is JobPhase.CANCELLED
    (held,) = job.intervals
    assert held.ended_at is not None and abs(held.ended_at - over) < timedelta(seconds=2) and held.estimated


@pytest.mark.parametrize("phase", [JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED])
async def test_a_job_that_ended_and_went_while_nobody_looked_is_told_by_its_run(place: Place, phase: JobPhase) -> None:
    """The bot was down for days, and the cluster has removed the Job: its trainer has closed its run in MLflow."""
    proposal = await place.running()
    world = place.bot.world
    world.clock.forward(minutes=7)
    ended = world.clock()
    place.cluster.delete(JOBS, "training", proposal.job_name, {"propagationPolicy": "Background"})
    place.cluster.finish_termination()
    world.clock.forward(hours=60)
    run_id = world.runs.runs[proposal.id]
    world.runs.ends[run_id] = RunEnd(phase=phase, ended_at=ended, metrics={"val_accuracy": 0.99})
    job = (await place.looked(proposal)).job
    assert job.phase is (phase if phase is JobPhase.SUCCEEDED else JobPhase.FAILED), "nobody cancelled it here"
    assert job.metrics == ({"val_accuracy": 0.99} if phase is JobPhase.SUCCEEDED else {})
    assert ("MLflow" in job.reason) is (phase is JobPhase.FAILED)
    assert job.intervals[-1].ended_at == ended and job.intervals[-1].estimated
    assert (await verify(place.bot.store)).whole


@pytest.mark.parametrize(("minutes", "charged"), [(30, 30), (900, 200)], ids=["at once", "after a long wait"])
async def test_a_job_that_ran_and_went_unseen_is_charged_from_its_submission(
    place: Place, minutes: int, charged: int
) -> None:
    """For what was approved at most: nobody knows how much of the time it waited for room."""
    proposal = await place.approved()
    submitted = (await place.looked(proposal)).job
    assert submitted.phase is JobPhase.SUBMITTED and submitted.submitted_at and submitted.run_id
    place.cluster.delete(JOBS, "training", proposal.job_name, {"propagationPolicy": "Background"})
    ended = submitted.submitted_at + timedelta(minutes=minutes)
    place.bot.world.clock.forward(hours=60)
    place.bot.world.runs.ends[submitted.run_id] = RunEnd(phase=JobPhase.SUCCEEDED, ended_at=ended, metrics={})
    job = (await place.looked(proposal)).job
    (held,) = job.intervals
    assert job.phase is JobPhase.SUCCEEDED
    assert (held.started_at, held.ended_at, held.estimated) == (ended - timedelta(minutes=charged), ended, True)


@pytest.mark.parametrize("seen", [False, True], ids=["nobody saw it run", "seen running"])
async def test_a_training_whose_pod_went_with_its_node_is_charged_until_its_run_ended(
    place: Place, seen: bool, tmp_path: Path
) -> None:
    """The bot was down while it ended, its node was scaled down, and its Job still stands there as complete."""
    proposal = await place.running() if seen else await place.approved()
    before = (await place.looked(proposal)).job
    (pod,) = place.cluster.pods(proposal.job_name)
    if not seen:
        place.cluster.schedule(pod)
        place.cluster.run(pod)
    place.bot.world.clock.forward(minutes=30)
    ended = place.bot.world.clock()
    place.bot.world.clock.forward(seconds=3)
    place.cluster.succeed(pod)
    place.cluster.delete(PODS, "training", pod["metadata"]["name"], {})
    place.cluster.finish_termination()
    assert before.run_id is not None and before.submitted_at is not None
    world = place.bot.world
    world.runs.ends[before.run_id] = RunEnd(phase=JobPhase.SUCCEEDED, ended_at=ended, metrics={})
    world.clock.forward(hours=60)
    settings, config = ClusterSettings(namespace="training"), str(tmp_path / "kubeconfig")
    async with KubernetesEngine(
        settings, kubeconfig=config, look_seconds=0, clock=world.clock
    ) as engine:  # of a bot that starts
        world.engine = engine  # type: ignore[assignment]
        job = (await Place(place.cluster, Bot(world, place.bot.store)).looked(proposal)).job
    assert job.phase is JobPhase.SUCCEEDED
    (held,) = job.intervals
    began = before.intervals[0].started_at if seen else before.submitted_at
    assert (held.started_at, held.ended_at, held.estimated) == (began, ended, True)


@pytest.mark.parametrize("closed", [False, True], ids=["open run", "run closed by hand"])
async def test_a_job_that_nobody_knows_the_end_of_is_charged_for_its_approved_time_at_most(
    place: Place, closed: bool
) -> None:
    proposal = await place.running()
    place.cluster.delete(JOBS, "training", proposal.job_name, {"propagationPolicy": "Background"})
    place.cluster.finish_termination()
    world = place.bot.world
    world.clock.forward(hours=60)
    if closed:
        world.runs.ends[world.runs.runs[proposal.id]] = RunEnd(
            phase=JobPhase.FAILED, ended_at=world.clock(), metrics={}
        )
    job = (await place.looked(proposal)).job
    (held,) = job.intervals
    assert held.ended_at == held.started_at + timedelta(seconds=job.max_runtime_seconds) and held.estimated


async def test_a_job_suspended_by_hand_is_not_started_again_by_us(place: Place) -> None:
    proposal = await place.running()
    job = place.cluster.job(proposal.job_name)
    place.cluster.put("jobs", {"metadata": {"name": proposal.job_name}, "spec": job["spec"] | {"suspend": True}})
    place.cluster.finish_termination()
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.RUNNING and "Somebody suspended its Job" in found.trouble
    assert found.job.intervals[-1].ended_at is not None, "it holds nothing meanwhile, and costs nothing"


async def test_a_lost_node_is_another_attempt_and_both_are_charged(place: Place) -> None:
    proposal = await place.running()
    (pod,) = place.cluster.pods(proposal.job_name)
    place.cluster.lose_node(pod)
    place.cluster.finish_termination()
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.RUNNING
    second = next(one for one in place.cluster.pods(proposal.job_name) if not one["spec"].get("nodeName"))
    place.cluster.put("nodes", {"metadata": {"name": "other"}}, namespace="")
    place.cluster.schedule(second, "other")
    place.cluster.run(second)
    await place.looked(proposal)
    place.cluster.succeed(second)
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.SUCCEEDED and [one.attempt for one in found.job.intervals] == [1, 2]


@pytest.mark.parametrize("cancelled", [True, False], ids=["cancelled", "at its deadline"])
async def test_a_node_that_stays_away_holds_nothing_for_ever(place: Place, cancelled: bool) -> None:
    """Nobody deletes the Node, so its pod stays as it is, and the Job is never said to have failed."""
    proposal = await place.running()
    (pod,) = place.cluster.pods(proposal.job_name)
    place.cluster.slow_termination = True
    place.cluster.lose_node(pod)
    await place.looked(proposal, rounds=1)
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.RUNNING and found.trouble.startswith("Its node does not answer: ")
    assert place.bot.world.surface.kinds(proposal).count("trouble") == 1, "told once"
    (held,) = found.job.intervals
    assert held.ended_at is not None and held.estimated and held.ended_at - held.started_at < timedelta(minutes=20)
    if cancelled:
        await place.bot.deciding.cancel(hand("rae"), proposal.number)
    else:
        place.bot.world.clock.forward(hours=4)
        place.cluster.tick()
    job = (await place.looked(proposal)).job
    assert job.phase is (JobPhase.CANCELLED if cancelled else JobPhase.FAILED), job
    assert "maximum runtime" in job.reason or cancelled
    assert job.intervals == found.job.intervals


@pytest.mark.parametrize("fault", ["503", "hang"])
async def test_an_api_server_away_for_an_hour_starts_nothing_twice(
    place: Place, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SECONDS", 1.0)
    proposal = await place.approved()
    place.cluster.spoil_all(fault)
    found = await place.looked(proposal, rounds=3)
    assert found.job.phase is JobPhase.SUBMITTED and "it is tried again" in found.trouble
    assert place.bot.world.surface.kinds(proposal).count("trouble") == 1, "told once"
    place.cluster.spoil_all("")
    place.bot.world.clock.forward(hours=1)
    async with asyncio.timeout(60):  # until the streams are open again
        while not place.created(proposal):
            await place.looked(proposal, rounds=1)
            await asyncio.sleep(0.2)
    await place.looked(proposal)
    (pod,) = place.cluster.pods(proposal.job_name)
    place.cluster.schedule(pod)
    place.cluster.run(pod)
    place.cluster.succeed(pod)
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.SUCCEEDED and place.starts(proposal) == 1


@pytest.mark.parametrize(
    ("forbid", "words"),
    [(("create", "jobs"), "role.yaml"), (("patch", "jobs"), "role.yaml")],
)
async def test_a_verb_that_is_forbidden(place: Place, forbid: tuple[str, str], words: str) -> None:
    place.cluster.forbid(*forbid)
    found = await place.looked(await place.approved())
    assert words in found.trouble + found.job.reason
