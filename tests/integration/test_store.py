"""The use cases over both databases: one suite, SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from bot.core.errors import Conflict, NotFound, Refused, Unavailable
from bot.core.job import JobPhase
from bot.core.policy import Policy
from bot.core.proposal import Proposal, ProposalState
from bot.store import records, schema
from bot.store.audit import verify
from bot.store.commit import Commit
from bot.store.store import Message
from bot.store.writing import Writing
from tests.world import CHANNEL, TEAM, Bot, FixedPolicy, World, hand, race
from tools.engines.base import Attempt, Standing


async def test_the_whole_walk_is_in_the_chain(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        proposal = await bot.propose(epochs=2)
        await bot.approve(proposal)
        await bot.reconciler.tick()
        world.clock.forward(minutes=6)
        world.engine.finish()
        await bot.settle(3)
        job = await bot.store.job(proposal.id)
        assert job is not None and job.phase is JobPhase.SUCCEEDED
        assert job.run_id == "run-1" and world.runs.closed == {"run-1": JobPhase.SUCCEEDED}
        card = await bot.cards.card(proposal.id)
        assert card.actual is not None and card.actual.final
        assert round(card.actual.amount.dollars, 4) == round(card.actual.seconds / 3600 * 4 / 20, 4)
        assert world.surface.kinds(proposal) == ["proposed", "approved", "started", "finished"]
        report = await verify(bot.store)
        assert report.whole and report.events == 8


async def test_one_winner_of_many_at_once(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        for _ in range(5):
            proposal = await bot.propose()
            said = await race(
                bot.approve(proposal, "ann"),
                bot.reject(proposal, "bob"),
                bot.approve(proposal, "cleo"),
                bot.deciding.withdraw(hand("rae"), proposal.number),
                bot.revise(proposal, "rae", {"epochs": 5}),
            )
            assert all(isinstance(one, Proposal | Refused) for one in said), said
            after = await bot.fresh(proposal)
            wins = [one for one in said if isinstance(one, Proposal) and one.state is not ProposalState.PENDING]
            assert len(wins) == (after.state is not ProposalState.PENDING)
        assert (await verify(bot.store)).whole


async def test_a_redelivered_event_is_the_same_proposal(url: str) -> None:
    async with World(url=url).bot() as bot:
        made = await race(*[bot.propose(event="same", epochs=3) for _ in range(4)])
        assert len({one.id for one in made if isinstance(one, Proposal)}) == 1
        assert len(await bot.store.every_proposal()) == 1


async def test_numbers_are_given_once_to_many_at_once(url: str) -> None:
    async with World(url=url).bot() as bot:
        made = await race(*[bot.propose(epochs=3) for _ in range(6)])
        assert sorted(one.number for one in made if isinstance(one, Proposal)) == [1, 2, 3, 4, 5, 6]


async def test_an_edit_resets_votes_and_reprices(url: str) -> None:
    async with World(url=url).bot() as bot:
        proposal = await bot.propose(recipe="mnist", gpus=1)
        await bot.approve(proposal, "ann")
        edited = await bot.revise(proposal, "bob", {"max_runtime_minutes": 30})
        assert edited.votes == () and edited.digest != proposal.digest
        assert edited.offer.estimate.ceiling.dollars * 2 == proposal.offer.estimate.ceiling.dollars
        with pytest.raises(Refused, match="own edit"):
            await bot.approve(edited, "bob")
        with pytest.raises(Refused, match="was changed after that card"):
            await bot.approve(proposal, "ann", seen=proposal.digest)
        await bot.approve(edited, "ann")
        assert (await bot.approve(edited, "cleo")).state is ProposalState.APPROVED
        assert (await verify(bot.store)).whole


async def test_refusals_are_exact(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        proposal = await bot.propose("ann")
        with pytest.raises(Refused, match="yourself, so you cannot approve it; it takes bob or cleo"):
            await bot.approve(proposal, "ann")
        with pytest.raises(Refused, match="not among the approvers"):
            await bot.approve(proposal, "mallory")
        await bot.reject(proposal, "bob")
        with pytest.raises(Refused, match="already rejected by bob"):
            await bot.approve(proposal, "cleo")
        with pytest.raises(NotFound):
            await bot.store.proposal(TEAM, "another channel", proposal.number)
        with pytest.raises(NotFound):
            await bot.store.proposal("another team", CHANNEL, proposal.number)


async def test_a_checkpoint_is_gone_on_from_by_one_training_at_a_time(url: str) -> None:
    world = World(url=url)
    world.engine.slots = 9
    async with world.bot() as bot:
        first = await bot.approve(await bot.propose())
        await bot.settle(2)
        later = [await bot.approve(await bot.propose("rae", resume_from=first.job_name, seed=seed)) for seed in (1, 2)]

        async def running() -> list[str]:
            await bot.settle(3)
            return [one.job.name for one in await bot.store.open_jobs() if one.job.phase is JobPhase.RUNNING]

        ran = []
        for _ in (first, *later):
            (name,) = await running()
            ran.append(name)
            world.engine.finish()
        assert ran[0] == first.job_name and set(ran[1:]) == {one.job_name for one in later}
        assert await running() == [] and not await bot.store.open_jobs()
        assert [run.spec.resume_from for run in await bot.store.history()] == [None], "parts are no history"


async def test_what_waits_for_its_checkpoint_holds_nobody_up(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        first = await bot.approve(await bot.propose())
        await bot.settle(2)
        resumed = await bot.approve(await bot.propose("rae", resume_from=first.job_name))
        behind = await bot.approve(await bot.propose())
        assert (await bot.cards.card(behind.id)).ahead == 0
        await bot.settle(2)
        assert set(world.engine.starts) == {first.job_name, behind.job_name}, "a slot stays idle"
        last = await bot.approve(await bot.propose())
        world.engine.finish()
        await bot.settle(2)
        assert set(world.engine.starts) == {one.job_name for one in (first, behind, resumed, last)}
        assert (await verify(bot.store)).whole


async def test_two_replicas_permit_as_one_would(url: str) -> None:
    """Many look at the same moment; no folder is written by two, and no slot is given twice."""
    world = World(url=url)
    world.engine.slots = 3
    async with world.bot() as bot, world.bot() as other:
        for _ in range(3):
            await bot.approve(await bot.propose("rae", resume_from="digits-9-abc123"))
            await bot.approve(await bot.propose())
        queued = [one.job for one in await bot.store.queued_jobs(first=None, now=world.clock())]
        for _ in range(3):
            await race(*[replica.steps().take(job.proposal_id) for job in queued for replica in (bot, other)])
            await race(bot.reconciler.tick(), other.reconciler.tick())
            held = [one.job for one in await bot.store.held_jobs()]
            assert len({one.checkpoint_of for one in held}) == len(held) <= world.engine.slots
            world.engine.finish()
            await bot.reconciler.tick()
        await bot.settle(2)
        assert sorted(world.engine.starts.values()) == [1] * 6


async def test_a_slot_that_was_given_meanwhile_is_not_given_again(url: str) -> None:
    """One replica is slow between its look and its commit, and what stood aside is back in line before it."""

    class Slow(FixedPolicy):
        looked, goes_on = asyncio.Event(), asyncio.Event()

        async def of(self, team: str, channel: str) -> Policy:
            self.looked.set()
            await self.goes_on.wait()
            return await super().of(team, channel)

    world = World(url=url)
    world.engine.slots = 1
    async with world.bot() as bot, world.bot() as other:
        first = await bot.approve(await bot.propose())
        await bot.settle(1)
        resumed = await bot.approve(await bot.propose("rae", resume_from=first.job_name))
        behind = await bot.approve(await bot.propose())
        world.engine.finish()
        slow = Slow(world.policy)
        permitting = asyncio.create_task(other.steps(slow).take(behind.id))
        await slow.looked.wait()
        await bot.settle(2)
        assert set(world.engine.starts) == {first.job_name, resumed.job_name}
        slow.goes_on.set()
        assert not await permitting, "it was permitted by what it had seen before"


async def test_history_is_of_whole_trainings_on_as_many_nodes_as_they_had(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        for nodes, attempts in (
            (1, [(0, 40, False)]),
            (1, [(0, 30, True), (30, 90, False)]),  # the second may have gone on from a checkpoint
            (2, [(0, 100, False), (10, 110, False)]),
            (2, [(0, 100, False), (10, 60, False), (60, 120, False)]),
            (2, [(0, 100, False), (10, 150, True)]),
        ):
            proposal = await bot.approve(await bot.propose(recipe="distilgpt2", nodes=nodes, max_runtime_minutes=60))
            await bot.reconciler.tick()
            there = world.engine.jobs[proposal.job_name]
            began = there.attempts[0].started_at
            seen = tuple(
                Attempt(
                    number=number,
                    started_at=began + timedelta(seconds=start),
                    ended_at=began + timedelta(seconds=end),
                    estimated=estimated,
                )
                for number, (start, end, estimated) in enumerate(attempts, 1)
            )
            world.engine.jobs[proposal.job_name] = replace(there, standing=Standing.ENDED, exit_code=0, attempts=seen)
            await bot.reconciler.tick()
        assert not await bot.store.open_jobs()
        found = {(run.spec.machines, run.seconds) for run in await bot.store.history()}
        assert found == {(1, Decimal(40)), (2, Decimal(110))}


async def test_time_never_approves(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        proposal = await bot.propose()
        world.clock.forward(hours=24)
        with pytest.raises(Refused, match="has expired"):
            await bot.approve(proposal)
        await bot.reconciler.tick()
        assert (await bot.fresh(proposal)).state is ProposalState.EXPIRED
        assert world.surface.kinds(proposal) == ["proposed", "expired"]


async def test_approvers_are_reminded_once(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        proposal = await bot.propose()
        world.clock.forward(hours=22.5)
        await bot.reconciler.tick()
        assert "reminder" not in world.surface.kinds(proposal)
        world.clock.forward(minutes=40)
        await race(*[bot.reconciler.tick() for _ in range(2)])
    async with world.bot() as bot, world.bot() as other:
        await race(bot.reconciler.tick(), other.reconciler.tick())
        assert world.surface.kinds(proposal) == ["proposed", "reminder"]


async def test_an_old_approval_starts_nothing(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        proposal = await bot.propose()
        world.engine.slots = 0
        await bot.approve(proposal)
        await bot.reconciler.tick()
        world.engine.slots = 1
        world.clock.forward(hours=25)
        await bot.settle(2)
        job = await bot.store.job(proposal.id)
        assert job is not None and job.phase is JobPhase.FAILED and "too old" in job.reason
        assert not world.engine.starts


async def test_jobs_beyond_the_slots_queue_in_order(url: str) -> None:
    world = World(url=url)
    world.engine.slots = 1
    async with world.bot() as bot:
        proposals = [await bot.propose(epochs=epochs) for epochs in (1, 2, 3)]
        for proposal in proposals:
            await bot.approve(proposal)
        for count in (1, 2, 3):
            await bot.settle(3)
            assert [world.engine.starts[one.job_name] for one in proposals] == [1] * count + [0] * (3 - count)
            world.engine.finish()


async def test_the_second_gate_asks_again(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        proposal = await bot.propose()
        await bot.approve(proposal, "ann")
    world.policy = world.policy.model_copy(update={"approvers": frozenset({"bob", "cleo"})})
    async with world.bot() as bot:
        await bot.settle(2)
        job = await bot.store.job(proposal.id)
        assert job is not None and job.phase is JobPhase.FAILED and "no longer has enough approvals" in job.reason
        assert not world.engine.starts


async def test_a_failing_row_backs_off_and_stalls_nobody(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        first, second = await bot.propose(epochs=1), await bot.propose(epochs=2)
        await bot.approve(first)
        await bot.approve(second)
        world.runs.faults = ["down"]
        world.surface.broken = {"approved"}
        await bot.reconciler.tick()
        jobs = {one.job.proposal_id: one for one in await bot.store.open_jobs()}
        troubled = [one for one in jobs.values() if one.trouble]
        assert len(troubled) == 1 and "MLflow" in troubled[0].trouble
        await bot.settle(2)
        assert [world.engine.starts[one.job_name] for one in (first, second)] == [1, 1]
        world.engine.finish()
        await bot.settle(14)
        assert world.surface.kinds(first)[-1] == "finished"
        assert not await bot.store.undelivered([TEAM], due=False), "the poison row was set aside"


async def test_a_surface_that_is_away_for_long_is_told_everything_when_it_is_back(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        world.surface.away = True
        proposal = await bot.propose()
        for _ in range(150):
            await bot.reconciler.deliver()
            world.clock.forward(minutes=1)
        assert not world.surface.told
        world.surface.away = False
        world.clock.forward(minutes=5)
        await bot.reconciler.deliver()
        assert world.surface.kinds(proposal) == ["proposed"]
        world.surface.away = True
        await bot.approve(proposal)
        world.clock.forward(days=4)
        await bot.reconciler.deliver()
        assert not await bot.store.undelivered([TEAM], due=False), "in the end it is given up"


async def test_what_was_set_aside_is_tried_once_more_by_the_next_life(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        world.surface.broken = {"proposed"}
        mended, poison = await bot.propose(epochs=1), await bot.propose(epochs=2)
        await bot.approve(poison)
        world.surface.broken = {"proposed", "approved"}
        await bot.settle(14)
        world.surface.broken = {"approved"}
    async with world.bot() as bot:
        running = asyncio.create_task(bot.reconciler.run())
        async with asyncio.timeout(20):
            while not world.surface.kinds(mended) or await bot.store.undelivered([TEAM], due=False):
                await asyncio.sleep(0.05)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert world.surface.kinds(mended) == ["proposed"]
        assert "approved" not in world.surface.kinds(poison)


async def test_cancel_ends_a_running_job_once(url: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        proposal = await bot.propose()
        await bot.approve(proposal)
        await bot.reconciler.tick()
        with pytest.raises(Refused, match="Only rae"):
            await bot.deciding.cancel(hand("sam"), proposal.number)
        await bot.deciding.cancel(hand("rae"), proposal.number)
        with pytest.raises(Refused, match="already cancelled"):
            await bot.deciding.cancel(hand("ann"), proposal.number)
        await bot.settle(3)
        job = await bot.store.job(proposal.id)
        assert job is not None and job.phase is JobPhase.CANCELLED and job.reason == "Cancelled by rae."


async def test_the_budget_is_counted_with_what_is_committed(url: str) -> None:
    world = World(url=url)
    world.policy = world.policy.model_copy(update={"budget_per_month": world.policy.budget_per_month / 10_000})  # $0.10
    async with world.bot() as bot:
        first = await bot.propose()  # up to $0.05 each
        second = await bot.propose()
        third = await bot.propose()
        await bot.approve(first)
        await bot.approve(second)
        with pytest.raises(Refused, match="budget cannot bear"):
            await bot.approve(third)
        with pytest.raises(Refused, match="budget cannot bear"):
            await bot.propose()


async def in_one_commit(bot: Bot, *acts: Awaitable[object]) -> list[object]:
    """In this order, behind a write that holds the writer until all of them wait for it."""
    free = threading.Event()
    holding = asyncio.create_task(bot.store.database.write(lambda _: free.wait(5)))
    await asyncio.sleep(0.05)
    waiting = []
    for act in acts:
        waiting.append(asyncio.ensure_future(act))
        await asyncio.sleep(0.05)
    free.set()
    await holding
    return await race(*waiting)


async def test_decisions_that_share_a_commit_share_the_budget(url: str) -> None:
    world = World(url=url)
    world.policy = world.policy.model_copy(update={"budget_per_month": world.policy.budget_per_month / 10_000})  # $0.10
    async with world.bot() as bot:
        proposals = [await bot.propose() for _ in range(5)]  # up to $0.05 each
        await bot.approve(proposals[0])
        queued = await bot.store.job(proposals[0].id)
        assert queued is not None

        def accident(writing: Writing) -> None:
            cancelled(writing)
            raise RuntimeError("an accident")

        def cancelled(writing: Writing) -> None:
            after = queued.changed(phase=JobPhase.CANCELLED, finished_at=writing.now)
            writing.move(queued, after, kind="cancelled", actor="rae")

        said = await in_one_commit(
            bot,
            bot.approve(proposals[1]),
            bot.store.write(accident),
            bot.approve(proposals[2]),
            bot.store.write(cancelled),
            bot.approve(proposals[3]),
            bot.approve(proposals[4]),
        )
        kinds = [type(one).__name__ for one in said]
        assert kinds == ["Proposal", "RuntimeError", "Refused", "NoneType", "Proposal", "Refused"], said
        assert (await bot.store.committed(TEAM, await bot.store.now()))[CHANNEL] <= Decimal("0.10")


@pytest.mark.parametrize(
    ("table", "change", "words"),
    [
        (schema.event, {"body": "{}"}, "event 3"),
        (schema.event, {"actor": "mallory"}, "event 3"),
        (schema.proposal, {"requester": "mallory"}, "requester"),
        (schema.vote, {"voter": "mallory"}, "votes"),
        (schema.vote, {"digest": "0"}, "votes"),
        (schema.revision, {"author": "mallory"}, "author"),
        (schema.job, {"reason": "nothing happened"}, "reason"),
        (schema.job, {"ceiling": "0"}, "ceiling"),
        (schema.job, {"channel": "C-other"}, "channel"),
        (schema.job, {"checkpoint_of": "digits-9-abc123"}, "checkpoint"),
        (schema.pod_interval, {"hourly": '{"dollars":"0.01","unpriced":[]}'}, "intervals"),
        (schema.chain_head, {"seq": 99}, "end is missing"),
    ],
)
async def test_one_altered_row_is_found(url: str, table: sa.Table, change: dict[str, object], words: str) -> None:
    world = World(url=url)
    async with world.bot() as bot:
        proposal = await bot.propose()
        await bot.approve(proposal)
        await bot.reconciler.tick()
        assert (await verify(bot.store)).whole
        where = table.c.seq == 3 if table is schema.event else sa.true()
        await bot.store.database.write(lambda c: c.connection.execute(sa.update(table).where(where).values(**change)))
        report = await verify(bot.store)
        assert not report.whole and words in f"{report.findings[0].where}: {report.findings[0].what}"


@pytest.mark.parametrize(
    ("table", "change"),
    [
        (schema.vote, {"voter": "mallory"}),
        (schema.vote, {"verdict": "reject"}),
        (schema.revision, {"author": "mallory"}),
        (schema.revision, {"offer": "{}"}),
        (schema.revision, {"recipe": "digits"}),
        (schema.revision, {"offer": "no JSON"}),
        (schema.revision, {"estimate": "{}"}),
    ],
)
async def test_an_altered_row_of_an_earlier_revision_is_found(
    url: str, table: sa.Table, change: dict[str, object]
) -> None:
    async with World(url=url).bot() as bot:
        proposal = await bot.propose(recipe="mnist", gpus=1)
        await bot.approve(proposal)
        await bot.revise(proposal, "rae", {"epochs": 2})
        assert (await verify(bot.store)).whole
        alter = sa.update(table).where(table.c.revision == 1).values(**change)
        await bot.store.database.write(lambda commit: commit.connection.execute(alter))
        report = await verify(bot.store)
        assert not report.whole and report.findings[0].where.startswith("revision 1")


@pytest.mark.parametrize("table", [schema.event, schema.vote])
async def test_a_removed_row_is_found(url: str, table: sa.Table) -> None:
    async with World(url=url).bot() as bot:
        proposal = await bot.propose(recipe="mnist", gpus=1)
        await bot.approve(proposal)
        await bot.revise(proposal, "rae", {"epochs": 2})
        where = table.c.seq == 2 if table is schema.event else sa.true()
        await bot.store.database.write(lambda commit: commit.connection.execute(sa.delete(table).where(where)))
        assert not (await verify(bot.store)).whole


async def test_what_people_said_is_kept_once_until_it_is_answered(url: str) -> None:
    async with World(url=url).bot() as bot:
        said = Message(team=TEAM, event_id="e", channel=CHANNEL, thread="t", user="rae", text="train digits")
        assert [await bot.store.receive(said), await bot.store.receive(said)] == [True, False]
        assert await bot.store.unanswered(TEAM) == [said]
        await bot.store.answered(TEAM, "e")
        assert await bot.store.unanswered(TEAM) == []


async def test_a_message_is_held_by_one_until_its_lease_is_over(url: str) -> None:
    world = World(url=url)
    said = Message(team=TEAM, event_id="e", channel=CHANNEL, thread="t", user="rae", text="train digits")
    async with world.bot() as first, world.bot() as second, world.bot() as third:
        await first.store.receive(said)
        world.clock.forward(seconds=15)
        assert await second.store.take_up(TEAM) == []
        assert await first.store.renew(said)
        world.clock.forward(seconds=15)
        assert await second.store.take_up(TEAM) == []
        world.clock.forward(seconds=15)
        taken = await race(*[one.store.take_up(TEAM) for one in (second, third, first)])
        assert sorted(map(str, taken)) == sorted(map(str, [[], [], [said]]))
        kept = await race(*[one.store.renew(said) for one in (second, third, first)])
        assert kept == [bool(one) for one in taken]
        for one in (first, second, third):
            await one.store.release_messages()
        assert await second.store.take_up(TEAM) == [said]
        await first.store.answered(TEAM, "e")
        assert not await second.store.renew(said), "whoever answered it last"
        world.clock.forward(hours=1)
        assert await third.store.take_up(TEAM) == []


async def test_a_replica_of_an_earlier_version_gets_time_to_answer(url: str) -> None:
    """In a rolling upgrade: it writes messages without a lease. What was left over from before is anybody's."""
    world = World(url=url)
    said = Message(team=TEAM, event_id="e", channel=CHANNEL, thread="t", user="rae", text="train digits")
    async with world.bot() as bot:
        await bot.store.receive(said)
        unleased = sa.update(schema.inbox).values(claimed_by=None, claimed_until=None)
        await bot.store.database.write(lambda commit: commit.connection.execute(unleased))
        assert await bot.store.take_up(TEAM) == []
        world.clock.forward(minutes=3)
        assert await bot.store.take_up(TEAM) == [said]


