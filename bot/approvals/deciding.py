"""What only a person's own hand may do: approve, reject, edit, withdraw, cancel.

No tool and no agent can import this module (an import contract), so nothing that a model says ever decides. The actor
comes from the surface that authenticated them. Next step of an approval: `bot.reconciler` finds the queued job.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bot.approvals.pricing import Pricing, budget_in
from bot.core.errors import Refused
from bot.core.job import Job, JobPhase
from bot.core.policy import Policy, check_deciding, check_proposing, eligible
from bot.core.proposal import Proposal, ProposalState, Verdict, Vote
from bot.policies import Policies
from bot.store.store import Store
from bot.store.writing import Writing
from tools.crashpoints import crash
from tools.spec import SpecError, TrainingSpec, changed, parse_spec

REASON_LIMIT = 500  # characters


@dataclass(frozen=True, kw_only=True)
class Hand:
    """Whose hand it is, and where: from the authenticated surface."""

    team: str
    channel: str
    user: str


@dataclass(frozen=True, kw_only=True)
class Revised:
    """A new revision, and what it changes: parameter → (old, new)."""

    proposal: Proposal
    before: Proposal
    changes: Mapping[str, tuple[object, object]]


class Deciding:
    """`wake` is called after each commit that gives the reconciler something to do."""

    def __init__(self, store: Store, pricing: Pricing, policies: Policies, wake: Callable[[], None]) -> None:
        self._store = store
        self._pricing = pricing
        self._policies = policies
        self._wake = wake

    async def decide(
        self, hand: Hand, which: int | str, verdict: Verdict, *, seen_digest: str | None = None, reason: str = ""
    ) -> Proposal:
        """One person's vote on the revision whose digest they saw (None: the present one).

        `which` is the proposal's number, or its id where a button names it. Raises `Refused` with the exact reason:
        not theirs to decide, already decided and by whom, expired, changed since. One transaction looks at the
        proposal and the budget and holds the vote, the new state, and the queued job if that was the last vote needed.
        """
        policy = await self._policies.of(hand.team, hand.channel)

        def commit(writing: Writing) -> Proposal:
            before = writing.proposal(hand.team, hand.channel, which)
            before.must_be_pending(writing.now)
            needed = check_deciding(policy, before, hand.user, verdict)
            if verdict is Verdict.APPROVE:
                spending = writing.spending(hand.team, self._pricing.month(writing.now))
                budget_in(spending, policy, hand.channel).must_hold(before.offer.estimate.ceiling)
            crash("decide.before_commit")
            after = before.voted(
                Vote(
                    voter=hand.user,
                    verdict=verdict,
                    revision=before.revision,
                    digest=before.digest if seen_digest is None else seen_digest,
                    at=writing.now,
                    reason=reason[:REASON_LIMIT],
                ),
                approvals_needed=needed,
                counted=eligible(policy, before.requester, before.author),
            )
            kind = "voted" if after.state is ProposalState.PENDING else after.state.value
            writing.move(before, after, kind=kind, actor=hand.user)
            writing.tell(after.team, after.channel, kind, after.id, hand.user)
            if after.state is ProposalState.APPROVED:
                writing.move(None, _job_of(after, writing, policy), kind="queued", actor=hand.user)
            return after

        proposal = await self._store.write(commit)
        crash("decide.after_commit")
        self._wake()
        return proposal

    async def revise(self, hand: Hand, number: int, changes: Mapping[str, object]) -> Revised:
        """Other parameters: the next revision, priced anew, its votes reset. By the requester or an approver."""
        revised = await self._store.rerun(lambda: self._revise(hand, number, changes))
        self._wake()
        return revised

    async def _revise(self, hand: Hand, number: int, changes: Mapping[str, object]) -> Revised:
        before = await self._store.proposal(hand.team, hand.channel, number)
        policy = await self._policies.of(hand.team, hand.channel)
        now = await self._store.now()
        before.must_be_pending(now)
        _must_be_concerned(policy, hand, before.requester, f"edit proposal {number}")
        spec = _edited(before.offer.spec, changes)
        offer = await self._pricing.offer(spec, now)
        check_proposing(
            policy,
            requester=before.requester,
            author=hand.user,
            spec=spec,
            ceiling=offer.estimate.ceiling,
            budget=await self._pricing.budget(policy, hand.team, hand.channel, now),
            open_by_requester=0,  # it is open already
        )

        def commit(writing: Writing) -> Proposal:
            after = before.revised(hand.user, offer, now=writing.now, expires_at=writing.now + policy.decide_within)
            writing.move(before, after, kind="revised", actor=hand.user)
            writing.tell(after.team, after.channel, "revised", after.id, hand.user)
            return after

        after = await self._store.write(commit)
        return Revised(proposal=after, before=before, changes=changed(before.offer.spec, spec))

    async def withdraw(self, hand: Hand, number: int, reason: str = "") -> Proposal:
        """Take back one's own pending proposal."""
        proposal = await self._store.rerun(lambda: self._withdraw(hand, number, reason))
        self._wake()
        return proposal

    async def _withdraw(self, hand: Hand, number: int, reason: str) -> Proposal:
        before = await self._store.proposal(hand.team, hand.channel, number)
        before.must_be_pending(await self._store.now())
        if hand.user != before.requester:
            raise Refused(f"Proposal {number} is {before.requester}'s; an approver rejects it instead.")

        def commit(writing: Writing) -> Proposal:
            after = before.withdrawn(hand.user, writing.now, reason[:REASON_LIMIT])
            writing.move(before, after, kind="withdrawn", actor=hand.user)
            writing.tell(after.team, after.channel, "withdrawn", after.id, hand.user)
            return after

        return await self._store.write(commit)

    async def cancel(self, hand: Hand, number: int) -> Job:
        """Ask for an open job to end. By its requester or an approver; the engine gives it its grace time."""
        job = await self._store.rerun(lambda: self._cancel(hand, number))
        self._wake()
        return job

    async def _cancel(self, hand: Hand, number: int) -> Job:
        proposal = await self._store.proposal(hand.team, hand.channel, number)
        before = await self._store.job(proposal.id)
        if before is None:
            way = "withdraw" if hand.user == proposal.requester else "reject"
            hint = f" Use /{way} {number}." if proposal.state is ProposalState.PENDING else ""
            raise Refused(f"Proposal {number} is {proposal.state}; it has no job to cancel.{hint}")
        if not before.open:
            raise Refused(f"The job {before.name} has already {_ended(before.phase)}.")
        policy = await self._policies.of(hand.team, hand.channel)
        _must_be_concerned(policy, hand, proposal.requester, f"cancel {before.name}")
        if before.cancel_by is not None:
            raise Refused(f"{before.cancel_by} has already cancelled {before.name}; it is ending.")
        after = before.changed(cancel_by=hand.user)

        def commit(writing: Writing) -> Job:
            writing.move(before, after, kind="cancelling", actor=hand.user)
            writing.tell(after.team, after.channel, "cancelling", after.proposal_id, hand.user)
            return after

        return await self._store.write(commit)


