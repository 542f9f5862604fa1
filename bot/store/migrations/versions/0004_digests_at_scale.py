"""What digests look for has a column or an index: a revision's recipe, when a job ended, when it was asked for."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("revision") as batch:
        batch.add_column(sa.Column("recipe", sa.String(length=64), nullable=False, server_default=""))
    table = sa.table(
        "revision", sa.column("proposal_id"), sa.column("revision"), sa.column("offer"), sa.column("recipe")
    )
    connection = op.get_bind()
    for row in connection.execute(sa.select(table.c.proposal_id, table.c.revision, table.c.offer)).all():
        same = (table.c.proposal_id == row.proposal_id) & (table.c.revision == row.revision)
        recipe = json.loads(row.offer)["spec"]["recipe"]
        connection.execute(sa.update(table).where(same).values(recipe=recipe))
    op.create_index("ix_revision_recipe", "revision", ["proposal_id", "revision", "recipe"])
    op.create_index("ix_job_finished", "job", ["finished_at"])
    op.create_index("ix_proposal_created", "proposal", ["created_at"])


def downgrade() -> None:
    op.drop_index("ix_proposal_created", "proposal")
    op.drop_index("ix_job_finished", "job")
    op.drop_index("ix_revision_recipe", "revision")
    with op.batch_alter_table("revision") as batch:
        batch.drop_column("recipe")
