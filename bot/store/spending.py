"""What a month has cost and what its open jobs may still cost, in one look: what budgets are counted from.

SQL adds up seconds, which are exact; dollars are computed from them in Decimal. Rows at the same hourly amount, and
jobs with the same ceiling, come back as one, so a look costs the same in a busy month as in a quiet one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from bot.core import job as jobs
from bot.core.job import JobPhase
from bot.core.periods import Period
from bot.store import schema
from tools.cost import HOUR, Amount

MICROSECONDS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Spending:
    """By channel: what the month's intervals cost up to now, and what the open jobs may cost beyond that."""

    spent: Mapping[str, Amount]
    committed: Mapping[str, Decimal]

    def of(self, channel: str | None) -> tuple[Amount, Decimal]:
        """Spent and committed in a channel, or in the whole workspace."""
        spent, committed = Amount(), Decimal(0)
        for place, amount in self.spent.items():
            if channel in (None, place):
                spent = spent + amount
        for place, dollars in self.committed.items():
            if channel in (None, place):
                committed += dollars
        return spent, committed


def look(connection: sa.Connection, team: str, month: Period, now: datetime, apart_from: str | None) -> Spending:
    """`apart_from` leaves out what one proposal's own job has committed."""
    spent: dict[str, Amount] = {}
    committed: dict[str, Decimal] = {}
    running: dict[str, tuple[str, Decimal]] = {}  # job → its channel, and what is left of its ceiling
    key = {"team": team, "start": month.start, "end": month.end, "now": now, "apart_from": apart_from or ""}
    for row in connection.execute(_LOOK[connection.dialect.name == "sqlite"], key):
        if row.part == "waiting":
            committed[row.channel] = committed.get(row.channel, Decimal(0)) + _ceiling(row.estimate) * row.many
            continue
        cost = Amount.from_document(json.loads(row.hourly)).times(Decimal(int(row.many)) / MICROSECONDS / HOUR)
        if row.part == "spent":
            spent[row.channel] = spent.get(row.channel, Amount()) + cost
        else:
            channel, left = running.get(row.job) or (row.channel, _ceiling(row.estimate))
            running[row.job] = (channel, left - cost.dollars)
    for channel, left in running.values():
        committed[channel] = committed.get(channel, Decimal(0)) + max(Decimal(0), left)
    return Spending(spent=spent, committed=committed)


def _ceiling(estimate: str) -> Decimal:
    return Amount.from_document(json.loads(estimate)["ceiling"]).dollars


def _microseconds(moment: sa.ColumnElement[Any], sqlite: bool) -> sa.ColumnElement[Any]:
    """Since 1970, as a whole number: SQLite keeps moments as text, with six places after the second."""
    if not sqlite:
        return sa.func.extract("epoch", moment) * MICROSECONDS
    whole = sa.cast(sa.func.strftime("%s", moment), sa.BigInteger) * MICROSECONDS
    return whole + sa.cast(sa.func.substr(moment, 21, 6), sa.BigInteger)


def _look(sqlite: bool) -> sa.CompoundSelect[Any]:
    """Three groups of rows (part, channel, job, estimate, hourly, many) in one statement."""
    held, job, proposal, revision = schema.pod_interval.c, schema.job.c, schema.proposal.c, schema.revision.c
    start, end, now = (sa.bindparam(name, type_=schema.Instant()) for name in ("start", "end", "now"))
    latest, earliest = (sa.func.max, sa.func.min) if sqlite else (sa.func.greatest, sa.func.least)
    # Written so that no index on the team is taken: it would lead through every proposal that ever was.
    ours = proposal.team.concat("") == sa.bindparam("team")

    def microseconds(first: sa.ColumnElement[Any], last: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        return sa.func.sum(_microseconds(last, sqlite) - _microseconds(first, sqlite))

    def part(name: str, job: Any = None, estimate: Any = None, hourly: Any = None, many: Any = None) -> sa.Select[Any]:
        columns = {"job": job, "estimate": estimate, "hourly": hourly, "many": many}
        given = [sa.literal_column(f"'{name}'").label("part"), proposal.channel]
        given += [(sa.null() if column is None else column).label(label) for label, column in columns.items()]
        by = [column for column in (proposal.channel, job, estimate, hourly) if column is not None]
        return sa.select(*given).where(ours).group_by(*by)

    spent = (
        part(
            "spent",
            hourly=held.hourly,
            many=microseconds(latest(held.started_at, start), earliest(sa.func.coalesce(held.ended_at, now), end)),
        )
        .join_from(schema.pod_interval, schema.proposal, proposal.id == held.proposal_id)
        .where(held.started_at < sa.func.min(end, now) if sqlite else held.started_at < sa.func.least(end, now))
        .where(held.ended_at.is_(None) | (held.ended_at > start))
    )
    approved = (revision.proposal_id == job.proposal_id) & (revision.revision == job.revision)
    others = job.proposal_id != sa.bindparam("apart_from")
    waiting = (
        part("waiting", estimate=revision.estimate, many=sa.func.count())
        .join_from(schema.job, schema.proposal, proposal.id == job.proposal_id)
        .join(schema.revision, approved)
        .where(sa.or_(*(job.phase == phase.value for phase in jobs.WAITING)), others)
    )
    running = (
        part(
            "running",
            job=job.proposal_id,
            estimate=revision.estimate,
            hourly=held.hourly,
            many=microseconds(held.started_at, latest(sa.func.coalesce(held.ended_at, now), held.started_at)),
        )
        .join_from(schema.job, schema.proposal, proposal.id == job.proposal_id)
        .join(schema.revision, approved)
        .join(schema.pod_interval, held.proposal_id == job.proposal_id)
        .where(job.phase == JobPhase.RUNNING.value, others)
    )
    return sa.union_all(spent, waiting, running)


_LOOK = {sqlite: _look(sqlite) for sqlite in (True, False)}
