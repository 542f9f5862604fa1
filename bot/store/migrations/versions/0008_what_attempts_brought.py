"""What an interval's time went into, as far as it was seen. An earlier version's intervals do without."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("pod_interval") as batch:
        batch.add_column(sa.Column("began_at", sa.DateTime(timezone=True)))
        batch.add_column(sa.Column("preempted", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    with op.batch_alter_table("pod_interval") as batch:
        batch.drop_column("preempted")
        batch.drop_column("began_at")
