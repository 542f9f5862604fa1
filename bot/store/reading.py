"""The queries that rows become proposals and jobs by, built once, and the functions that run them on a connection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bot.core.errors import NotFound
from bot.core.job import PERMITTED, Job, JobPhase
from bot.core.proposal import Proposal
from bot.store import records, schema

IN_LIST = 500  # ids in one query; SQLite takes at most 32,766 parameters

_revision = schema.revision.c
PROPOSALS = (
    sa.select(schema.proposal, _revision.author, _revision.offer, _revision.digest, _revision.estimate)
    .join(
        schema.revision,
        (_revision.proposal_id == schema.proposal.c.id) & (_revision.revision == schema.proposal.c.revision),
    )
    .order_by(schema.proposal.c.number.desc())
)
BY_ID = PROPOSALS.where(schema.proposal.c.id == sa.bindparam("is_id"))
HERE = PROPOSALS.where(*(schema.proposal.c[name] == sa.bindparam(f"is_{name}") for name in ("team", "channel")))
HERE_BY = {name: HERE.where(schema.proposal.c[name] == sa.bindparam("is_it")) for name in ("number", "id")}
_COPIED = ("team", "channel")  # read where they are copied from
JOBS = sa.select(
    *(column for column in schema.job.columns if column.name not in _COPIED),
    *(schema.proposal.c[name] for name in ("number", *_COPIED, "thread", "requester")),
).join(schema.proposal, schema.proposal.c.id == schema.job.c.proposal_id)
_CHILDREN = {
    table: sa.select(table).order_by(table.c[by])
    for table, by in ((schema.vote, "at"), (schema.pod_interval, "attempt"))
}
CHILDREN_OF_ONE = {
    table: query.where(table.c.proposal_id == sa.bindparam("parents")) for table, query in _CHILDREN.items()
}
CHILDREN_OF_MANY = {
    table: query.where(table.c.proposal_id.in_(sa.bindparam("parents", expanding=True)))
    for table, query in _CHILDREN.items()
}

_job = schema.job.c
_other = schema.job.alias("other").c
QUEUED = _job.phase == JobPhase.QUEUED.value
_TAKEN = sa.select(_other.checkpoint_of).where(_other.phase.in_([phase.value for phase in PERMITTED]))
IN_LINE = QUEUED & _job.checkpoint_of.not_in(_TAKEN)
"""Queued, and no other training writes to the folder of its checkpoints: one at a time may, and nobody waits behind."""


@dataclass(frozen=True, kw_only=True)
class OpenJob:
    """An open job with what is not state: when to try again, what went wrong last, what may help."""

    job: Job
    failures: int
    retry_at: datetime | None
    trouble: str
    remedy: Mapping[str, int | str]


def proposal_here(connection: sa.Connection, team: str, channel: str, which: int | str) -> Proposal:
    """By its number, or the id on a button, in a channel; else `NotFound`."""
    by = "number" if isinstance(which, int) else "id"
    there = read_proposals(connection, HERE_BY[by], {"is_team": team, "is_channel": channel, "is_it": which})
    if there:
        return there[0]
    if by == "id":
        raise NotFound("This button does not belong to a proposal of this channel.")
    raise NotFound(f"There is no proposal {which} here. List what there is with /jobs or /inbox.")


def read_proposals(
    connection: sa.Connection, query: sa.Select[Any], key: Mapping[str, object] | None = None
) -> list[Proposal]:
    """What a query that begins as `PROPOSALS` finds, with votes."""
    rows = connection.execute(query, key).all()
    voted = [row.id for row in rows if row.version > 1]  # a vote is a change: the first version has none
    votes = _children(connection, schema.vote, voted) if voted else {}
    return [
        records.proposal_from(row, [vote for vote in votes.get(row.id, []) if vote.revision == row.revision])
        for row in rows
    ]


def read_jobs(connection: sa.Connection, query: sa.Select[Any]) -> list[OpenJob]:
    """What a query that begins as `JOBS` finds, with intervals."""
    return jobs_of(connection, connection.execute(query).all())


def ahead_of(connection: sa.Connection, job: Job) -> int:
    """How many jobs stand in line before that one."""
    earlier = _job.approved_at < job.approved_at
    tied = (_job.approved_at == job.approved_at) & (_job.proposal_id < job.proposal_id)
    return connection.scalar(sa.select(sa.func.count()).select_from(schema.job).where(IN_LINE, earlier | tied)) or 0


def jobs_of(connection: sa.Connection, rows: Sequence[records.Row]) -> list[OpenJob]:
    """The same of rows that were read, in their order."""
    held = _children(connection, schema.pod_interval, [row.proposal_id for row in rows])
    return [
        OpenJob(
            job=records.job_from(row, held.get(row.proposal_id, [])),
            failures=row.failures,
            retry_at=row.retry_at,
            trouble=row.trouble,
            remedy=json.loads(row.remedy),
        )
        for row in rows
    ]


def _children(connection: sa.Connection, table: sa.Table, parents: Sequence[str]) -> dict[str, list[records.Row]]:
    """Rows of `table` by their proposal's id."""
    if len(parents) == 1:  # by far the most often, and several times cheaper
        one = connection.execute(CHILDREN_OF_ONE[table], {"parents": parents[0]}).all()
        return {parents[0]: list(one)}
    found: dict[str, list[records.Row]] = {}
    for start in range(0, len(parents), IN_LIST):
        for row in connection.execute(CHILDREN_OF_MANY[table], {"parents": parents[start : start + IN_LIST]}):
            found.setdefault(row.proposal_id, []).append(row)
    return found
