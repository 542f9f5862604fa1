"""Who answers a message, and until when that counts; what is not answered is found by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    with op.batch_alter_table("inbox") as batch:
        batch.add_column(sa.Column("claimed_by", sa.String(length=64)))
        batch.add_column(sa.Column("claimed_until", sa.DateTime(timezone=True)))
    op.create_index("ix_inbox_answered", "inbox", ["answered_at", "team"])


def downgrade() -> None:
    op.drop_index("ix_inbox_answered", "inbox")
    with op.batch_alter_table("inbox") as batch:
        batch.drop_column("claimed_until")
        batch.drop_column("claimed_by")
