"""The policy: who may ask, who may decide, how many it takes, how long it holds, what the month may cost. Pure.

It is a file (`bot/policy.yaml`, or the one that SIGNALBOX_POLICY_FILE names) and denies by default: an empty list of
approvers blocks everything, and what no quorum rule covers is never approved. Each check raises `Refused` with the
exact sentence that the person reads. Callers: `bot.approvals` for every decision, `bot.reconciler` before a start.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.core.errors import Misconfigured, Refused
from bot.core.proposal import Proposal, Verdict
from tools.cost import Amount, dollars
from tools.spec import TrainingSpec

NEVER = "never"


class QuorumRule(BaseModel):
    """Up to these limits, so many approvals. A limit that is left out does not limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    up_to_dollars: Decimal | None = Field(default=None, ge=0)  # of the ceiling
    up_to_gpus: int | None = Field(default=None, ge=0)
    recipes: tuple[str, ...] | None = None
    approvals: int | Literal["never"] = Field(default=1)

    def covers(self, spec: TrainingSpec, ceiling: Amount) -> bool:
        """Whether this rule speaks for such a training. What is not fully priced is beyond every dollar limit."""
        if self.recipes is not None and spec.recipe not in self.recipes:
            return False
        if self.up_to_gpus is not None and spec.gpus * spec.machines > self.up_to_gpus:
            return False
        return self.up_to_dollars is None or (not ceiling.unpriced and ceiling.dollars <= self.up_to_dollars)


class ChannelPolicy(BaseModel):
    """What is different in one channel; what is left out is as everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approvers: frozenset[str] | None = None
    approver_groups: frozenset[str] | None = None
    budget_per_month: Decimal | None = Field(default=None, ge=0)  # beside the workspace's own
    open_proposals: int | None = Field(default=None, ge=1)


class Policy(BaseModel):
    """The whole policy. Hours and dollars as decimals. People and groups by their ids, where a surface has ids."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approvers: frozenset[str] = frozenset()
    approver_groups: frozenset[str] = frozenset()  # user groups, whose members are looked up at every decision
    workspaces: frozenset[str] | None = None  # None: the one whose token the bot has
    channels: dict[str, ChannelPolicy] | None = None  # where it answers; None: wherever it is a member
    direct_messages: bool = True
    tell_approvers: Literal["mention", "dm", "no"] = "mention"
    remind_before_minutes: int | None = Field(default=60, ge=1)  # before a proposal expires
    escalate_to: frozenset[str] = frozenset()  # told with the reminder
    quorum: tuple[QuorumRule, ...] = ()  # the first rule that covers a proposal counts
    decide_within_hours: Decimal = Field(default=Decimal(24), gt=0)
    start_within_hours: Decimal = Field(default=Decimal(24), gt=0)
    budget_per_month: Decimal | None = Field(default=None, ge=0)  # dollars; None: no budget is kept
    channel_budget_per_month: Decimal | None = Field(default=None, ge=0)  # set by `in_channel`
    open_proposals_per_person: int = Field(default=5, ge=1)
    open_proposals_per_channel: int = Field(default=50, ge=1)

    @classmethod
    def parse(cls, document: object) -> Self:
        """From parsed YAML. `Misconfigured` names the first thing that is wrong."""
        try:
            policy = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the document"
            raise Misconfigured(f"policy: {place}: {first['msg']}") from error
        if any(isinstance(rule.approvals, int) and rule.approvals < 1 for rule in policy.quorum):
            raise Misconfigured("policy: quorum: approvals must be 1 or more, or never; nothing runs without a person.")
        return policy

    def in_channel(self, channel: str) -> Policy:
        """As it is in one channel."""
        own = (self.channels or {}).get(channel)
        if own is None:
            return self
        changes: dict[str, object] = {"channel_budget_per_month": own.budget_per_month}
        if own.approvers is not None or own.approver_groups is not None:
            changes["approvers"] = own.approvers or frozenset()
            changes["approver_groups"] = own.approver_groups or frozenset()
        if own.open_proposals is not None:
            changes["open_proposals_per_channel"] = own.open_proposals
        return self.model_copy(update=changes)

    def with_members(self, members: frozenset[str]) -> Policy:
        """With the groups' members among the approvers."""
        return self.model_copy(update={"approvers": self.approvers | members, "approver_groups": frozenset()})

    @property
    def decide_within(self) -> timedelta:
        return timedelta(hours=float(self.decide_within_hours))

    @property
    def start_within(self) -> timedelta:
        return timedelta(hours=float(self.start_within_hours))


