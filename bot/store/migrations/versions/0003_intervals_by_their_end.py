"""A month's intervals are found by their end: nearly all ever recorded began before any month's end."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.drop_index("ix_pod_interval_span", "pod_interval")
    op.create_index("ix_pod_interval_ended", "pod_interval", ["ended_at", "started_at"])


def downgrade() -> None:
    op.drop_index("ix_pod_interval_ended", "pod_interval")
    op.create_index("ix_pod_interval_span", "pod_interval", ["started_at", "ended_at"])
