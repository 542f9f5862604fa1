"""What a month has cost and what its open jobs may still cost, in one look: what budgets are counted from.

SQL adds up seconds, which are exact; dollars are computed from them in Decimal. Rows at the same hourly amount, and
jobs with the same ceiling, come back as one, so a look costs the same in a busy month as in a quiet one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from bot.core import job as jobs
from bot.core.job import JobPhase
from bot.core.periods import Period
from bot.store import records, schema
from tools.cost import HOUR, Amount, Resources

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

    def committing(self, channel: str, dollars: Decimal) -> Spending:
        """The same with one more open job."""
        before = self.committed.get(channel, Decimal(0))
        return replace(self, committed={**self.committed, channel: before + dollars})


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one person's trainings of one recipe in a channel cost on one kind of resources, in a period."""

    channel: str
    requester: str
    recipe: str
    resources: Resources
    amount: Amount


def by_whom(connection: sa.Connection, team: str, period: Period, now: datetime) -> list[Spent]:
    """The spend of a period by person, recipe and resources."""
    key = {"team": team, "start": period.start, "end": period.end, "now": now}
    return [
        Spent(
            channel=row.channel,
            requester=row.requester,
            recipe=row.recipe,
            resources=records.resources_from(row.resources),
            amount=_cost(row.hourly, row.many),
        )
        for row in connection.execute(_BY_WHOM[connection.dialect.name == "sqlite"], key)
    ]


def by_channel(spent: Iterable[Spent]) -> dict[str, Amount]:
    """The same by channel alone, as `Spending` has it."""
    sums: dict[str, Amount] = {}
    for one in spent:
        sums[one.channel] = sums.get(one.channel, Amount()) + one.amount
    return sums


def look(connection: sa.Connection, team: str, month: Period, now: datetime, apart_from: str | None) -> Spending:
    """`apart_from` leaves out what one proposal's own job has committed."""
    key = {"team": team, "start": month.start, "end": month.end, "now": now, "apart_from": apart_from or ""}
    return _added_up(connection.execute(_LOOK[connection.dialect.name == "sqlite"], key))


def committed(connection: sa.Connection, team: str, now: datetime) -> Mapping[str, Decimal]:
    """What the open jobs may still cost, by channel."""
    key = {"team": team, "now": now, "apart_from": ""}
    return _added_up(connection.execute(_OPEN[connection.dialect.name == "sqlite"], key)).committed


def _added_up(rows: Iterable[sa.Row[Any]]) -> Spending:
    spent: dict[str, Amount] = {}
    committed: dict[str, Decimal] = {}
    running: dict[str, tuple[str, Decimal]] = {}  # job → its channel, and what is left of its ceiling
    for row in rows:
        if row.part in jobs.WAITING:
            committed[row.channel] = committed.get(row.channel, Decimal(0)) + Decimal(row.ceiling) * row.many
            continue
        cost = _cost(row.hourly, row.many)
        if row.part == "spent":
            spent[row.channel] = spent.get(row.channel, Amount()) + cost
        else:
            channel, left = running.get(row.job) or (row.channel, Decimal(row.ceiling))
            running[row.job] = (channel, left - cost.dollars)
    for channel, left in running.values():
        committed[channel] = committed.get(channel, Decimal(0)) + max(Decimal(0), left)
    return Spending(spent=spent, committed=committed)


def _cost(hourly: str, microseconds: Any) -> Amount:
    return records.amount_from(hourly).times(Decimal(int(microseconds)) / MICROSECONDS / HOUR)


