"""What a training is charged for the machine that it got: its node's labels, the approved rates, what nobody knows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from bot import ledger
from bot.accounts import spend
from bot.core.job import Job, JobPhase
from bot.core.periods import day
from bot.core.proposal import Proposal
from bot.store.audit import verify
from tests.fakes.kubernetes import Cluster
from tests.fakes.kubernetes.kinds import NODES
from tests.integration.test_kubernetes_faults import Place
from tests.world import TEAM, World
from tools.cost import actual
from tools.engines.kubernetes import machines
from tools.engines.kubernetes.engine import KubernetesEngine
from tools.engines.kubernetes.manifest import ClusterSettings
from tools.rates import RateCard

VERSION = {
    "version": "r1",
    "effective_from": "2026-01-01T00:00:00Z",
    "cpu_core_hour": "0.05",
    "memory_gib_hour": "0",
    "gpu_hour": {"any": "0.25", "L4": "0.36"},
    "spot": {"cpu_core_hour": "0.02", "gpu_hour": {"L4": "0.10"}},
}
SPOT = {"nvidia.com/gpu.product": "L4", "cloud.google.com/gke-spot": "true"}


class Machines(Place):
    """A cluster with GPUs of one node, and one bot on it."""

    def node(self, name: str, labels: dict[str, str]) -> None:
        status = {"allocatable": {"nvidia.com/gpu": "8"}}
        self.cluster.put("nodes", {"metadata": {"name": name, "labels": labels}, "status": status}, namespace="")

    async def submitted(self, **parameters: object) -> Proposal:
        proposal = await self.bot.propose(max_runtime_minutes=60, **parameters)
        await self.bot.approve(proposal, "ann")
        if parameters.get("gpus"):
            await self.bot.approve(proposal, "bob")
        await self.looked(proposal)
        return proposal

    def start(self, proposal: Proposal, node: str) -> str:
        """Its pod's name."""
        (pod,) = (one for one in self.cluster.pods(proposal.job_name) if not one["spec"].get("nodeName"))
        self.cluster.run(self.cluster.schedule(pod, node))
        return str(pod["metadata"]["name"])

    async def over(self, proposal: Proposal, pod: str) -> Job:
        self.cluster.succeed(pod)
        job = (await self.looked(proposal)).job
        assert job.phase is JobPhase.SUCCEEDED and (await verify(self.bot.store)).whole
        return job


@asynccontextmanager
async def machine_place(folder: Path, **settings: str) -> AsyncIterator[Machines]:
    world = World(url=f"sqlite:///{folder / 'machines.db'}", rates=RateCard.parse({"versions": [VERSION]}))
    async with Cluster() as cluster:
        cluster.clock = world.clock
        config = str(cluster.kubeconfig(folder / "kubeconfig"))
        made = replace(ClusterSettings(namespace="training"), **settings)  # type: ignore[arg-type]
        async with KubernetesEngine(made, kubeconfig=config, look_seconds=0) as engine:
            world.engine = engine  # type: ignore[assignment]
            async with world.bot() as bot:
                place = Machines(cluster, bot)
                place.node("spot", SPOT)
                yield place


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Machines]:
    async with machine_place(tmp_path) as made:
        yield made


async def test_a_spot_machine_is_charged_as_what_it_is(place: Machines) -> None:
    proposal = await place.submitted(gpus=1)
    assert str(proposal.offer.estimate.ceiling) == "$0.36", "as the dearest that it may get"
    pod = place.start(proposal, "spot")
    found = await place.looked(proposal)
    (held,) = found.job.intervals
    assert (held.resources.gpu_product, held.resources.spot, held.hourly.dollars) == ("L4", True, Decimal("0.10"))
    job = await place.over(proposal, pod)
    (held,) = job.intervals
    seconds = held.seconds(job.approved_at)
    assert (await place.bot.cards.card(proposal.id)).actual == actual(job.intervals, job.approved_at)
    assert place.cluster.counts[("get", "nodes")] == 1, "asked for once, however often it is looked at"
    now = await place.bot.store.now()
    today = day(now.date(), place.bot.pricing.zone)
    (line,) = ledger.lines(await place.bot.store.charges(today.start, today.end), today, now)
    assert (line["gpu_product"], line["spot"], line["dollars_per_hour"]) == ("L4", True, "0.10")
    assert Decimal(line["dollars"]) == seconds / 3600 * Decimal("0.10")
    devices = (await spend(place.bot.store, TEAM, today, now)).by_device
    assert [(name, amount.dollars) for name, amount in devices] == [("L4 spot", Decimal(line["dollars"]))]


