"""What succeeded, as history for estimates: the newest jobs that were observed as a whole, each node in one attempt."""

from __future__ import annotations

import json
from decimal import Decimal

import sqlalchemy as sa

from bot.core.job import JobPhase
from bot.core.proposal import Offer
from bot.store import schema
from tools.cost import PastRun

HISTORY = 500  # the newest finished jobs that estimates look at

_job, _held, _revision = schema.job.c, schema.pod_interval.c, schema.revision.c
_newest = (
    sa.select(_job.proposal_id, _job.revision, _job.finished_at)
    .where(_job.phase == JobPhase.SUCCEEDED.value)
    .order_by(_job.finished_at.desc())
    .limit(HISTORY)
    .subquery("newest")
)
_whole = (
    sa.select(_held.proposal_id, sa.func.count().label("attempts"))
    .add_columns(sa.func.min(_held.started_at).label("started_at"), sa.func.max(_held.ended_at).label("ended_at"))
    .join(_newest, _newest.c.proposal_id == _held.proposal_id)
    .group_by(_held.proposal_id)
    .having(sa.func.sum(sa.case((_held.estimated | _held.ended_at.is_(None), 1), else_=0)) == 0)
    .subquery("whole")
)
_QUERY = (
    sa.select(_whole, _revision.offer, _revision.estimate)
    .join(_newest, _newest.c.proposal_id == _whole.c.proposal_id)
    .join(
        schema.revision,
        (_revision.proposal_id == _newest.c.proposal_id) & (_revision.revision == _newest.c.revision),
    )
)


def past_runs(connection: sa.Connection) -> list[PastRun]:
    """Seconds are those in which anything was held. What went on from a checkpoint is a part, and no history."""
    rows = connection.execute(_QUERY).all()
    offers = [(Offer.from_document(json.loads(row.offer), json.loads(row.estimate)), row) for row in rows]
    return [
        PastRun(
            spec=offer.spec,
            gpu_product=offer.resources.gpu_product,
            seconds=Decimal(str((row.ended_at - row.started_at).total_seconds())),
        )
        for offer, row in offers
        if row.attempts == offer.resources.nodes and offer.spec.resume_from is None
    ]