async def test_who_is_alone_need_not_wait_for_the_leases_of_its_own_death(url: str) -> None:
    world = World(url=url)
    said = Message(team=TEAM, event_id="e", channel=CHANNEL, thread="t", user="rae", text="train digits")
    async with world.bot() as killed:
        proposal = await killed.propose()
        await killed.store.receive(said)
        assert await killed.store.write(lambda w: w.claim_card(proposal.id, w.now + timedelta(minutes=1)))
    async with world.bot() as bot:
        assert await bot.store.take_up(TEAM) == []
        await bot.store.write(lambda writing: writing.end_leases())
        assert await bot.store.take_up(TEAM) == [said]
        assert await bot.store.write(lambda w: w.claim_card(proposal.id, w.now + timedelta(minutes=1)))


async def test_a_digest_is_claimed_once_by_many(url: str) -> None:
    async with World(url=url).bot() as bot:

        def claim(writing: Writing) -> None:
            writing.claim_digest(TEAM, CHANNEL, "2026-11-23")
            writing.tell(TEAM, CHANNEL, "digest", "2026-11-23", "signalbox")

        said = await race(*[bot.store.write(claim) for _ in range(5)])
        assert [type(one) for one in said if one is not None] == [Conflict] * 4
        assert len(await bot.store.undelivered([TEAM])) == 1