def _must_be_concerned(policy: Policy, hand: Hand, requester: str, what: str) -> None:
    if hand.user != requester and hand.user not in policy.approvers:
        raise Refused(f"Only {requester}, who asked for it, or an approver can {what}.")


def _job_of(proposal: Proposal, writing: Writing, policy: Policy) -> Job:
    return Job(
        name=proposal.job_name,
        proposal_id=proposal.id,
        number=proposal.number,
        team=proposal.team,
        channel=proposal.channel,
        thread=proposal.thread,
        requester=proposal.requester,
        revision=proposal.revision,
        digest=proposal.digest,
        phase=JobPhase.QUEUED,
        version=1,
        approved_at=writing.now,
        start_before=writing.now + policy.start_within,
        max_runtime_seconds=proposal.offer.estimate.ceiling_seconds,
        ceiling=proposal.offer.estimate.ceiling.dollars,
        checkpoint_of=proposal.offer.spec.resume_from or proposal.job_name,
    )


def _edited(spec: TrainingSpec, changes: Mapping[str, object]) -> TrainingSpec:
    parameters: dict[str, object] = spec.canonical()
    recipe = str(parameters.pop("recipe"))
    if not changes:
        raise Refused(f"Name what to change, such as lr=3e-4; {recipe} takes {', '.join(parameters)}.")
    try:
        return parse_spec(recipe, {**parameters, **changes})
    except SpecError as error:
        raise Refused(str(error)) from error


def _ended(phase: JobPhase) -> str:
    return "been cancelled" if phase is JobPhase.CANCELLED else phase.value
