"""What is said beside the card: short sentences for approvers and the requester, by whom and why. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from bot import wording
from bot.cards import Card
from bot.core.job import JobPhase
from bot.core.policy import Policy
from bot.core.proposal import ProposalState
from bot.slack.elements import quote, section, span
from bot.slack.text import escape, named, shortened

WORDS_SHOWN = 1000  # characters of somebody's own words
MENTIONS = 10  # people named in one reply; more would be noise


@dataclass(frozen=True, kw_only=True)
class Told:
    """One sentence (mrkdwn); to a person directly, or into the proposal's thread where `person` is None."""

    text: str
    person: str | None = None
    words: str = ""  # a person's, a trainer's, a server's own: shown as a quotation, never as markup of ours

    def message(self) -> dict[str, Any]:
        """`text`, and `blocks` where somebody's own words are in it."""
        if not self.words:
            return {"text": self.text}
        blocks = [section(self.text), quote([span("Reason:")], self.words, WORDS_SHOWN)]
        return {"text": f"{self.text} {escape(shortened(self.words, WORDS_SHOWN))}", "blocks": blocks}


def of(kind: str, actor: str, card: Card, policy: Policy) -> list[Told]:
    """What to say when this has happened."""
    proposal = card.proposal
    title = f"Proposal {proposal.number} ({proposal.offer.spec.recipe})"
    asked = f"<@{proposal.requester}>"
    match kind:
        case "proposed" | "revised" if proposal.state is ProposalState.PENDING:
            return _to_approvers(card, policy, f"{title} by {asked} waits for your decision.", card.able)
        case "reminder" if proposal.state is ProposalState.PENDING:
            left = wording.until(proposal.expires_at, card.now)
            whom = [*card.able, *sorted(policy.escalate_to)]
            return _to_approvers(card, policy, f"{title} by {asked} still waits; it expires {left}.", whom)
        case "rejected":
            return [Told(text=f"{asked}, {title} was rejected by <@{actor}>.", words=proposal.reason)]
        case "approved":
            return [Told(text=f"{asked}, {title} was approved by <@{actor}>. It starts as soon as there is room.")]
        case "expired":
            return [Told(text=f"{asked}, {title} expired; nobody decided in time. Ask again to get a new one.")]
        case "trouble" if card.job is not None and card.trouble:
            return [Told(text=f"{card.job.name} has to wait. It is tried again by itself.", words=card.trouble)]
        case "cancelling":
            return [Told(text=f"{title} is being cancelled by <@{actor}>.")]
        case "finished" if card.job is not None:
            cost = f" It cost {card.actual.amount}." if card.actual else ""
            if card.job.phase is JobPhase.FAILED:
                return [Told(text=f"{asked}, {card.job.name} failed.{cost}", words=card.job.reason)]
            found = wording.metrics(card.job.metrics, proposal.offer.spec).split(", ")[0] if card.job.metrics else ""
            how = found or named(card.job.reason, [card.job.cancel_by or ""])
            return [Told(text=f"{asked}, {card.job.name} {card.job.phase}: {how}.{cost}".replace("..", "."))]
        case _:
            return []


def _to_approvers(card: Card, policy: Policy, text: str, people: Collection[str]) -> list[Told]:
    if policy.tell_approvers == "no" or not people:
        return []
    if policy.tell_approvers == "dm":
        return [Told(text=text, person=person) for person in people]
    named = " ".join(f"<@{person}>" for person in list(dict.fromkeys(people))[:MENTIONS])
    return [Told(text=f"{named} {text}")]
