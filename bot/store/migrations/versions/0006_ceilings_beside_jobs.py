"""What an open job may cost, and where, stands beside it; queues are read in their order by an index."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

COMMITTED = ["team", "phase", "channel", "ceiling", "proposal_id"]


def upgrade() -> None:
    with op.batch_alter_table("job") as batch:
        batch.add_column(sa.Column("team", sa.String(length=255), nullable=False, server_default=""))
        batch.add_column(sa.Column("channel", sa.String(length=255), nullable=False, server_default=""))
        batch.add_column(sa.Column("ceiling", sa.String(length=64), nullable=False, server_default="0"))
    names = ("proposal_id", "revision", "team", "channel", "ceiling")
    job = sa.table("job", *(sa.column(name) for name in names))
    proposal = sa.table("proposal", *(sa.column(name) for name in ("id", "team", "channel")))
    terms = sa.table("revision", *(sa.column(name) for name in ("proposal_id", "revision", "estimate")))
    query = (
        sa.select(job.c.proposal_id, proposal.c.team, proposal.c.channel, terms.c.estimate)
        .join_from(job, proposal, proposal.c.id == job.c.proposal_id)
        .join(terms, (terms.c.proposal_id == job.c.proposal_id) & (terms.c.revision == job.c.revision))
    )
    connection = op.get_bind()
    for row in connection.execute(query).all():
        ceiling = json.loads(row.estimate)["ceiling"]["dollars"]
        values = {"team": row.team, "channel": row.channel, "ceiling": ceiling}
        connection.execute(sa.update(job).where(job.c.proposal_id == row.proposal_id).values(**values))
    if connection.dialect.name != "sqlite":  # a replica of an earlier version must fail, not queue a job without them
        for name in ("team", "channel", "ceiling"):
            op.alter_column("job", name, server_default=None)
    op.create_index("ix_job_committed", "job", COMMITTED)
    op.drop_index("ix_job_phase", "job")
    op.create_index("ix_job_phase", "job", ["phase", "approved_at"])
    op.drop_index("ix_outbox_delivered", "outbox")
    op.create_index("ix_outbox_delivered", "outbox", ["delivered_at", "kind"])


def downgrade() -> None:
    op.drop_index("ix_outbox_delivered", "outbox")
    op.create_index("ix_outbox_delivered", "outbox", ["delivered_at"])
    op.drop_index("ix_job_phase", "job")
    op.create_index("ix_job_phase", "job", ["phase"])
    op.drop_index("ix_job_committed", "job")
    with op.batch_alter_table("job") as batch:
        for name in ("ceiling", "channel", "team"):
            batch.drop_column(name)
