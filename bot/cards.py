"""A proposal's card as a value: everything that a surface shows of it, read whole from state at one moment.

The same card goes from pending over running to done. Surfaces render it (`bot.console`), the desk speaks from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bot.approvals.pricing import Pricing
from bot.core.errors import NotFound, Refused
from bot.core.job import Job, JobPhase
from bot.core.policy import Budget, approvals_needed, eligible
from bot.core.proposal import Offer, Proposal
from bot.policies import Policies
from bot.store.store import Store
from tools.cost import Actual, actual
from tools.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Card:
    """One proposal with its job, as they stand at `now`."""

    proposal: Proposal
    now: datetime
    needed: int | None  # approvals; None: the policy now lets nobody approve it
    able: tuple[str, ...]  # who may approve it
    budget: Budget
    before: Offer | None  # the previous revision's offer
    job: Job | None = None
    ahead: int = 0  # jobs queued before it
    trouble: str = ""  # why its next step failed, if it did
    remedy: Mapping[str, int | str] = field(default_factory=dict)  # parameters to try, if it failed and some may help
    progress: Progress = field(default_factory=Progress)
    actual: Actual | None = None


class Cards:
    """Builds cards from the store."""

    def __init__(self, store: Store, pricing: Pricing, policies: Policies) -> None:
        self._store = store
        self._pricing = pricing
        self._policies = policies

    async def card(self, proposal_id: str) -> Card:
        """The card of our own row, or `NotFound`."""
        proposal = await self._store.proposal_by_id(proposal_id)
        if proposal is None:
            raise NotFound("There is no such proposal any more.")
        policy = await self._policies.of(proposal.team, proposal.channel)
        now = await self._store.now()
        revisions = await self._store.revisions(proposal.id) if proposal.revision > 1 else []
        try:
            needed = approvals_needed(policy, proposal.offer.spec, proposal.offer.estimate.ceiling)
        except Refused:
            needed = None
        detail = await self._store.job_detail(proposal.id)
        return Card(
            proposal=proposal,
            now=now,
            needed=needed,
            able=tuple(sorted(eligible(policy, proposal.requester, proposal.author))),
            budget=await self._pricing.budget(policy, proposal.team, proposal.channel, now),
            before=revisions[-2] if len(revisions) > 1 else None,
            job=detail.job if detail else None,
            ahead=await self._ahead(detail.job) if detail else 0,
            trouble=detail.trouble if detail else "",
            remedy=detail.remedy if detail else {},
            progress=await self._store.progress(proposal.id) if detail else Progress(),
            actual=actual(detail.job.intervals, now) if detail and detail.job.intervals else None,
        )

    async def _ahead(self, job: Job) -> int:
        if job.phase is not JobPhase.QUEUED:
            return 0
        return await self._store.ahead_of(job)