async def test_nothing_is_half_written(url: str) -> None:
    async with World(url=url).bot() as bot:

        def accident(writing: Writing) -> None:
            writing.tell(TEAM, CHANNEL, "proposed", "x", "rae")
            raise RuntimeError("an accident")

        with pytest.raises(RuntimeError):
            await bot.store.write(accident)
        assert await bot.store.undelivered([TEAM]) == []


async def test_writes_that_share_a_commit_fail_alone(url: str) -> None:
    async with World(url=url).bot() as bot:

        def told(subject: str) -> Callable[[Writing], None]:
            def act(writing: Writing) -> None:
                writing.tell(TEAM, CHANNEL, "proposed", subject, "rae", once=subject)
                if subject == "bad":
                    raise RuntimeError("an accident")

            return act

        said = await race(*[bot.store.write(told(subject)) for subject in ("a", "bad", "b", "a", "c")])
        kinds = [type(one).__name__ for one in said]
        assert kinds == ["NoneType", "RuntimeError", "NoneType", "IntegrityError", "NoneType"]
        assert [notice.subject for notice in await bot.store.undelivered([TEAM])] == ["a", "b", "c"]


async def test_decisions_that_share_a_commit_are_one_chain(url: str) -> None:
    """Whatever fell out between them left no trace in it."""
    async with World(url=url).bot() as bot:
        proposals = [await bot.propose(seed=seed) for seed in range(4)]

        def withdrawing(writing: Writing, actor: str) -> None:
            before = writing.proposal(TEAM, CHANNEL, proposals[3].id)
            writing.move(before, before.withdrawn("rae", writing.now, ""), kind="withdrawn", actor=actor)
            writing.tell(TEAM, CHANNEL, "withdrawn", before.id, "rae")

        def accident(writing: Writing) -> None:
            withdrawing(writing, "rae")
            raise RuntimeError("an accident")

        failing = [bot.store.write(accident), bot.store.write(lambda writing: withdrawing(writing, "\ud800"))]
        approving = [bot.approve(one) for one in proposals[:3]]
        said = await in_one_commit(bot, *approving[:2], *failing, approving[2])
        assert [type(said.pop(2)) for _ in failing] == [RuntimeError, UnicodeEncodeError], said
        assert [one.state for one in said] == [ProposalState.APPROVED] * 3, said
        told = await bot.store.undelivered([TEAM])
        assert [one.kind for one in told] == ["proposed"] * 4 + ["approved"] * 3
        report = await verify(bot.store)
        assert report.whole and report.entities == 7, report


