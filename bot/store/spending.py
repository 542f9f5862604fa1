"""What a month has cost and what its open jobs may still cost, in one look: what budgets are counted from.

SQL adds up seconds, which are exact; dollars are computed from them in Decimal. Rows at the same hourly amount, and
jobs with the same ceiling, come back as one, so a look costs the same in a busy month as in a quiet one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from bot.core import job as jobs
from bot.core.job import JobPhase
from bot.core.periods import Period
from bot.store import records, schema
from tools.cost import HOUR, Amount, Interval, actual

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
    span = {"team": team, "start": month.start, "end": month.end, "now": now}
    for row in connection.execute(_SPENT[connection.dialect.name == "sqlite"], span):
        hours = Decimal(int(row.held)) / MICROSECONDS / HOUR
        cost = Amount.from_document(json.loads(row.hourly)).times(hours)
        spent[row.channel] = spent.get(row.channel, Amount()) + cost
    committed: dict[str, Decimal] = {}
    here = {"team": team, "apart_from": apart_from or ""}
    for row in connection.execute(_WAITING, here):
        committed[row.channel] = committed.get(row.channel, Decimal(0)) + _ceiling(row.estimate) * row.many
    running: dict[tuple[str, str, str], list[Interval]] = {}
    for row in connection.execute(_RUNNING, here):
        running.setdefault((row.proposal_id, row.channel, row.estimate), []).append(records.interval_from(row))
    for (_, channel, estimate), held in running.items():
        rest = max(Decimal(0), _ceiling(estimate) - actual(held, now).amount.dollars)
        committed[channel] = committed.get(channel, Decimal(0)) + rest
    return Spending(spent=spent, committed=committed)


def _ceiling(estimate: str) -> Decimal:
    return Amount.from_document(json.loads(estimate)["ceiling"]).dollars


def _microseconds(moment: sa.ColumnElement[Any], sqlite: bool) -> sa.ColumnElement[Any]:
    """Since 1970, as a whole number: SQLite keeps moments as text, with six places after the second."""
    if not sqlite:
        return sa.func.extract("epoch", moment) * MICROSECONDS
    whole = sa.cast(sa.func.strftime("%s", moment), sa.BigInteger) * MICROSECONDS
    return whole + sa.cast(sa.func.substr(moment, 21, 6), sa.BigInteger)


def _spent(sqlite: bool) -> sa.Select[Any]:
    held, proposal = schema.pod_interval.c, schema.proposal.c
    start, end, now = (sa.bindparam(name, type_=schema.Instant()) for name in ("start", "end", "now"))
    latest, earliest = (sa.func.max, sa.func.min) if sqlite else (sa.func.greatest, sa.func.least)
    begun = latest(held.started_at, start)
    ended = earliest(sa.func.coalesce(held.ended_at, now), end)
    seconds = _microseconds(ended, sqlite) - _microseconds(begun, sqlite)
    return (
        sa.select(proposal.channel, held.hourly, sa.func.sum(seconds).label("held"))
        .join_from(schema.pod_interval, schema.proposal, proposal.id == held.proposal_id)
        .where(proposal.team == sa.bindparam("team"), held.started_at < end, ended > begun)
        .group_by(proposal.channel, held.hourly)
    )


def _jobs(*phases: JobPhase, columns: Iterable[sa.ColumnElement[Any]]) -> sa.Select[Any]:
    job, proposal, revision = schema.job.c, schema.proposal.c, schema.revision.c
    ours = (revision.proposal_id == proposal.id) & (revision.revision == proposal.revision)
    return (
        sa.select(proposal.channel, revision.estimate, *columns)
        .join_from(schema.job, schema.proposal, proposal.id == job.proposal_id)
        .join(schema.revision, ours)
        .where(sa.or_(*(job.phase == phase.value for phase in phases)), proposal.team == sa.bindparam("team"))
        .where(job.proposal_id != sa.bindparam("apart_from"))
    )


_SPENT = {sqlite: _spent(sqlite) for sqlite in (True, False)}
_WAITING = _jobs(*jobs.WAITING, columns=[sa.func.count().label("many")]).group_by(
    schema.proposal.c.channel, schema.revision.c.estimate
)
_RUNNING = _jobs(JobPhase.RUNNING, columns=schema.pod_interval.c).join(
    schema.pod_interval, schema.pod_interval.c.proposal_id == schema.job.c.proposal_id
)
