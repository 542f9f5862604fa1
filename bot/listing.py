"""Proposals and jobs as JSON for programs, and as a plain table. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bot import wording
from bot.cards import Card
from bot.store.records import instant


def documents(cards: Sequence[Card]) -> list[dict[str, Any]]:
    """One object a proposal, newest first. Money is decimal text in dollars, times ISO 8601 in UTC."""
    return [_document(card) for card in cards]


def _document(card: Card) -> dict[str, Any]:
    proposal, job = card.proposal, card.job
    return {
        "number": proposal.number,
        "id": proposal.id,
        "state": proposal.state.value,
        "revision": proposal.revision,
        "digest": proposal.digest,
        "requester": proposal.requester,
        "decided_by": proposal.decided_by,
        "spec": proposal.offer.spec.canonical(),
        "estimate": proposal.offer.estimate.document(),
        "job": job.name if job else None,
        "phase": job.phase.value if job else None,
        "reason": (job.reason if job else proposal.reason) or None,
        "trouble": card.trouble or None,
        "run_id": job.run_id if job else None,
        "uid": job.uid if job else None,
        "metrics": job.metrics if job else {},
        "progress": card.progress.fraction if job else None,
        "approved_at": instant(job.approved_at) if job else None,
        "started_at": instant(job.started_at) if job else None,
        "finished_at": instant(job.finished_at) if job else None,
        "actual": _actual(card),
    }


def _actual(card: Card) -> dict[str, Any] | None:
    spent = card.actual
    if spent is None:
        return None
    return spent.amount.document() | {
        "seconds": str(spent.seconds),
        "final": spent.final,
        "estimated": spent.estimated,
    }


def table(cards: Sequence[Card]) -> list[str]:
    """Aligned plain text."""
    if not cards:
        return ["There are no proposals or jobs yet."]
    rows = [
        (
            str(card.proposal.number),
            card.job.name if card.job else card.proposal.offer.spec.recipe,
            card.proposal.requester,
            wording.standing(card),
            str(card.actual.amount) if card.actual else f"≤ {card.proposal.offer.estimate.ceiling}",
        )
        for card in cards
    ]
    return wording.table(("#", "training", "asked by", "state", "cost"), rows)
