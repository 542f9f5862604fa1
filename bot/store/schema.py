"""The tables. `migrations/` creates them; a test holds the two together. Times are UTC, money is decimal text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect


class Instant(sa.types.TypeDecorator[datetime]):
    """An aware datetime, in UTC: `timestamptz` in PostgreSQL, sortable text in SQLite. Naive values are refused."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime cannot be stored")
        aware = value.astimezone(UTC)
        return aware.replace(tzinfo=None) if dialect.name == "sqlite" else aware

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData()
Id = sa.String(64)
Name = sa.String(255)

proposal = sa.Table(
    "proposal",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("team", Name, nullable=False),
    sa.Column("channel", Name, nullable=False),
    sa.Column("thread", Name, nullable=False),
    sa.Column("requester", Name, nullable=False),
    sa.Column("prompt", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("decided_at", Instant),
    sa.Column("decided_by", Name),
    sa.Column("reason", sa.Text, nullable=False),
    sa.UniqueConstraint("team", "number", name="uq_proposal_number"),
    sa.Index("ix_proposal_state", "state"),
    sa.Index("ix_proposal_created", "created_at"),
)


def of_team(team: str | sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
    """A workspace's proposals, found by whatever else is asked: by an index on the team alone, all that ever were."""
    return proposal.c.team.concat("") == team


revision = sa.Table(
    "revision",
    metadata,
    sa.Column("proposal_id", Id, sa.ForeignKey("proposal.id"), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("author", Name, nullable=False),
    sa.Column("offer", sa.Text, nullable=False),  # canonical JSON; its SHA-256 is the digest
    sa.Column("digest", Id, nullable=False),
    sa.Column("estimate", sa.Text, nullable=False),
    sa.Column("recipe", Id, nullable=False, server_default=""),  # as in the offer, for digests to group by
    sa.Index("ix_revision_recipe", "proposal_id", "revision", "recipe"),  # without walking through the offer's text
)

vote = sa.Table(
    "vote",
    metadata,
    sa.Column("proposal_id", Id, sa.ForeignKey("proposal.id"), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("voter", Name, primary_key=True),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("digest", Id, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
)

job = sa.Table(
    "job",
    metadata,
    sa.Column("proposal_id", Id, sa.ForeignKey("proposal.id"), primary_key=True),
    sa.Column("name", Name, nullable=False, unique=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("digest", Id, nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    # As in the proposal and the approved revision, for budgets and queues to be read by an index alone.
    sa.Column("team", Name, nullable=False),
    sa.Column("channel", Name, nullable=False),
    sa.Column("ceiling", Id, nullable=False),  # dollars
    sa.Column("checkpoint_of", Name, nullable=False),  # the job whose folder it writes its checkpoints to
    sa.Column("approved_at", Instant, nullable=False),
    sa.Column("start_before", Instant, nullable=False),
    sa.Column("max_runtime_seconds", sa.Integer, nullable=False),
    sa.Column("run_id", Name),
    sa.Column("uid", Name),
    sa.Column("submitted_at", Instant),
    sa.Column("started_at", Instant),
    sa.Column("finished_at", Instant),
    sa.Column("cancel_by", Name),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("metrics", sa.Text, nullable=False),
    # Not state, so not in the chain: how the last attempt at a step went, and what the trainer said last.
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("retry_at", Instant),
    sa.Column("trouble", sa.Text, nullable=False, server_default=""),
    sa.Column("progress", sa.Text, nullable=False, server_default="{}"),
    sa.Column("remedy", sa.Text, nullable=False, server_default="{}"),  # parameters to try after it failed
    sa.Index("ix_job_phase", "phase", "approved_at", "proposal_id", "checkpoint_of"),
    sa.Index("ix_job_committed", "team", "phase", "channel", "ceiling", "proposal_id"),
    sa.Index("ix_job_finished", "finished_at"),
)

pod_interval = sa.Table(
    "pod_interval",
    metadata,
    sa.Column("proposal_id", Id, sa.ForeignKey("job.proposal_id"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("ended_at", Instant),
    sa.Column("resources", sa.Text, nullable=False),
    sa.Column("rate_version", sa.String(64), nullable=False),
    sa.Column("hourly", sa.Text, nullable=False),
    sa.Column("estimated", sa.Boolean, nullable=False),
    # Not in the chain either: they explain what was paid for, and change no amount.
    sa.Column("began_at", Instant),
    sa.Column("preempted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_pod_interval_ended", "ended_at", "started_at"),
)

event = sa.Table(
    "event",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("entity", Name, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("actor", Name, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # canonical JSON: all of the above, and the entity as it then stood
    sa.Column("hash", Id, nullable=False),  # SHA-256 over the previous hash and the body
    sa.UniqueConstraint("entity", "version", name="uq_event_version"),
)

chain_head = sa.Table(
    "chain_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),  # one row: 1
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("hash", Id, nullable=False),
)

inbox = sa.Table(
    "inbox",
    metadata,
    sa.Column("team", Name, primary_key=True),
    sa.Column("event_id", Name, primary_key=True),
    sa.Column("channel", Name, nullable=False),
    sa.Column("thread", Name, nullable=False),
    sa.Column("user", Name, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("received_at", Instant, nullable=False),
    sa.Column("answered_at", Instant),
    sa.Column("claimed_by", Id),  # the process that answers it
    sa.Column("claimed_until", Instant),
    sa.Index("ix_inbox_answered", "answered_at", "team"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("team", Name, nullable=False),
    sa.Column("channel", Name, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("subject", Name, nullable=False),  # a proposal's id, or a digest's date
    sa.Column("actor", Name, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("delivered_at", Instant),
    sa.Column("set_aside_at", Instant),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("retry_at", Instant),
    sa.Column("trouble", sa.Text, nullable=False, server_default=""),
    sa.Column("once", Name),  # a key that lets a notice be written one time only
    sa.Index("ix_outbox_delivered", "delivered_at", "kind"),
    sa.UniqueConstraint("once", name="uq_outbox_once"),
)

# Where a surface that can edit has put a proposal's card; `claimed_until` is the lease of whoever is posting it.
card = sa.Table(
    "card",
    metadata,
    sa.Column("proposal_id", Id, sa.ForeignKey("proposal.id"), primary_key=True),
    sa.Column("message", Name),
    sa.Column("claimed_until", Instant),
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("team", Name, primary_key=True),
    sa.Column("channel", Name, primary_key=True),
    sa.Column("message", Name, primary_key=True),
    sa.Column("user", Name, primary_key=True),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("at", Instant, nullable=False),
)

digest = sa.Table(
    "digest",
    metadata,
    sa.Column("team", Name, primary_key=True),
    sa.Column("channel", Name, primary_key=True),
    sa.Column("local_date", sa.String(10), primary_key=True),
    sa.Column("created_at", Instant, nullable=False),
)
