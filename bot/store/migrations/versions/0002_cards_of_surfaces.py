"""Surfaces that can edit: where a card stands, notices that are written once, feedback on answers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from bot.store.schema import Instant

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "card",
        sa.Column("proposal_id", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=255), nullable=True),
        sa.Column("claimed_until", Instant(), nullable=True),
        sa.ForeignKeyConstraint(["proposal_id"], ["proposal.id"]),
        sa.PrimaryKeyConstraint("proposal_id"),
    )
    op.create_table(
        "feedback",
        sa.Column("team", sa.String(length=255), nullable=False),
        sa.Column("channel", sa.String(length=255), nullable=False),
        sa.Column("message", sa.String(length=255), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("team", "channel", "message", "user"),
    )
    with op.batch_alter_table("outbox") as batch:
        batch.add_column(sa.Column("once", sa.String(length=255), nullable=True))
        batch.create_unique_constraint("uq_outbox_once", ["once"])


def downgrade() -> None:
    with op.batch_alter_table("outbox") as batch:
        batch.drop_constraint("uq_outbox_once", type_="unique")
        batch.drop_column("once")
    op.drop_table("feedback")
    op.drop_table("card")
