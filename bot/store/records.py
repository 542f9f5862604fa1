"""Values to rows and back, and the snapshot of an entity that its events carry. No I/O.

What a snapshot holds is protected by the audit chain; docs/adr/0004 says what is left out and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from bot.core.canonical import canonical_json
from bot.core.job import Job, JobPhase
from bot.core.proposal import Offer, Proposal, ProposalState, Verdict, Vote
from bot.store import schema
from tools.cost import Amount, Estimate, Interval, Resources
from tools.progress import Progress

Row = sa.Row[Any]


def instant(value: datetime | None) -> str | None:
    """One text for one moment: ISO 8601 in UTC with microseconds."""
    return value.astimezone(UTC).isoformat(timespec="microseconds") if value else None


# -- proposals ----------------------------------------------------------------------------------------------------

_PROPOSAL_OWN = tuple(column.name for column in schema.proposal.columns)
_PROPOSAL_FIXED = {"id", "number", "team", "channel", "thread", "requester", "prompt", "created_at"}
_PROPOSAL_CHANGES = tuple(name for name in _PROPOSAL_OWN if name not in _PROPOSAL_FIXED)


def proposal_values(proposal: Proposal) -> dict[str, Any]:
    """The proposal's own row."""
    return {name: getattr(proposal, name) for name in _PROPOSAL_OWN} | {"state": proposal.state.value}


def proposal_changes(proposal: Proposal) -> dict[str, Any]:
    """What of its row may change at all."""
    return {name: getattr(proposal, name) for name in _PROPOSAL_CHANGES} | {"state": proposal.state.value}


def revision_values(proposal: Proposal) -> dict[str, Any]:
    """The row of its present revision; rows of earlier revisions never change."""
    return {
        "proposal_id": proposal.id,
        "revision": proposal.revision,
        "author": proposal.author,
        "offer": canonical_json(proposal.offer.document()),
        "digest": proposal.digest,
        "estimate": canonical_json(proposal.offer.estimate.document()),
        "recipe": proposal.offer.spec.recipe,
    }


def vote_values(proposal: Proposal, vote: Vote) -> dict[str, Any]:
    return _own_of(vote) | {"proposal_id": proposal.id}


def _own_of(vote: Vote) -> dict[str, Any]:
    return {name: getattr(vote, name) for name in Vote.__dataclass_fields__} | {"verdict": vote.verdict.value}


def proposal_from(row: Row, votes: Iterable[Row]) -> Proposal:
    """From a row of `proposal` joined with its present revision, and the votes on that revision."""
    fields = {name: getattr(row, name) for name in _PROPOSAL_OWN}
    return Proposal(
        **(fields | {"state": ProposalState(row.state)}),
        author=row.author,
        offer=Offer.from_document(json.loads(row.offer), json.loads(row.estimate)),
        digest=row.digest,
        votes=tuple(_vote_from(vote) for vote in votes),
    )


def _vote_from(row: Row) -> Vote:
    return Vote(
        voter=row.voter,
        verdict=Verdict(row.verdict),
        revision=row.revision,
        digest=row.digest,
        at=row.at,
        reason=row.reason,
    )


def proposal_snapshot(proposal: Proposal) -> dict[str, Any]:
    """All of it; the offer by its digest and estimate (the digest covers the rest)."""
    own = proposal_values(proposal)
    votes = sorted(proposal.votes, key=lambda vote: vote.voter)
    return {name: instant(value) if isinstance(value, datetime) else value for name, value in own.items()} | {
        "author": proposal.author,
        "digest": proposal.digest,
        "estimate": proposal.offer.estimate.document(),
        "votes": [_own_of(vote) | {"at": instant(vote.at)} for vote in votes],
    }


# -- jobs ---------------------------------------------------------------------------------------------------------

_TOLD_APART = {"phase", "metrics", "team", "channel", "ceiling", "checkpoint_of"}
_NOT_STATE = {"failures", "retry_at", "trouble", "progress", "remedy"}
_EXPLAINS = {"began_at", "preempted"}
_JOB_OWN = tuple(column.name for column in schema.job.columns if column.name not in _TOLD_APART | _NOT_STATE)


def job_values(job: Job) -> dict[str, Any]:
    """The job's own row, without what is not state (progress, trouble)."""
    return {name: getattr(job, name) for name in _JOB_OWN} | {
        "phase": job.phase.value,
        "metrics": canonical_json(job.metrics),
        "team": job.team,
        "channel": job.channel,
        "ceiling": str(job.ceiling),
        "checkpoint_of": job.checkpoint_of,
    }


def job_from(row: Row, intervals: Iterable[Row]) -> Job:
    """From a row of `job` joined with its proposal, and its intervals."""
    return Job(
        **{name: getattr(row, name) for name in _JOB_OWN},
        phase=JobPhase(row.phase),
        metrics=json.loads(row.metrics),
        ceiling=Decimal(row.ceiling),
        checkpoint_of=row.checkpoint_of,
        number=row.number,
        team=row.team,
        channel=row.channel,
        thread=row.thread,
        requester=row.requester,
        intervals=tuple(interval_from(interval) for interval in intervals),
    )


def interval_values(job: Job, interval: Interval) -> dict[str, Any]:
    return {
        "proposal_id": job.proposal_id,
        "attempt": interval.attempt,
        "started_at": interval.started_at,
        "ended_at": interval.ended_at,
        "resources": canonical_json(interval.resources.document()),
        "rate_version": interval.rate_version,
        "hourly": canonical_json(interval.hourly.document()),
        "estimated": interval.estimated,
        "began_at": interval.began_at,
        "preempted": interval.preempted,
    }


@lru_cache(maxsize=1024)
def resources_from(text: str) -> Resources:
    """Thousands of intervals hold the same few texts."""
    return Resources.from_document(json.loads(text))


@lru_cache(maxsize=1024)
def amount_from(text: str) -> Amount:
    return Amount.from_document(json.loads(text))


@lru_cache(maxsize=1024)
def estimate_from(text: str) -> Estimate:
    return Estimate.from_document(json.loads(text))


def interval_from(row: Row) -> Interval:
    return Interval(
        attempt=row.attempt,
        started_at=row.started_at,
        ended_at=row.ended_at,
        resources=resources_from(row.resources),
        rate_version=row.rate_version,
        hourly=amount_from(row.hourly),
        estimated=row.estimated,
        began_at=row.began_at,
        preempted=row.preempted,
    )


def job_snapshot(job: Job) -> dict[str, Any]:
    """All of it, intervals too: what a job cost is in the chain. What it copies from its proposal is in that one's."""
    own = {name: getattr(job, name) for name in _JOB_OWN} | {"phase": job.phase.value, "metrics": job.metrics}
    return {name: instant(value) if isinstance(value, datetime) else value for name, value in own.items()} | {
        "intervals": [
            {
                name: instant(value) if isinstance(value, datetime) else value
                for name, value in held.items()
                if name not in _EXPLAINS
            }
            for held in (interval_values(job, interval) for interval in job.intervals)
        ]
    }


# -- progress -----------------------------------------------------------------------------------------------------


def progress_text(progress: Progress) -> str:
    return canonical_json(asdict(progress))


def progress_from(text: str) -> Progress:
    fields = json.loads(text)
    if not fields:
        return Progress()
    fields["epoch_metrics"] = tuple(fields["epoch_metrics"])
    fields["notes"] = tuple(fields["notes"])
    return Progress(**fields)
