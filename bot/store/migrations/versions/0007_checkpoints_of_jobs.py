"""Whose folder a job writes its checkpoints to stands beside it, for queues to be read by an index."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.batch_alter_table("job") as batch:
        batch.add_column(sa.Column("checkpoint_of", sa.String(length=255), nullable=False, server_default=""))
    job = sa.table("job", *(sa.column(name) for name in ("proposal_id", "revision", "name", "checkpoint_of")))
    terms = sa.table("revision", *(sa.column(name) for name in ("proposal_id", "revision", "offer")))
    approved = (terms.c.proposal_id == job.c.proposal_id) & (terms.c.revision == job.c.revision)
    connection = op.get_bind()
    connection.execute(sa.update(job).values(checkpoint_of=job.c.name))
    resumed = sa.select(job.c.proposal_id, terms.c.offer).join_from(job, terms, approved)
    for row in connection.execute(resumed.where(terms.c.offer.contains('"resume_from"'))).all():
        if folder := json.loads(row.offer)["spec"].get("resume_from"):
            its = sa.update(job).where(job.c.proposal_id == row.proposal_id)
            connection.execute(its.values(checkpoint_of=folder))
    if connection.dialect.name != "sqlite":  # a replica of an earlier version must fail, not queue a job without it
        op.alter_column("job", "checkpoint_of", server_default=None)
    op.drop_index("ix_job_phase", "job")
    op.create_index("ix_job_phase", "job", ["phase", "approved_at", "proposal_id", "checkpoint_of"])


def downgrade() -> None:
    op.drop_index("ix_job_phase", "job")
    op.create_index("ix_job_phase", "job", ["phase", "approved_at"])
    with op.batch_alter_table("job") as batch:
        batch.drop_column("checkpoint_of")
