"""The approval life under hostile interleavings: races, edits, time, restarts, engine faults, squatters.

A hypothesis state machine drives the real use cases and reconciler over a real SQLite file. It keeps no model of its
own beyond what was promised: at most one start for an approved proposal, none for any other, what starts is what was
voted on, and every version has its event.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bot.core.errors import SignalboxError
from bot.core.job import JobPhase
from bot.core.proposal import Proposal, ProposalState, Verdict
from bot.store.audit import verify
from tests.world import TEAM, Bot, World, hand, race

PEOPLE = ("rae", "sam", "ann", "bob", "cleo")
people = st.sampled_from(PEOPLE)
faults = st.lists(st.sampled_from(("down", "lost_reply")), max_size=2)
which = st.integers(0, 5)
"""Which of the proposals that could be meant. Always drawn from the same range, never from what is there: who wins a
race is up to the threads, and hypothesis wants to find the same choices when it tries the same steps again."""


class ApprovalLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp())
        self.world = World(url=f"sqlite:///{self.folder / 'life.db'}")
        self.numbers: list[int] = []
        self.bot: Bot
        self.life: Any = None

    def run(self, act: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(act)  # type: ignore[arg-type]

    def attempt(self, act: Awaitable[Any]) -> Any:
        """What people may be refused; anything but our own errors is a bug."""
        try:
            return self.run(act)
        except SignalboxError as error:
            return error

    @initialize(requesters=st.lists(people, min_size=3, max_size=3))
    def begin(self, requesters: list[str]) -> None:
        """Something to decide on from the first step: most of what can go wrong needs a pending proposal."""
        self.start()
        for index, requester in enumerate(requesters):
            self.propose_one(requester, epochs=1 + index, gpus=index % 2)

    def start(self) -> None:
        self.life = self.world.bot()
        self.bot = self.run(self.life.__aenter__())

    @rule(requester=people, epochs=st.integers(1, 5), gpus=st.sampled_from((0, 1)))
    def propose(self, requester: str, epochs: int, gpus: int) -> None:
        self.propose_one(requester, epochs, gpus)

    def propose_one(self, requester: str, epochs: int, gpus: int) -> None:
        recipe = "mnist" if gpus else "digits"
        made = self.attempt(self.bot.propose(requester, recipe, epochs=epochs, gpus=gpus))
        if isinstance(made, Proposal):
            self.numbers.append(made.number)

    def pick(self, nth: int) -> Proposal:
        """One of the newest, pending ones first: the others are refused soon enough."""
        found = self.run(self.bot.store.proposals("local", "terminal", limit=6))
        pending = [one for one in found if one.state is ProposalState.PENDING] or found
        chosen: Proposal = pending[nth % len(pending)]
        return chosen

    @rule(
        nth=which,
        voter=st.sampled_from((*PEOPLE, "requester", "requester", "author")),
        verdict=st.sampled_from(Verdict),
        stale=st.sampled_from((False, False, True)),
    )
    def vote(self, nth: int, voter: str, verdict: Verdict, stale: bool) -> None:
        proposal = self.pick(nth)
        voter = {"requester": proposal.requester, "author": proposal.author}.get(voter, voter)
        seen = "f" * 64 if stale else proposal.digest
        said = self.attempt(
            self.bot.deciding.decide(hand(voter), proposal.number, verdict, seen_digest=seen, reason="r")
        )
        if stale or voter not in self.world.policy.approvers or voter == proposal.requester:
            assert isinstance(said, SignalboxError), "a vote by a forged card, or by one without the right, counted"

    @rule(nth=which, one=people, other=people)
    def approve_while_rejecting(self, nth: int, one: str, other: str) -> None:
        proposal = self.pick(nth)
        said = self.run(race(self.bot.approve(proposal, one), self.bot.reject(proposal, other)))
        self.only_ours(said)

    @rule(nth=which, one=people, other=people)
    def approve_twice_at_once(self, nth: int, one: str, other: str) -> None:
        proposal = self.pick(nth)
        self.only_ours(self.run(race(self.bot.approve(proposal, one), self.bot.approve(proposal, other))))

    @rule(nth=which, voter=people, author=people, epochs=st.integers(1, 6))
    def approve_while_editing(self, nth: int, voter: str, author: str, epochs: int) -> None:
        proposal = self.pick(nth)
        said = self.run(
            race(
                self.bot.approve(proposal, voter, seen=proposal.digest),
                self.bot.revise(proposal, author, {"epochs": epochs}),
            )
        )
        self.only_ours(said)
        approved = [one for one in said if isinstance(one, Proposal) and one.state is ProposalState.APPROVED]
        assert all(one.digest == proposal.digest for one in approved), "approved something that was not seen"

    @rule(nth=which, author=people, epochs=st.integers(1, 6))
    def edit(self, nth: int, author: str, epochs: int) -> None:
        proposal = self.pick(nth)
        after = self.attempt(self.bot.revise(proposal, author, {"epochs": epochs}))
        assert not isinstance(after, Proposal) or (after.votes == () and after.revision == proposal.revision + 1)

    @rule(nth=which, who=people, cancel=st.booleans())
    def take_back(self, nth: int, who: str, cancel: bool) -> None:
        proposal = self.pick(nth)
        deciding = self.bot.deciding
        act = deciding.cancel(hand(who), proposal.number) if cancel else deciding.withdraw(hand(who), proposal.number)
        self.attempt(act)

    @rule(hours=st.sampled_from((0.1, 0.1, 1, 5, 25)))
    def time_passes(self, hours: float) -> None:
        self.world.clock.forward(hours=hours)

    @rule(engine=faults, runs=faults)
    def reconcile(self, engine: list[str], runs: list[str]) -> None:
        self.world.engine.faults = list(engine)
        self.world.runs.faults = list(runs)
        self.run(self.bot.reconciler.tick())
        self.world.engine.faults = []

    @rule(code=st.sampled_from((0, 0, 1, 2, -9)))
    def trainings_end(self, code: int) -> None:
        self.world.engine.finish(code)

    @rule(nth=which, squat=st.booleans())
    def meddle(self, nth: int, squat: bool) -> None:
        name = self.pick(nth).job_name
        self.world.engine.squat(name) if squat else self.world.engine.lose(name)

    @rule()
    def two_reconcilers(self) -> None:
        """Another replica looks at the same moment."""

        async def both() -> None:
            async with self.world.bot() as other:
                await asyncio.gather(self.bot.reconciler.tick(), other.reconciler.tick())

        self.run(both())

    @rule()
    def restart(self) -> None:
        self.run(self.life.__aexit__(None, None, None))
        self.start()

    def only_ours(self, said: list[object]) -> None:
        for one in said:
            assert not isinstance(one, Exception) or isinstance(one, SignalboxError), repr(one)

    @invariant()
    def promises_hold(self) -> None:
        if self.life is None:
            return
        for proposal in self.run(self.bot.store.every_proposal()):
            job = self.run(self.bot.store.job(proposal.id))
            starts = self.world.engine.starts[proposal.job_name]
            assert (job is not None) == (proposal.state is ProposalState.APPROVED)
            assert starts <= 1, f"{proposal.job_name} was started {starts} times"
            if proposal.state is ProposalState.APPROVED:
                self.was_rightly_approved(proposal)
            else:
                assert starts == 0, f"{proposal.job_name} was started without an approval"
            if starts:
                assert self.world.engine.started_digests[proposal.job_name] == proposal.digest

    def was_rightly_approved(self, proposal: Proposal) -> None:
        voters = {vote.voter for vote in proposal.votes_for(Verdict.APPROVE)}
        able = self.world.policy.approvers - {proposal.requester, proposal.author}
        needed = 2 if proposal.offer.spec.gpus else 1
        assert len(voters & able) >= needed
        assert all(vote.digest == proposal.digest for vote in proposal.votes)
        assert not proposal.votes_for(Verdict.REJECT)
        assert proposal.decided_at is not None and proposal.decided_at < proposal.expires_at

    def teardown(self) -> None:
        if self.life is not None:
            self.run(self.everything_moves_on())
            self.run(self.life.__aexit__(None, None, None))
        self.loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def everything_moves_on(self) -> None:
        """However it went: nothing stays stuck, the chain is whole, and everybody was told the end."""
        for _ in range(6):
            await self.bot.settle(4)
            self.world.engine.finish()
        await self.bot.settle(4)
        report = await verify(self.bot.store)
        assert report.whole, report.findings
        assert not await self.bot.store.open_jobs()
        assert not await self.bot.store.undelivered(("local",), due=False)
        for job in await self.bot.store.jobs(TEAM, limit=1000):
            assert job.phase in (JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED)
            proposal = await self.bot.store.proposal_by_id(job.proposal_id)
            assert proposal is not None and "finished" in self.world.surface.kinds(proposal)


ApprovalLife.TestCase.settings = settings(
    max_examples=35,
    stateful_step_count=35,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
TestApprovalLife = ApprovalLife.TestCase
