"""The daily digest as a message: what ended, spend, month and forecast, waste, what waits. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

from bot import wording
from bot.core.job import TERMINAL
from bot.digests import Digest, Outcome, coverage, waste
from bot.slack import limits
from bot.slack.charts import bars, cell, number, table, who
from bot.slack.elements import Block, context, header, pairs, person, section
from bot.slack.text import escape, fitting_lines, local, mention
from tools.cost import Amount, dollars

ROWS = 50  # of the table; ten are shown at once
WAITING_SHOWN = 15
NAMES_SHOWN = 8  # people, recipes or devices in one line


def message(digest: Digest, zone: ZoneInfo) -> dict[str, Any]:
    """The whole message of a digest; `text` says the same without blocks."""
    title = f"Digest of {digest.of:%A, %d %B %Y}"
    tally = _tally(digest)
    waiting = _waiting(digest)
    parts = [f"*{escape(title)}*", tally, *_spend(digest), *_month(digest), *waiting]
    blocks = [
        header(title),
        section(tally),
        *_outcomes(digest),
        pairs([("Spend of the day", "\n".join(_spend(digest))), ("Month", "\n".join(_month(digest)))]),
        *_charts(digest),
        section("\n".join(waiting)),
        context(f"One day from midnight to midnight, {escape(zone.key)}"),
    ]
    return {"text": fitting_lines(parts, limits.MESSAGE_TEXT_ADVISED), "blocks": blocks}


def _tally(digest: Digest) -> str:
    counts = {phase: sum(one.job.phase is phase for one in digest.outcomes) for phase in sorted(TERMINAL)}
    ended = ", ".join(f"{count} {phase.value}" for phase, count in counts.items() if count) or "none ended"
    return f"*Jobs* {ended}; {digest.proposed} proposed; {len(digest.running)} running or queued now"


def _outcomes(digest: Digest) -> list[Block]:
    if not digest.outcomes:
        return []
    head = ("job", "asked by", "outcome", "estimate P50", "actual", "time")
    caption = f"Jobs that ended on {digest.of:%d %B %Y}"
    blocks = [table(caption, head, [_row(one) for one in digest.outcomes[:ROWS]])]
    if len(digest.outcomes) > ROWS:
        blocks.append(context(f"… and {len(digest.outcomes) - ROWS} more jobs that ended"))
    return blocks


def _row(one: Outcome) -> list[Block]:
    spent = one.actual
    return [
        cell(one.job.name),
        who(person(one.job.requester)),
        cell(one.job.phase.value),
        _money(one.estimate.p50) if one.estimate.p50 else cell(f"at most {one.estimate.ceiling}"),
        _money(spent.amount),
        number(float(spent.seconds), wording.duration(spent.seconds)),
    ]


def _money(amount: Amount) -> Block:
    return cell(str(amount)) if amount.unpriced else number(float(amount.dollars), str(amount))


def _spend(digest: Digest) -> list[str]:
    """The day's dollars: whole, by person, recipe and device, and what brought nothing."""
    day = digest.spend
    rows = [escape(str(day.total))]
    people = [f"{mention(name)} {escape(str(amount))}" for name, amount in day.by_requester]
    named = (("by person", people), ("by recipe", _named(day.by_recipe)), ("by device", _named(day.by_device)))
    rows += [f"{title}: {_some(found)}" for title, found in named if found]
    return rows + [line for line in (waste(digest.outcomes), coverage(digest.outcomes)) if line]


def _named(rows: Sequence[tuple[str, Amount]]) -> list[str]:
    return [f"{escape(name)} {escape(str(amount))}" for name, amount in rows]


def _some(found: Sequence[str]) -> str:
    more = len(found) - NAMES_SHOWN
    return ", ".join(found[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _month(digest: Digest) -> list[str]:
    """To date, at this pace, against the budget."""
    rows = [f"{escape(digest.month.period.name)} so far: {escape(str(digest.month.total))}"]
    limit = digest.budget.limit
    over = f", {dollars(digest.forecast - limit)} above the budget" if limit and digest.forecast > limit else ""
    rows.append(f"at this pace by its end: {dollars(digest.forecast)}{over}")
    rows.append(f"budget: {escape(wording.budget(digest.budget))}")
    return rows


def _charts(digest: Digest) -> list[Block]:
    """Spend by recipe, and estimate against actual where there was an estimate."""
    charts = []
    spent = [(name, float(amount.dollars)) for name, amount in digest.spend.by_recipe if amount.dollars]
    if spent:
        names, values = [name for name, _ in spent], [value for _, value in spent]
        charts.append(bars("Spend by recipe", names, {"dollars": values}, "recipe", "dollars"))
    known = [(one, one.estimate.p50) for one in digest.outcomes if one.estimate.p50 and not one.estimate.p50.unpriced]
    if known:
        names = [f"{one.recipe} {one.job.number}" for one, _ in known]
        series = {
            "estimate P50": [float(p50.dollars) for _, p50 in known],
            "actual": [float(one.actual.amount.dollars) for one, _ in known],
        }
        charts.append(bars("Estimate against actual", names, series, "job", "dollars"))
    return charts


def _waiting(digest: Digest) -> list[str]:
    if not digest.waiting:
        return ["*Waits for approval* nothing"]
    rows = [f"*Waits for approval* {wording.counted(len(digest.waiting), 'proposal')}"]
    for proposal in digest.waiting[:WAITING_SHOWN]:
        rows.append(
            f"• proposal {proposal.number}, {escape(proposal.offer.spec.recipe)} by {mention(proposal.requester)}, "
            f"up to {escape(str(proposal.offer.estimate.ceiling))}, expires {local(proposal.expires_at)}"
        )
    if len(digest.waiting) > WAITING_SHOWN:
        rows.append(f"… and {len(digest.waiting) - WAITING_SHOWN} more")
    return rows