async def test_an_event_log_that_was_tampered_with_loses_no_message(url: str) -> None:
    """What is refused at a commit's end is no sign that the message was here already."""
    said = Message(team=TEAM, event_id="e", channel=CHANNEL, thread="t", user="rae", text="train digits")
    async with World(url=url).bot() as bot:
        proposal = await bot.propose()
        await bot.store.database.write(lambda c: c.connection.execute(sa.update(schema.chain_head).values(seq=0)))
        told = await in_one_commit(bot, bot.approve(proposal), bot.store.receive(said))
        assert [type(one) for one in told] == [Unavailable, Unavailable] and "audit verify" in str(told[1])
        assert await bot.store.receive(said)
        assert await bot.store.unanswered(TEAM) == [said]


async def test_two_databases_tell_the_same_time(url: str) -> None:
    from datetime import UTC, datetime

    from bot.store.database import Database
    from bot.store.store import Store

    database = Database(url)
    await database.open()
    try:
        assert abs(await Store(database).now() - datetime.now(UTC)) < timedelta(seconds=5)
    finally:
        await database.close()


async def test_a_database_from_before_gets_its_copies(url: str) -> None:
    """Jobs that an earlier version queued count in budgets and queues with what was approved for them."""
    from alembic import command
    from alembic.config import Config

    async with World(url=url).bot() as bot:
        await bot.approve(await bot.propose())
        await bot.approve(await bot.propose(resume_from="digits-9-abc123"))
        before = await bot.store.committed(TEAM, await bot.store.now())
        assert sum(before.values()) > 0

        def there_and_back(commit: Commit) -> None:
            config = Config(attributes={"connection": commit.connection})
            config.set_main_option("script_location", "bot/store/migrations")
            command.downgrade(config, "0005")
            command.upgrade(config, "head")

        await bot.store.database.write(there_and_back)
        assert await bot.store.committed(TEAM, await bot.store.now()) == before
        assert (await verify(bot.store)).whole


async def test_a_replica_of_an_earlier_version_queues_no_job_without_its_copies(url: str) -> None:
    """In a rolling upgrade; SQLite has one bot alone."""
    if url.startswith("sqlite"):
        pytest.skip("no replicas")
    async with World(url=url).bot() as bot:
        proposal = await bot.approve(await bot.propose())
        job = await bot.store.job(proposal.id)
        assert job is not None
        values = records.job_values(job) | {"proposal_id": (await bot.propose()).id, "name": "other"}
        for name in ("team", "channel", "ceiling", "checkpoint_of"):
            lacking = {key: value for key, value in values.items() if key != name}
            with pytest.raises(IntegrityError, match=name):
                await bot.store.database.write(lambda c, row=lacking: c.connection.execute(sa.insert(schema.job), row))


async def test_the_schema_is_what_the_migrations_make(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def differences(connection: sa.Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), schema.metadata))

    async with World(url=url).bot() as bot:
        assert await bot.store.database.read(differences) == []