@dataclass(frozen=True, kw_only=True)
class Budget:
    """This month's money, in dollars. `limit` is None where no budget is kept."""

    limit: Decimal | None
    spent: Decimal  # from recorded intervals
    committed: Decimal  # what the open jobs may still cost
    of: str = ""  # " of this channel" where that is the tighter one

    @property
    def left(self) -> Decimal | None:
        return None if self.limit is None else self.limit - self.spent - self.committed

    def must_hold(self, ceiling: Amount) -> None:
        """Raises `Refused` if the month's budget cannot bear `ceiling` any more."""
        if self.left is not None and ceiling.unpriced:
            raise Refused(
                f"It is {ceiling}, so the budget cannot be kept. Have a rate for it added to the rates file first."
            )
        if self.left is not None and ceiling.dollars > self.left:
            raise Refused(
                f"This month's budget{self.of} cannot bear it: it may cost up to {dollars(ceiling.dollars)} and "
                f"{dollars(max(self.left, Decimal(0)))} of {dollars(self.limit or Decimal(0))} is left. "
                "Ask for less (a shorter max_runtime_minutes), or have the budget raised in the policy file."
            )


def approvals_needed(policy: Policy, spec: TrainingSpec, ceiling: Amount) -> int:
    """How many approvals it takes (1 or more); `Refused` if nobody may approve it."""
    rule = next((rule for rule in policy.quorum if rule.covers(spec, ceiling)), None)
    if rule is None or rule.approvals == NEVER:
        raise Refused(
            f"The policy lets nobody approve this ({spec.recipe}, {spec.gpus * spec.machines} GPUs, up to {ceiling}). "
            "Ask for less, or have a quorum rule for it added to the policy file."
        )
    return int(rule.approvals)


def eligible(policy: Policy, requester: str, author: str) -> frozenset[str]:
    """Who may approve: the approvers, less the requester and whoever made this revision."""
    return policy.approvers - {requester, author}


def check_proposing(
    policy: Policy,
    *,
    requester: str,
    author: str,
    spec: TrainingSpec,
    ceiling: Amount,
    budget: Budget,
    open_by_requester: int,
    open_in_channel: int = 0,
) -> int:
    """Raises `Refused` if such a proposal could lead nowhere; answers how many approvals it takes."""
    if open_by_requester >= policy.open_proposals_per_person:
        raise Refused(
            f"You already have {open_by_requester} proposals waiting, the most that one person may have. "
            "Have some decided or withdraw some first."
        )
    if open_in_channel >= policy.open_proposals_per_channel:
        raise Refused(f"This channel already has {open_in_channel} proposals waiting, the most that it may have.")
    needed = approvals_needed(policy, spec, ceiling)
    able = eligible(policy, requester, author)
    if len(able) < needed:
        raise Refused(
            f"Nobody could approve this: it takes {needed}, and beside who asks the policy names {len(able)}. "
            "Have approvers added to the policy file."
        )
    budget.must_hold(ceiling)
    return needed


def check_deciding(policy: Policy, proposal: Proposal, voter: str, verdict: Verdict) -> int:
    """Raises `Refused` unless this person may vote so now; answers how many approvals it takes."""
    if voter == proposal.requester:
        if verdict is Verdict.APPROVE:
            raise Refused(
                f"You asked for proposal {proposal.number} yourself, so you cannot approve it; "
                f"it takes {_someone(eligible(policy, proposal.requester, proposal.author))}."
            )
        raise Refused(f"Proposal {proposal.number} is your own: withdraw it instead of rejecting it.")
    if voter not in policy.approvers:
        raise Refused(
            f"You are not among the approvers, so you cannot decide on proposal {proposal.number}; "
            f"it takes {_someone(eligible(policy, proposal.requester, proposal.author))}."
        )
    if verdict is Verdict.APPROVE and voter == proposal.author:
        raise Refused(
            f"Revision {proposal.revision} of proposal {proposal.number} is your own edit, so you cannot approve it; "
            f"it takes {_someone(eligible(policy, proposal.requester, proposal.author))}."
        )
    return approvals_needed(policy, proposal.offer.spec, proposal.offer.estimate.ceiling)


def check_start(policy: Policy, proposal: Proposal, budget: Budget) -> None:
    """The second gate, right before a start: are there still enough approvals by people who still have the right?"""
    needed = approvals_needed(policy, proposal.offer.spec, proposal.offer.estimate.ceiling)
    able = eligible(policy, proposal.requester, proposal.author)
    counted = [vote for vote in proposal.votes_for(Verdict.APPROVE) if vote.voter in able]
    if any(vote.digest != proposal.digest for vote in counted) or proposal.offer.digest != proposal.digest:
        raise Refused("What would run is no longer what was approved (its digest differs). Propose it again.")
    if len(counted) < needed:
        raise Refused("It no longer has enough approvals by people who may give them. Propose it again.")
    budget.must_hold(proposal.offer.estimate.ceiling)


def _someone(able: frozenset[str]) -> str:
    return " or ".join(sorted(able)) if able else "another approver, and the policy names none"
