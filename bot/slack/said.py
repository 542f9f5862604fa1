"""What a card says in Slack's markup: `bot.wording`'s phrases with people as mentions, times as local times. Pure.

Everything here is mrkdwn with escaped values. Somebody's own words (prompt, reason, trouble) are not in it: they stand
in quotations of their own (`bot.slack.elements.quote`).
"""

from __future__ import annotations

from collections.abc import Sequence

from bot import wording
from bot.cards import Card
from bot.core.job import Job, JobPhase
from bot.core.proposal import Offer, ProposalState, Verdict
from bot.slack.text import code, escape, local, mention
from tools.progress import Progress

BAR = 20  # characters
COMMAND_SHOWN = 400
PEOPLE_SHOWN = 20


def title(card: Card) -> str:
    """`Proposal 7 · digits`, or the job's name. Plain text."""
    return card.job.name if card.job else f"Proposal {card.proposal.number} · {card.proposal.offer.spec.recipe}"


def next_after_failure(card: Card) -> str:
    helps = "*Retry* proposes it again with what may help. " if card.remedy else ""
    if "resume_from" in card.remedy:
        helps = "*Resume* proposes to go on from its checkpoint. "
    return f"{helps}*Rerun with changes* proposes it again as you like; the end of its log is in this thread."


def state(card: Card) -> str:
    """One word or two for the headline. Plain text."""
    if card.job is not None:
        return "cancelling" if card.job.open and card.job.cancel_by else card.job.phase.value
    if card.proposal.state is ProposalState.PENDING:
        return "time is over" if card.now >= card.proposal.expires_at else "waits for approval"
    return card.proposal.state.value


def headline(card: Card) -> str:
    """The card in one plain sentence, for notifications; ids of people are still ids."""
    found = f", {wording.metrics(card.job.metrics, card.proposal.offer.spec)}" if card.job and card.job.metrics else ""
    return f"{title(card)}: {wording.standing(card)}{found}"


def program(offer: Offer) -> list[str]:
    """What runs, with every parameter, and where."""
    manifest = offer.manifest
    where = f"{escape(wording.resources(offer.resources))}, {escape(wording.engine(manifest))}"
    if manifest.get("namespace"):
        where += f", namespace {code(str(manifest['namespace']))}"
    rows = [f"*Runs* {escape(wording.parameters(offer.spec))}", f"*On* {where}"]
    if manifest.get("image"):
        rows.append(f"*Image* {code(str(manifest['image']))}")
    command = manifest.get("command")
    if isinstance(command, list):
        rows.append(f"*Command* {_command([str(part) for part in command])}")
    if manifest.get("note"):
        rows.append(f"*Note* {escape(str(manifest['note']))}")
    return rows


def _command(parts: Sequence[str]) -> str:
    """The command, in the middle of which nothing is left out; a long one is only in the details, and says so."""
    whole = " ".join(parts)
    if len(whole) <= COMMAND_SHOWN:
        return code(whole)
    return f"{code(whole[:COMMAND_SHOWN])} and {len(whole) - COMMAND_SHOWN:,} more characters: see Details"


def revision(card: Card) -> str:
    """Who edited, and what is different now."""
    assert card.before is not None
    changed = escape(wording.changes(card.before, card.proposal.offer))
    return f"*Revision {card.proposal.revision}* by {mention(card.proposal.author)}: {changed}"


def money(card: Card) -> list[tuple[str, str]]:
    """Estimate against actual once there is one, else the estimate; ceiling; budget; until when people may decide."""
    offer = card.proposal.offer
    rows = [("Ceiling", _ceiling(offer)), ("Budget", _budget(card))]
    if card.actual is not None:
        rows[0] = ("Cost", escape(wording.against(offer, card.actual)))
    else:
        rows.insert(0, ("Estimate", escape(wording.estimate(offer.estimate))))
    if card.job is None and card.proposal.state is ProposalState.PENDING:
        left = wording.until(card.proposal.expires_at, card.now)
        rows.append(("Expires", f"{local(card.proposal.expires_at)} ({left})"))
    return rows


def _ceiling(offer: Offer) -> str:
    most = offer.estimate.ceiling
    if not most.unpriced:
        return escape(wording.ceiling(offer))
    after = wording.duration(offer.estimate.ceiling_seconds)
    missing = escape(", ".join(most.unpriced))
    return f"not known: rates {escape(offer.rate_version)} have none for {missing}; stopped after {after}"


def _budget(card: Card) -> str:
    left, ceiling = card.budget.left, card.proposal.offer.estimate.ceiling
    short = card.job is None and card.proposal.state is ProposalState.PENDING and left is not None
    note = "; not enough for this ceiling" if short and left is not None and ceiling.dollars > left else ""
    return escape(wording.budget(card.budget)) + note


def standing(card: Card) -> list[str]:
    """Lines on who decided and how it goes."""
    proposal = card.proposal
    if card.job is not None:
        voters = people([vote.voter for vote in proposal.votes_for(Verdict.APPROVE)]) or "nobody"
        return [f"*Approved by* {voters}", *_job_standing(card, card.job)]
    match proposal.state:
        case ProposalState.PENDING:
            return approvals(card)
        case ProposalState.EXPIRED:
            return ["*Expired* Nobody decided in time. Ask for the training again to get a new card."]
        case _:
            return [f"*{proposal.state.value.capitalize()} by* {mention(proposal.decided_by or 'nobody')}"]


def approvals(card: Card) -> list[str]:
    """Votes so far, votes still needed, and whose they can be."""
    if card.needed is None:
        return ["*Approvals* The policy lets nobody approve this; edit it to ask for less."]
    given = [vote.voter for vote in card.proposal.votes_for(Verdict.APPROVE)]
    counted = [voter for voter in given if voter in card.able]
    void = [voter for voter in given if voter not in card.able]
    have = f" ({people(counted)})" if counted else ""
    missing = max(0, card.needed - len(counted))
    rows = [f"*Approvals* {len(counted)} of {card.needed}{have}; {missing} still needed"]
    rows.append(f"*May approve* {people([one for one in card.able if one not in counted]) or 'nobody'}")
    if void:
        rows.append(f"*Not counted* {people(void)}: no longer an approver")
    return rows


def _job_standing(card: Card, job: Job) -> list[str]:
    match job.phase:
        case JobPhase.QUEUED:
            rows = ["*Queued* " + (f"{wording.counted(card.ahead, 'job')} ahead of it" if card.ahead else "it is next")]
        case JobPhase.SUBMITTED:
            rows = ["*Starting* it is being handed to the engine"]
        case JobPhase.RUNNING:
            rows = [f"*Progress* `{bar(card.progress)}` {escape(wording.progress(card.progress))}"]
        case JobPhase.CANCELLED:
            return [
                f"*Cancelled by* {mention(job.cancel_by)}" if job.cancel_by else f"*Cancelled* {escape(job.reason)}"
            ]
        case _:
            return (
                [f"*Metrics* {escape(wording.metrics(job.metrics, card.proposal.offer.spec))}"] if job.metrics else []
            )
    if job.cancel_by:
        rows.append(f"*Being cancelled by* {mention(job.cancel_by)}; it may write a checkpoint, then it ends")
    return rows


def bar(progress: Progress) -> str:
    """`█████████░░░░░░░░░░░`"""
    full = round(progress.fraction * BAR)
    return "█" * full + "░" * (BAR - full)


def people(users: Sequence[str]) -> str:
    """Mentions; a long list says how many more there are."""
    shown = ", ".join(mention(user) for user in users[:PEOPLE_SHOWN])
    more = len(users) - PEOPLE_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
