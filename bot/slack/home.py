"""The home page: what waits for me, my trainings, the queue, spend and budget, who may approve what. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bot import wording
from bot.cards import Card
from bot.core.policy import NEVER, Policy, QuorumRule
from bot.slack import said
from bot.slack.blocks import APPROVE, DETAILS, REJECT, button
from bot.slack.elements import Block, context, header, quote, section, span
from bot.slack.text import channel, code, escape, local, mention, named
from tools.cost import dollars

PENDING_SHOWN = 15  # three blocks each, and a view has room for 100
JOBS_SHOWN = 15
PROMPT_SHOWN = 200


def view(*, user: str, pending: Sequence[Card], jobs: Sequence[Card], policy: Policy, spend: str) -> dict[str, Any]:
    """The home page of `user`.

    `pending` waits for them, `jobs` are the newest of the workspace, `spend` is plain lines with people's ids.
    """
    mine = [card for card in jobs if card.proposal.requester == user]
    queue = [card for card in jobs if card.job is not None and card.job.open]
    people = {card.proposal.requester for card in (*pending, *jobs)} | {user}
    blocks = [header("Waiting for your decision"), *_pending(pending)]
    blocks += [header("Your trainings"), _jobs(mine, "You have asked for nothing yet. Write to me: train digits")]
    blocks += [header("Running and queued"), _jobs(queue, "Nothing runs and nothing is queued.")]
    blocks += [header("Spend this month"), section(named(spend, people))]
    blocks += [header("Who may approve what"), section("\n".join(_rights(policy)))]
    return {"type": "home", "blocks": blocks}


def _pending(cards: Sequence[Card]) -> list[Block]:
    if not cards:
        return [section("Nothing. You are told when something does.")]
    blocks = [block for card in cards[:PENDING_SHOWN] for block in _decidable(card)]
    if len(cards) > PENDING_SHOWN:
        blocks.append(context(f"… and {len(cards) - PENDING_SHOWN} more: `/signalbox inbox` lists all"))
    return blocks


def _decidable(card: Card) -> list[Block]:
    """A pending proposal, short, with its buttons: they are a card's own."""
    proposal = card.proposal
    rows = [
        f"*{escape(said.title(card))}* by {mention(proposal.requester)} in {channel(proposal.channel)}",
        f"revision {proposal.revision} · digest {code(proposal.short_digest)}",
        *said.program(proposal.offer)[:2],
        *[f"*{name}* {line}" for name, line in said.money(card)],
        *said.approvals(card),
    ]
    buttons = [
        button("Approve", APPROVE, proposal, style="primary"),
        button("Reject", REJECT, proposal, style="danger"),
        button("Details", DETAILS, proposal),
    ]
    return [
        section("\n".join(rows)),
        quote([span("Asked for as:")], proposal.prompt, PROMPT_SHOWN),
        {"type": "actions", "block_id": f"home:{proposal.id}", "elements": buttons},
    ]


def _jobs(cards: Sequence[Card], nothing: str) -> Block:
    if not cards:
        return section(nothing)
    lines = [_line(card) for card in cards[:JOBS_SHOWN]]
    if len(cards) > JOBS_SHOWN:
        lines.append(f"… and {len(cards) - JOBS_SHOWN} more: `/signalbox jobs` lists all")
    return section("\n".join(lines))


def _line(card: Card) -> str:
    """`digits-7-ab12cd by @rae in #ml: running, 45 %, 3.1 s left · $0.01`"""
    job = card.job
    how = escape(said.state(card))
    if job is not None and job.open and card.progress.steps:
        how += f", {escape(wording.progress(card.progress))}"
    elif job is not None and job.metrics:
        how += f", {escape(wording.metrics(job.metrics, card.proposal.offer.spec).split(', ')[0])}"
    cost = f" · {escape(str(card.actual.amount))}" if card.actual else ""
    when = f" · {local(job.finished_at)}" if job is not None and job.finished_at else ""
    who = f"{mention(card.proposal.requester)} in {channel(card.proposal.channel)}"
    return f"*{escape(said.title(card))}* by {who}: {how}{cost}{when}"


def _rights(policy: Policy) -> list[str]:
    approvers = sorted(policy.approvers)
    people = said.people(approvers)
    groups = ", ".join(f"<!subteam^{group}>" for group in sorted(policy.approver_groups) if group.isalnum())
    who = ", ".join(part for part in (people, groups) if part) or "nobody, so nothing can be approved"
    rows = [f"*Approvers* {who}. Nobody approves their own proposal or edit."]
    rows += [f"• {_rule(rule)}" for rule in policy.quorum]
    rows.append("• anything else: nobody can approve it")
    if policy.budget_per_month is not None:
        rows.append(f"*Budget* {dollars(policy.budget_per_month)} a month")
    return rows


def _rule(rule: QuorumRule) -> str:
    ends = [f"up to {dollars(rule.up_to_dollars)}"] if rule.up_to_dollars is not None else []
    if rule.up_to_gpus is not None:
        ends.append(f"up to {wording.counted(rule.up_to_gpus, 'GPU')}" if rule.up_to_gpus else "without a GPU")
    what = escape(", ".join(rule.recipes)) if rule.recipes is not None else "any recipe"
    upto = f" {', '.join(ends)}" if ends else ""
    need = "nobody can approve it" if rule.approvals == NEVER else wording.counted(int(rule.approvals), "approval")
    return f"{what}{upto}: {need}"
