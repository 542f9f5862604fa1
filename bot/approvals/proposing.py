"""`propose`: from a valid spec to a pending proposal. The only use case within the agent's reach; it starts nothing."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.exc import IntegrityError

from bot.approvals.pricing import Pricing
from bot.core.errors import Conflict
from bot.core.policy import check_proposing
from bot.core.proposal import Proposal, ProposalState, proposal_id
from bot.policies import Policies
from bot.store.store import Store
from bot.store.writing import Writing
from tools.crashpoints import crash
from tools.spec import TrainingSpec

PROMPT_LIMIT = 2000  # characters of the requester's words that are kept with the proposal


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Who asked, where, in which words: from the signed event. `ordinal` counts the proposals of one event."""

    team: str
    channel: str
    thread: str
    requester: str
    prompt: str
    event_id: str
    ordinal: int = 0


class Proposing:
    def __init__(self, store: Store, pricing: Pricing, policies: Policies) -> None:
        self._store = store
        self._pricing = pricing
        self._policies = policies

    async def propose(self, asked: Asked, spec: TrainingSpec) -> Proposal:
        """A pending proposal with its price. The same event and ordinal again: the proposal that it made.

        Raises `Refused` where it could lead nowhere (policy, budget, engine), `Unavailable` for now.
        """
        return await self._store.rerun(lambda: self._propose(asked, spec))

    async def _propose(self, asked: Asked, spec: TrainingSpec) -> Proposal:
        identity = proposal_id(asked.team, asked.event_id, asked.ordinal)
        existing = await self._store.proposal_by_id(identity)
        if existing is not None:
            return existing
        policy = await self._policies.of(asked.team, asked.channel)
        now = await self._store.now()
        offer = await self._pricing.offer(spec, now)
        check_proposing(
            policy,
            requester=asked.requester,
            author=asked.requester,
            spec=spec,
            ceiling=offer.estimate.ceiling,
            budget=await self._pricing.budget(policy, asked.team, asked.channel, now),
            open_by_requester=await self._store.count_pending(asked.team, requester=asked.requester),
            open_in_channel=await self._store.count_pending(asked.team, channel=asked.channel),
        )
        crash("propose.before_commit")

        def commit(writing: Writing) -> Proposal:
            proposal = Proposal(
                id=identity,
                number=writing.next_number(asked.team),
                team=asked.team,
                channel=asked.channel,
                thread=asked.thread,
                requester=asked.requester,
                prompt=asked.prompt[:PROMPT_LIMIT],
                state=ProposalState.PENDING,
                revision=1,
                version=1,
                author=asked.requester,
                offer=offer,
                digest=offer.digest,
                created_at=writing.now,
                expires_at=writing.now + policy.decide_within,
            )
            writing.move(None, proposal, kind="proposed", actor=asked.requester)
            writing.tell(asked.team, asked.channel, "proposed", proposal.id, asked.requester)
            return proposal

        try:
            proposal = await self._store.write(commit)
        except IntegrityError as error:  # the number, or the proposal itself, was taken at the same moment
            raise Conflict("Another proposal was made at the same moment; try again.") from error
        crash("propose.after_commit")
        return proposal
