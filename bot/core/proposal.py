"""A Proposal: what someone wants to train, exactly, and what the people who answer for the money said of it.

Pure values. Each verb checks that the state allows it and answers a changed copy with the next `version`; whether a
person may do it is `bot.core.policy`'s to say, and writing it down is `bot.store`'s. Next step of an approved
proposal: a `bot.core.job.Job`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from bot.core.canonical import SHORT, digest_of
from bot.core.errors import Refused
from tools.cost import Amount, Estimate, Resources
from tools.spec import TrainingSpec, stored_spec


class ProposalState(StrEnum):
    """The values are the database's text."""

    PENDING = "pending"  # waits for people
    APPROVED = "approved"  # enough approvals; a Job exists
    REJECTED = "rejected"  # one person with the right said no
    EXPIRED = "expired"  # nobody decided in time
    WITHDRAWN = "withdrawn"  # taken back by the requester


OPEN = frozenset({ProposalState.PENDING})
TERMINAL = frozenset(ProposalState) - OPEN


class Verdict(StrEnum):
    """What a vote says."""

    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One person's word on one revision; `digest` is what stood on the card that they decided by."""

    voter: str
    verdict: Verdict
    revision: int
    digest: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What would run and what it may cost, which the digest covers, and the estimate beside it."""

    spec: TrainingSpec
    manifest: Mapping[str, Any]  # the engine's exact manifest
    resources: Resources
    rate_version: str
    hourly: Amount  # dollars an hour by that rate version
    estimate: Estimate

    def document(self) -> dict[str, Any]:
        """Everything that will run and the most it may cost, as the digest sees it."""
        return {
            "spec": self.spec.canonical(),
            "manifest": dict(self.manifest),
            "cost": {
                "resources": self.resources.document(),
                "rate_version": self.rate_version,
                "hourly": self.hourly.document(),
                "ceiling": self.estimate.ceiling.document(),
                "max_runtime_seconds": self.estimate.ceiling_seconds,
            },
        }

    @property
    def digest(self) -> str:
        """SHA-256 of `document()`. P50 and P90 are a forecast, not a term, and stay outside."""
        return digest_of(self.document())

    @classmethod
    def from_document(cls, document: Mapping[str, Any], estimate: Mapping[str, Any]) -> Self:
        """The inverse of `document()`, with the stored estimate."""
        cost = document["cost"]
        return cls(
            spec=stored_spec(document["spec"]),
            manifest=document["manifest"],
            resources=Resources.from_document(cost["resources"]),
            rate_version=cost["rate_version"],
            hourly=Amount.from_document(cost["hourly"]),
            estimate=Estimate.from_document(estimate),
        )


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One proposal as it stands. Datetimes are aware, in UTC."""

    id: str
    number: int  # what people type; unique in the workspace
    team: str
    channel: str
    thread: str
    requester: str
    prompt: str  # the requester's own words
    state: ProposalState
    revision: int  # from 1; an edit makes the next
    version: int  # from 1; every change, a vote too, makes the next
    author: str  # who made this revision
    offer: Offer
    digest: str  # of the offer, as stored with the revision
    created_at: datetime
    expires_at: datetime
    votes: tuple[Vote, ...] = ()  # on this revision
    decided_at: datetime | None = None
    decided_by: str | None = None
    reason: str = ""

    @property
    def short_digest(self) -> str:
        return self.digest[:SHORT]

    @property
    def job_name(self) -> str:
        """Deterministic, a DNS label: the same proposal can only ever make the same job."""
        return f"{self.offer.spec.recipe}-{self.number}-{self.id[:6]}"

    def votes_for(self, verdict: Verdict) -> tuple[Vote, ...]:
        return tuple(vote for vote in self.votes if vote.verdict is verdict)

    def must_be_pending(self, now: datetime) -> None:
        """Raises `Refused` with who decided and when, or that the time is over."""
        if self.state is not ProposalState.PENDING:
            by = f" by {self.decided_by}" if self.decided_by else ""
            raise Refused(f"Proposal {self.number} is already {self.state}{by}; nothing was changed.")
        if now >= self.expires_at:
            raise Refused(f"Proposal {self.number} has expired; ask for the training again to get a new one.")

    def voted(self, vote: Vote, *, approvals_needed: int, counted: frozenset[str]) -> Proposal:
        """With one more vote; decided if it was a rejection, or the last approval needed from the voters `counted`.

        A second vote of the same person on the same revision is refused, as is one by another card's digest.
        """
        self.must_be_pending(vote.at)
        if vote.revision != self.revision or vote.digest != self.digest:
            raise Refused(
                f"Proposal {self.number} was changed after that card: it is now revision {self.revision} "
                f"({self.short_digest}). Read the new card and decide by it."
            )
        if any(vote.voter == before.voter for before in self.votes):
            raise Refused(f"You have already voted on revision {self.revision} of proposal {self.number}.")
        after = self._next(votes=(*self.votes, vote))
        if vote.verdict is Verdict.REJECT:
            return after._decided(ProposalState.REJECTED, vote.voter, vote.at, vote.reason)
        approvals = [one for one in after.votes_for(Verdict.APPROVE) if one.voter in counted]
        if len(approvals) >= approvals_needed:
            return after._decided(ProposalState.APPROVED, vote.voter, vote.at, vote.reason)
        return after

    def revised(self, author: str, offer: Offer, *, now: datetime, expires_at: datetime) -> Proposal:
        """The next revision: other terms, no votes, a new time to decide. Refused if nothing would change."""
        self.must_be_pending(now)
        if offer.digest == self.digest:
            raise Refused(f"Proposal {self.number} already says exactly that; nothing was changed.")
        return self._next(
            revision=self.revision + 1, author=author, offer=offer, digest=offer.digest, votes=(), expires_at=expires_at
        )

    def withdrawn(self, by: str, now: datetime, reason: str = "") -> Proposal:
        """Taken back before anyone decided."""
        self.must_be_pending(now)
        return self._next()._decided(ProposalState.WITHDRAWN, by, now, reason)

    def expired(self, now: datetime) -> Proposal:
        """After its time; never an approval."""
        if self.state is not ProposalState.PENDING or now < self.expires_at:
            raise Refused(f"Proposal {self.number} has not expired.")
        return self._next()._decided(ProposalState.EXPIRED, None, now, "nobody decided in time")

    def _next(self, **changes: Any) -> Proposal:
        return replace(self, version=self.version + 1, **changes)

    def _decided(self, state: ProposalState, by: str | None, at: datetime, reason: str) -> Proposal:
        return replace(self, state=state, decided_by=by, decided_at=at, reason=reason)


def proposal_id(team: str, event_id: str, ordinal: int) -> str:
    """The same event can only make the same proposals, however often it is delivered. `ordinal` counts within it."""
    return hashlib.sha256(f"{team}\n{event_id}\n{ordinal}".encode()).hexdigest()[:16]