async def test_trainings_on_cpu_cores_and_a_second_pod_have_their_own_machine(place: Machines) -> None:
    proposal = await place.submitted()
    place.cluster.lose_node(place.start(proposal, "spot"))
    place.cluster.finish_termination()
    await place.looked(proposal)
    job = await place.over(proposal, place.start(proposal, "node-1"))
    assert [(one.hourly.dollars, one.resources.spot) for one in job.intervals] == [
        (Decimal("0.08"), True),
        (Decimal("0.20"), False),
    ]
    assert all(one.resources.gpu_product is None for one in job.intervals), "it holds none of the node's GPUs"
    assert [one.preempted for one in job.intervals] == [True, False]
    assert all(one.began_at is not None and one.began_at >= one.started_at for one in job.intervals)


async def test_a_node_that_is_gone_is_charged_as_approved(place: Machines, caplog: pytest.LogCaptureFixture) -> None:
    proposal = await place.submitted(gpus=1)
    pod = place.start(proposal, "spot")
    place.cluster.store.remove(NODES, "", "spot")
    found = await place.looked(proposal)
    assert found.job.phase is JobPhase.RUNNING and found.trouble == ""
    job = await place.over(proposal, pod)
    assert [(one.hourly, one.resources) for one in job.intervals] == [(proposal.offer.hourly, proposal.offer.resources)]
    assert place.cluster.counts[("get", "nodes")] == 1
    assert sum("charged as approved" in one for one in caplog.messages) == 1


async def test_what_may_not_be_read_at_first_is_charged_right_once_it_may(
    place: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "AGAIN_SECONDS", 0.0)
    place.cluster.forbid("get", "nodes")
    proposal = await place.submitted(gpus=1)
    pod = place.start(proposal, "spot")
    (held,) = (await place.looked(proposal)).job.intervals
    assert held.hourly == proposal.offer.hourly
    place.cluster.forbidden.clear()
    (later,) = (await place.looked(proposal)).job.intervals
    assert later == replace(held, resources=later.resources, hourly=later.hourly)
    assert later.resources.spot and later.hourly.dollars == Decimal("0.10")
    assert (await place.over(proposal, pod)).intervals[0].hourly == later.hourly


@pytest.mark.parametrize("then", [{**VERSION, "version": "r2"}, {**VERSION, "gpu_hour": {"any": "9"}}])
async def test_rates_that_are_gone_or_were_changed_leave_the_approved_price(
    place: Machines, then: dict[str, object]
) -> None:
    proposal = await place.submitted(gpus=1)
    place.bot.world.rates = RateCard.parse({"versions": [then]})
    async with place.bot.world.bot() as restarted:
        looking = Machines(place.cluster, restarted)
        job = await looking.over(proposal, looking.start(proposal, "spot"))
    assert [(one.hourly, one.resources.spot) for one in job.intervals] == [(proposal.offer.hourly, True)]


async def test_a_product_that_is_chosen_is_priced_as_that_one(tmp_path: Path) -> None:
    async with machine_place(tmp_path, gpu_product="L4") as place:
        proposal = await place.submitted(gpus=1)
        assert str(proposal.offer.estimate.ceiling) == "$0.36"
        job = await place.over(proposal, place.start(proposal, "spot"))
        assert job.intervals[0].hourly.dollars == Decimal("0.10")
