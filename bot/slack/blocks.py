"""A proposal's card as a Slack message, whole from a `Card` value. Pure.

The same message goes from pending over running to done; buttons are there only while they can be pressed. A button
carries the proposal, revision and digest of this very card: a later revision makes it stale, and the use case says so.
Next step of a press: `bot.slack.hands`; the forms behind the buttons are in `bot.slack.modals`.
"""

from __future__ import annotations

from typing import Any

from bot import wording
from bot.cards import Card
from bot.core.job import Job, JobPhase
from bot.core.proposal import Proposal, ProposalState
from bot.slack import said
from bot.slack.charts import learning_curves
from bot.slack.elements import Block, context, header, pairs, person, plain, quote, section, span
from bot.slack.text import code, named, shortened

APPROVE, REJECT, EDIT, DETAILS = "sb_approve", "sb_reject", "sb_edit", "sb_details"
CANCEL, RETRY, RERUN, COMPARE = "sb_cancel", "sb_retry", "sb_rerun", "sb_compare"
EVENT_TYPE = "signalbox_card"

PROMPT_SHOWN = 600  # characters of the requester's words; all of them are in the details
REASON_SHOWN = 1000
NO_DIGEST = "none"
FALLBACK = 1000  # characters of what a notification shows


def card(card: Card) -> dict[str, Any]:
    """The whole message: `text` for notifications and plain clients, `blocks`, `metadata`."""
    proposal = card.proposal
    return {
        "text": _fallback(card),
        "blocks": [
            header(f"{said.title(card)} · {said.state(card)}", block_id=mark(proposal)),
            quote([person(proposal.requester), span(" asked:")], proposal.prompt, PROMPT_SHOWN),
            section("\n".join(said.program(proposal.offer))),
            *_revision(card),
            pairs(said.money(card)),
            *_standing(card),
            *_curve(card),
            context(*_identity(card)),
            *_actions(card),
        ],
        "metadata": {
            "event_type": EVENT_TYPE,
            "event_payload": {"proposal": proposal.id, "revision": proposal.revision},
        },
    }


def mark(proposal: Proposal) -> str:
    """The block id by which a card is known again in a thread, whatever becomes of metadata."""
    return f"card:{proposal.id}"


def value(proposal: Proposal) -> str:
    """What a button carries; a claim, compared with the database when it comes back."""
    return f"{proposal.id}:{proposal.revision}:{proposal.digest}"


def parse_value(text: str) -> tuple[str, str]:
    """Proposal id and full digest of a button's value; nonsense gives ids and digests that do not exist.

    Never an empty digest: to `decide`, none would mean the present one, which nobody may have seen.
    """
    return text.partition(":")[0][:64], text.rpartition(":")[2][:64] or NO_DIGEST


def button(text: str, action: str, proposal: Proposal, **more: Any) -> Block:
    return {"type": "button", "action_id": action, "text": plain(text), "value": value(proposal), **more}


def _fallback(card: Card) -> str:
    proposal = card.proposal
    people = {proposal.requester, proposal.decided_by or "", (card.job.cancel_by or "") if card.job else ""}
    return named(shortened(said.headline(card), FALLBACK), people)


def _revision(card: Card) -> list[Block]:
    return [section(said.revision(card))] if card.before is not None else []


def _standing(card: Card) -> list[Block]:
    """Who said what, how far it is, how it ended; a person's or trainer's own words as a quotation."""
    blocks = [section("\n".join(said.standing(card)))]
    proposal, job = card.proposal, card.job
    if job is None and proposal.reason and proposal.state in (ProposalState.REJECTED, ProposalState.WITHDRAWN):
        blocks.append(quote([span("Reason:")], proposal.reason, REASON_SHOWN))
    if job is not None and job.phase is JobPhase.FAILED:
        blocks.append(quote([span("Reason:")], job.reason or "It gave none.", REASON_SHOWN))
        blocks.append(section(f"*Next* {said.next_after_failure(card)}"))
    if job is not None and job.open and card.trouble:
        blocks.append(quote([span("Trouble with its next step, which is tried again:")], card.trouble, REASON_SHOWN))
    return blocks


def _curve(card: Card) -> list[Block]:
    if card.job is None or card.job.open:
        return []
    return learning_curves(card.progress.epoch_metrics)


def _identity(card: Card) -> list[str]:
    proposal = card.proposal
    parts = [f"digest {code(proposal.short_digest)}", f"revision {proposal.revision}"]
    if card.job is not None:
        parts.insert(0, f"proposal {proposal.number}")
        if card.job.run_id:
            parts.append(f"MLflow run {code(card.job.run_id)}")
    return parts


def _actions(card: Card) -> list[Block]:
    buttons = [*_buttons(card), button("Details", DETAILS, card.proposal)]
    return [{"type": "actions", "block_id": f"actions:{card.proposal.id}", "elements": buttons}]


def _buttons(card: Card) -> list[Block]:
    """What can be pressed now, beside the details, which can always be read."""
    proposal, job = card.proposal, card.job
    if job is not None:
        return _job_buttons(card, job)
    if proposal.state is not ProposalState.PENDING or card.now >= proposal.expires_at:
        return []
    return [
        button("Approve", APPROVE, proposal, style="primary"),
        button("Reject", REJECT, proposal, style="danger"),
        button("Edit", EDIT, proposal),
    ]


def _job_buttons(card: Card, job: Job) -> list[Block]:
    proposal = card.proposal
    if job.open:
        if job.cancel_by:
            return []
        return [button("Cancel", CANCEL, proposal, style="danger", confirm=_sure(job))]
    words = "Resume" if "resume_from" in card.remedy else f"Retry with {wording.assigned(card.remedy)}"
    retry = [button(words, RETRY, proposal, style="primary")] if card.remedy else []
    compare = [button("Compare", COMPARE, proposal)] if job.metrics else []
    return [*retry, button("Rerun with changes", RERUN, proposal), *compare]


def _sure(job: Job) -> Block:
    """The one press that asks back: what was trained until then may be lost."""
    return {
        "title": plain("Cancel this training?"),
        "text": plain(f"{job.name} may write a checkpoint, then it ends. What it cost until then stays spent."),
        "confirm": plain("Cancel it"),
        "deny": plain("Let it run"),
        "style": "danger",
    }
