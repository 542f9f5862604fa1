"""A proposal's card as Block Kit, whole from a `Card` value. Pure.

The same message goes from pending over running to done; buttons are there only while they can be pressed. What a button
carries is the proposal and the digest on this very card: a later revision makes it stale, and the use case says so.
"""

from __future__ import annotations

from typing import Any

from bot import wording
from bot.cards import Card
from bot.core.job import JobPhase
from bot.core.proposal import Proposal, ProposalState
from bot.slack.text import escape, moment, shortened
from tools.progress import Progress

APPROVE, REJECT, EDIT, DETAILS = "sb_approve", "sb_reject", "sb_edit", "sb_details"
CANCEL, RERUN, COMPARE = "sb_cancel", "sb_rerun", "sb_compare"
EVENT_TYPE = "signalbox_card"

SECTION_TEXT = 3000  # characters of a section
FIELD_TEXT = 2000
POINTS = 20  # of a chart's series
PROMPT_SHOWN = 600  # characters of the requester's words
CHART = "data_visualization"

Block = dict[str, Any]


def card(of: Card) -> dict[str, Any]:
    """The whole message: `text` for notifications and plain clients, `blocks`, `metadata`."""
    proposal = of.proposal
    headline = f"{_title(of)}: {wording.standing(of)}"
    blocks = [_header(of), _facts(of), *_edit_note(of), _money(of), *_state(of), *_charts(of), _context(of)]
    buttons = _buttons(of)
    if buttons:
        blocks.append({"type": "actions", "block_id": f"actions:{proposal.id}", "elements": buttons})
    return {
        "text": escape(shortened(headline, 1000)),
        "blocks": blocks,
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
    return f"{proposal.id}:{proposal.digest}"


def parse_value(text: str) -> tuple[str, str]:
    """Proposal id and digest of a button's value; nonsense gives ids that do not exist."""
    proposal_id, _, digest = text.partition(":")
    return proposal_id[:64], digest[:64]


def button(text: str, action: str, proposal: Proposal, **style: Any) -> Block:
    return {"type": "button", "action_id": action, "text": plain(text), "value": value(proposal), **style}


def plain(text: str) -> Block:
    return {"type": "plain_text", "text": text}


def section(text: str, **more: Any) -> Block:
    return {"type": "section", "text": {"type": "mrkdwn", "text": shortened_lines(text, SECTION_TEXT)}, **more}


def shortened_lines(text: str, limit: int) -> str:
    """Several lines within a limit, saying what is left out."""
    if len(text) <= limit:
        return text
    note = f"\n… ({len(text):,} characters in all)"
    return text[: limit - len(note)] + note


def _title(of: Card) -> str:
    return of.job.name if of.job else f"Proposal {of.proposal.number}"


def _header(of: Card) -> Block:
    proposal = of.proposal
    asked = f"“{escape(shortened(proposal.prompt, PROMPT_SHOWN))}”"
    head = f"*{_title(of)}* · {proposal.offer.spec.recipe} · *{_phase(of)}*"
    return section(f"{head}\n<@{proposal.requester}>: {asked}", block_id=mark(proposal))


def _phase(of: Card) -> str:
    return (of.job.phase if of.job else of.proposal.state).value


def _facts(of: Card) -> Block:
    offer = of.proposal.offer
    engine = str(offer.manifest.get("engine", "?"))
    where = str(offer.manifest.get("namespace", "")) or engine
    rows = [
        f"*Runs* {escape(wording.parameters(offer.spec))}",
        f"*On* {escape(wording.resources(offer.resources))}, {escape(where)} engine",
    ]
    image = offer.manifest.get("image")
    if image:
        rows.append(f"*Image* `{escape(str(image))}`")
    return section("\n".join(rows))


def _edit_note(of: Card) -> list[Block]:
    if of.before is None:
        return []
    changed = escape(wording.changes(of.before, of.proposal.offer))
    return [section(f"*Revision {of.proposal.revision}* by <@{of.proposal.author}>: {changed}")]


def _money(of: Card) -> Block:
    offer = of.proposal.offer
    rows = [
        f"*Estimate* {wording.estimate(offer.estimate)}",
        f"*Ceiling* {wording.ceiling(offer)}",
        f"*Budget* {wording.budget(of.budget)}",
    ]
    if of.actual is not None:
        rows[0] = f"*Cost* {wording.against(offer, of.actual)}"
    return section(escape("\n".join(rows)))


def _state(of: Card) -> list[Block]:
    proposal, job = of.proposal, of.job
    if job is None and proposal.state is ProposalState.PENDING:
        able = ", ".join(f"<@{person}>" for person in of.able) or "nobody"
        given = ", ".join(f"<@{vote.voter}>" for vote in proposal.votes) or "none yet"
        needed = "the policy lets nobody approve this" if of.needed is None else f"{of.needed} needed, {given}"
        expires = moment(proposal.expires_at.timestamp(), f"{proposal.expires_at:%Y-%m-%d %H:%M} UTC")
        return [section(f"*Approvals* {needed}; may approve: {able}\n*Expires* {expires}")]
    rows = [f"*State* {escape(wording.standing(of))}"]
    voters = ", ".join(f"<@{vote.voter}>" for vote in proposal.votes)
    if proposal.state is ProposalState.APPROVED:
        rows.append(f"*Approved by* {voters}")
    if job is not None and job.phase is JobPhase.RUNNING and of.progress.steps:
        rows.append(f"`{_bar(of.progress)}`")
    if job is not None and job.metrics:
        rows.append(f"*Metrics* {escape(wording.metrics(job.metrics, proposal.offer.spec))}")
    return [section("\n".join(rows))]


def _bar(progress: Progress, width: int = 20) -> str:
    full = round(progress.fraction * width)
    return "█" * full + "░" * (width - full)


def _charts(of: Card) -> list[Block]:
    """The learning curve as a native chart once there are two epochs and the job is over."""
    epochs = of.progress.epoch_metrics
    if of.job is None or of.job.open or len(epochs) < 2:
        return []
    step = -(-len(epochs) // POINTS)
    shown = [row for index, row in enumerate(epochs) if index % step == 0 or row is epochs[-1]][-POINTS:]
    series = []
    for name in ("train_loss", "val_loss"):
        points = [{"label": f"{row['epoch']:.0f}", "value": round(row[name], 6)} for row in shown if name in row]
        if len(points) == len(shown):
            series.append({"name": name.replace("_", " "), "data": points})
    if not series:
        return []
    chart = {
        "type": "line",
        "series": series,
        "axis_config": {"categories": [f"{row['epoch']:.0f}" for row in shown], "x_label": "epoch", "y_label": "loss"},
    }
    return [{"type": CHART, "title": "Loss by epoch", "chart": chart}]


def _context(of: Card) -> Block:
    proposal = of.proposal
    parts = [f"digest `{proposal.short_digest}`"]
    if proposal.revision > 1:
        parts.append(f"revision {proposal.revision}")
    if of.job is not None and of.job.run_id:
        parts.append(f"MLflow run `{escape(of.job.run_id)}`")
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": " · ".join(parts)}]}


def _buttons(of: Card) -> list[Block]:
    proposal, job = of.proposal, of.job
    details = button("Details", DETAILS, proposal)
    again = button("Rerun with changes", RERUN, proposal)
    if job is None:
        if proposal.state is not ProposalState.PENDING or of.now >= proposal.expires_at:
            return [again, details]
        return [
            button("Approve", APPROVE, proposal, style="primary"),
            button("Reject", REJECT, proposal, style="danger"),
            button("Edit", EDIT, proposal),
            details,
        ]
    if job.open:
        if job.cancel_by:
            return [details]
        sure = {
            "title": plain("Cancel this training?"),
            "text": plain("It may write a checkpoint; what it cost until then stays spent."),
            "confirm": plain("Cancel it"),
            "deny": plain("Let it run"),
        }
        return [button("Cancel", CANCEL, proposal, style="danger", confirm=sure), details]
    return [again, button("Compare", COMPARE, proposal), details] if job.metrics else [again, details]
