"""The daily digest as a message: headline, what ended, spend as a chart, and the text behind it all. Pure."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from bot import wording
from bot.accounts import Spend
from bot.digests import Digest, lines
from bot.slack.blocks import plain, section
from bot.slack.text import escape, shortened

ROWS = 20
BARS = 12
LABEL = 20  # characters of a chart's label


def message(digest: Digest, zone: ZoneInfo) -> dict[str, Any]:
    """The whole message of a digest; the text says the same without blocks."""
    text = lines(digest, zone)
    title, tally, *rest = [line for line in text if line]
    blocks: list[dict[str, Any]] = [{"type": "header", "text": plain(shortened(title, 150))}, section(escape(tally))]
    if digest.outcomes:
        blocks.append(section(_outcomes(digest)))
    blocks += _chart(digest.spend)
    named = {one.job.name for one in digest.outcomes}
    told = [line for line in rest if not line.startswith(("job ", *named))]
    blocks.append(section(escape("\n".join(told))))
    return {"text": escape("\n".join(text))[:3900], "blocks": blocks}


def _outcomes(digest: Digest) -> str:
    rows = []
    for one in digest.outcomes[:ROWS]:
        expected = f"P50 {one.estimate.p50}" if one.estimate.p50 else f"at most {one.estimate.ceiling}"
        cost = f"{one.actual.amount} in {wording.duration(one.actual.seconds)} ({expected})"
        rows.append(f"• *{one.job.name}* by <@{one.job.requester}> {one.job.phase}: {escape(cost)}")
    if len(digest.outcomes) > ROWS:
        rows.append(f"… and {len(digest.outcomes) - ROWS} more")
    return "\n".join(rows)


def _chart(spend: Spend) -> list[dict[str, Any]]:
    rows = [(name, amount) for name, amount in spend.by_recipe if amount.dollars][:BARS]
    if not rows:
        return []
    points = [{"label": name[:LABEL], "value": round(float(amount.dollars), 6)} for name, amount in rows]
    axis = {"categories": [point["label"] for point in points], "x_label": "recipe", "y_label": "dollars"}
    chart = {"type": "bar", "series": [{"name": "spend", "data": points}], "axis_config": axis}
    return [{"type": "data_visualization", "title": f"Spend, {spend.period.name}", "chart": chart}]
