"""The home page: what waits for me, my jobs and the queue, spend and budget, who may approve what. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bot import wording
from bot.cards import Card
from bot.core.policy import Policy
from bot.slack.blocks import APPROVE, DETAILS, REJECT, button, plain, section
from bot.slack.text import escape, moment

PENDING_SHOWN, JOBS_SHOWN = 15, 15  # 100 blocks are all that a view may have


def view(*, user: str, pending: Sequence[Card], jobs: Sequence[Card], policy: Policy, spend: str) -> dict[str, Any]:
    """The home page of `user`: `pending` waits for them, `jobs` are the newest of the workspace."""
    mine = [card for card in jobs if card.proposal.requester == user]
    queue = [card for card in jobs if card.job is not None and card.job.open]
    blocks = [_header("Waiting for your decision"), *_pending(pending)]
    blocks += [_header("Your trainings"), *_jobs(mine, "You have asked for nothing yet.")]
    blocks += [_header("Running and queued"), *_jobs(queue, "Nothing runs and nothing is queued.")]
    blocks += [_header("Spend this month"), section(escape(spend))]
    blocks += [_header("Who may approve what"), section(_rights(policy))]
    return {"type": "home", "blocks": blocks}


def _header(text: str) -> dict[str, Any]:
    return {"type": "header", "text": plain(text)}


def _pending(cards: Sequence[Card]) -> list[dict[str, Any]]:
    if not cards:
        return [section("Nothing. You will be told when something does.")]
    blocks: list[dict[str, Any]] = []
    for card in cards[:PENDING_SHOWN]:
        proposal = card.proposal
        expires = moment(proposal.expires_at.timestamp(), f"{proposal.expires_at:%Y-%m-%d %H:%M} UTC")
        blocks.append(
            section(
                f"*Proposal {proposal.number}* · {proposal.offer.spec.recipe} by <@{proposal.requester}> in "
                f"<#{proposal.channel}>\n{escape(wording.parameters(proposal.offer.spec))}\n"
                f"{escape(wording.ceiling(proposal.offer))}; expires {expires}; digest `{proposal.short_digest}`"
            )
        )
        pressed = [
            button("Approve", APPROVE, proposal, style="primary"),
            button("Reject", REJECT, proposal, style="danger"),
            button("Details", DETAILS, proposal),
        ]
        blocks.append({"type": "actions", "block_id": f"home:{proposal.id}", "elements": pressed})
    if len(cards) > PENDING_SHOWN:
        blocks.append(section(f"… and {len(cards) - PENDING_SHOWN} more: `/signalbox inbox` lists all."))
    return blocks


def _jobs(cards: Sequence[Card], nothing: str) -> list[dict[str, Any]]:
    if not cards:
        return [section(nothing)]
    lines = []
    for card in cards[:JOBS_SHOWN]:
        cost = f", {card.actual.amount}" if card.actual else ""
        name = card.job.name if card.job else f"proposal {card.proposal.number}"
        lines.append(f"*{name}* by <@{card.proposal.requester}>: {escape(wording.standing(card))}{cost}")
    if len(cards) > JOBS_SHOWN:
        lines.append(f"… and {len(cards) - JOBS_SHOWN} more: `/signalbox jobs` lists all.")
    return [section("\n".join(lines))]


def _rights(policy: Policy) -> str:
    people = [f"<@{person}>" for person in sorted(policy.approvers)]
    people += [f"<!subteam^{group}>" for group in sorted(policy.approver_groups)]
    rows = [f"Approvers: {', '.join(people) or 'nobody, so nothing can run'}. Never of one's own proposal or edit."]
    for rule in policy.quorum:
        limits = [f"{rule.up_to_gpus} GPUs"] if rule.up_to_gpus is not None else []
        limits += [f"${rule.up_to_dollars}"] if rule.up_to_dollars is not None else []
        what = f"{', '.join(rule.recipes)} " if rule.recipes else ""
        upto = f"up to {' and '.join(limits)}" if limits else "any"
        rows.append(
            f"• {what}{upto}: {'nobody' if rule.approvals == 'never' else wording.counted(rule.approvals, 'approval')}"
        )
    return "\n".join([*rows, "• beyond these: nobody"])
