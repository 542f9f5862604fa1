"""The ledger for people's own books: one line for every interval in which an attempt held its resources. Pure.

Intervals are clipped to the window, so consecutive exports add up. Money is decimal text in dollars, times are ISO 8601
in UTC. What had no rate is named under `unpriced` and is in no sum.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bot.core.periods import Period
from bot.store.records import instant
from bot.store.store import Charge
from tools.cost import clip

COLUMNS = (
    *("team", "channel", "proposal", "job", "phase", "requester", "recipe", "attempt", "started_at", "ended_at"),
    *("seconds", "cpu_cores", "gpus", "gpu_product", "spot", "memory_gib", "rate_version", "dollars_per_hour"),
    *("dollars", "unpriced", "estimated", "final"),
)


def lines(charges: Sequence[Charge], window: Period, now: datetime) -> list[dict[str, Any]]:
    """The charges as the window holds them, with what still runs up to `now`."""
    return [_line(charge, window, now) for charge in charges]


def _line(charge: Charge, window: Period, now: datetime) -> dict[str, Any]:
    interval = charge.interval
    begun, ended = max(interval.started_at, window.start), min(interval.ended_at or now, window.end)
    resources = interval.resources.document()
    return {
        "team": charge.team,
        "channel": charge.channel,
        "proposal": charge.number,
        "job": charge.job,
        "phase": charge.phase.value,
        "requester": charge.requester,
        "recipe": charge.recipe,
        "attempt": interval.attempt,
        "started_at": instant(begun),
        "ended_at": instant(ended),
        "seconds": f"{max(0.0, (ended - begun).total_seconds()):.6f}",
        **{name: resources[name] for name in ("cpu_cores", "gpus", "gpu_product", "memory_gib")},
        "spot": interval.resources.spot,
        "rate_version": interval.rate_version,
        "dollars_per_hour": str(interval.hourly.dollars),
        "dollars": str(clip(interval, window.start, window.end, now).dollars),
        "unpriced": list(interval.hourly.unpriced),
        "estimated": interval.estimated,
        "final": interval.ended_at is not None,
    }


def as_csv(found: Sequence[dict[str, Any]]) -> str:
    """With a head line; a cell that a spreadsheet would take for a formula is quoted by an apostrophe."""
    written = io.StringIO()
    table = csv.DictWriter(written, COLUMNS, lineterminator="\n")
    table.writeheader()
    for line in found:
        cells = line | {"unpriced": "; ".join(line["unpriced"])}
        table.writerow({name: _cell(value) for name, value in cells.items()})
    return written.getvalue()


def as_json(found: Sequence[dict[str, Any]]) -> str:
    return json.dumps(list(found), indent=2) + "\n"


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