class _Words:
    """What the two databases say differently."""

    def __init__(self, sqlite: bool) -> None:
        self._sqlite = sqlite
        self.latest = sa.func.max if sqlite else sa.func.greatest
        self.earliest = sa.func.min if sqlite else sa.func.least

    def held(self, first: sa.ColumnElement[Any], last: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """The microseconds between, summed over a group."""
        return sa.func.sum(self._microseconds(last) - self._microseconds(first))

    def _microseconds(self, moment: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Since 1970, as a whole number: SQLite keeps moments as text, with six places after the second."""
        if not self._sqlite:
            return sa.func.extract("epoch", moment) * MICROSECONDS
        second = sa.func.substr(moment, 1, 19)  # strftime would round a fraction up, which is added below
        whole = sa.cast(sa.func.strftime("%s", second), sa.BigInteger) * MICROSECONDS
        return whole + sa.cast(sa.func.substr(moment, 21, 6), sa.BigInteger)


_held, _job, _proposal, _revision = schema.pod_interval.c, schema.job.c, schema.proposal.c, schema.revision.c
_OTHERS = (_job.team == sa.bindparam("team")) & (_job.proposal_id != sa.bindparam("apart_from"))
_OURS = schema.of_team(sa.bindparam("team"))
_START, _END, _NOW = (sa.bindparam(name, type_=schema.Instant()) for name in ("start", "end", "now"))
_UNTIL = sa.func.coalesce(_held.ended_at, _NOW)


def _in_period(words: _Words, *by: sa.Column[Any]) -> sa.Subquery:
    """By job and so: the time that its intervals held their resources inside the period, `many`.

    By job first, since a key that sorts at its first column is far cheaper than one of names and texts.
    """
    held = words.held(words.latest(_held.started_at, _START), words.earliest(_UNTIL, _END))
    return (
        sa.select(_held.proposal_id, *by, held.label("many"))
        .where(_held.started_at < words.earliest(_END, _NOW))
        .where(_held.ended_at.is_(None) | (_held.ended_at > _START))
        .where(words.latest(_held.started_at, _START) < _UNTIL)  # a clock set back earns nothing
        .group_by(_held.proposal_id, *by)
        .subquery("held")
    )


def _of_month(words: _Words) -> sa.Select[Any]:
    none, held = sa.null(), _in_period(words, _held.hourly)
    return (
        sa.select(_part("spent"), _proposal.channel, none.label("job"), none.label("ceiling"), held.c.hourly)
        .add_columns(sa.func.sum(held.c.many).label("many"))
        .join_from(held, schema.proposal, _proposal.id == held.c.proposal_id)
        .where(_OURS)
        .group_by(_proposal.channel, held.c.hourly)
    )


def _of_open_jobs(words: _Words) -> tuple[sa.Select[Any], sa.Select[Any]]:
    """Those that wait, by channel and ceiling, from an index alone; those that run, each with what it has cost."""
    none = sa.null()
    waiting = (
        sa.select(_job.phase.label("part"), _job.channel, none.label("job"), _job.ceiling, none.label("hourly"))
        .add_columns(sa.func.count().label("many"))
        .where(_OTHERS, sa.or_(*(_job.phase == phase.value for phase in jobs.WAITING)))
        .group_by(_job.phase, _job.channel, _job.ceiling)
    )
    running = (
        sa.select(
            *(_part("running"), _job.channel, _job.proposal_id, _job.ceiling, _held.hourly),
            words.held(_held.started_at, words.latest(_UNTIL, _held.started_at)).label("many"),
        )
        .join_from(schema.job, schema.pod_interval, _held.proposal_id == _job.proposal_id)
        .where(_OTHERS, _job.phase == JobPhase.RUNNING.value)
        .group_by(_job.channel, _job.proposal_id, _job.ceiling, _held.hourly)
    )
    return waiting, running


def _part(name: str) -> sa.ColumnElement[Any]:
    return sa.literal_column(f"'{name}'").label("part")


def _by_whom(words: _Words) -> sa.Select[Any]:
    held = _in_period(words, _held.resources, _held.hourly)
    who = (_proposal.channel, _proposal.requester, _revision.recipe, held.c.resources, held.c.hourly)
    approved = (_revision.proposal_id == _proposal.id) & (_revision.revision == _proposal.revision)
    return (
        sa.select(*who, sa.func.sum(held.c.many).label("many"))
        .join_from(held, schema.proposal, _proposal.id == held.c.proposal_id)
        .join(schema.revision, approved)
        .where(_OURS)
        .group_by(*who)
    )


# Each in one statement, of rows (part, channel, job, ceiling, hourly, many).
_WORDS = {sqlite: _Words(sqlite) for sqlite in (True, False)}
_OPEN = {sqlite: sa.union_all(*_of_open_jobs(words)) for sqlite, words in _WORDS.items()}
_LOOK = {sqlite: sa.union_all(_of_month(words), *_of_open_jobs(words)) for sqlite, words in _WORDS.items()}
_BY_WHOM = {sqlite: _by_whom(words) for sqlite, words in _WORDS.items()}
