"""The store's writing side: one transaction, whose `move` is the only way that a proposal or job changes.

`move` compares and swaps: it changes the row only if it still stands as the caller read it, and writes the chained
event in the same transaction; whoever lost a race gets `Conflict` and decides again from fresh rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.core.errors import Conflict
from bot.core.job import Job
from bot.core.proposal import Proposal, ProposalState
from bot.store import chain, records, schema
from tools.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One row of the outbox: something happened to `subject` that people in `channel` should see."""

    id: int
    team: str
    channel: str
    kind: str
    subject: str
    actor: str
    failures: int


class Writing:
    """One open transaction. `now` is the database's clock at its beginning."""

    def __init__(self, connection: AsyncConnection, now: datetime) -> None:
        self.connection = connection
        self.now = now

    async def next_number(self, team: str) -> int:
        """The next proposal's number in this workspace. The chain's head is locked first: proposals come one by one."""
        await self.connection.execute(sa.select(schema.chain_head).with_for_update())
        table = schema.proposal
        newest = await self.connection.scalar(sa.select(sa.func.max(table.c.number)).where(table.c.team == team))
        return int(newest or 0) + 1

    async def move(self, before: Proposal | Job | None, after: Proposal | Job, *, kind: str, actor: str) -> None:
        """From exactly `before` (None: not there) to `after`, with its event; `Conflict` if it moved meanwhile."""
        if isinstance(after, Proposal):
            assert before is None or isinstance(before, Proposal)
            await self._move_proposal(before, after)
            entity, snapshot = f"proposal:{after.id}", records.proposal_snapshot(after)
        else:
            assert before is None or isinstance(before, Job)
            await self._move_job(before, after)
            entity, snapshot = f"job:{after.name}", records.job_snapshot(after)
        await chain.append(
            self.connection,
            entity=entity,
            version=after.version,
            kind=kind,
            actor=actor,
            at=self.now,
            after=snapshot,
        )

    async def _move_proposal(self, before: Proposal | None, after: Proposal) -> None:
        table = schema.proposal
        if before is None:
            await self._insert(table, records.proposal_values(after))
        else:
            unmoved = [
                table.c.version == before.version,
                table.c.state == before.state.value,
                table.c.revision == before.revision,
            ]
            if before.state is ProposalState.PENDING and after.state is not ProposalState.EXPIRED:
                unmoved.append(table.c.expires_at > self.now)
            await self._swap(table, [table.c.id == before.id, *unmoved], records.proposal_values(after))
        if before is None or before.revision != after.revision:
            await self._insert(schema.revision, records.revision_values(after))
        known = {vote.voter for vote in before.votes} if before and before.revision == after.revision else set()
        for vote in after.votes:
            if vote.voter not in known:
                await self._insert(schema.vote, records.vote_values(after, vote))

    async def _move_job(self, before: Job | None, after: Job) -> None:
        table = schema.job
        if before is None:
            await self._insert(table, records.job_values(after))
        else:
            unmoved = [table.c.version == before.version, table.c.phase == before.phase.value]
            fresh = {"failures": 0, "retry_at": None, "trouble": ""}
            where = [table.c.proposal_id == before.proposal_id, *unmoved]
            await self._swap(table, where, records.job_values(after) | fresh)
        held = schema.pod_interval
        for interval in after.intervals:
            if before is None or interval not in before.intervals:
                same = (held.c.proposal_id == after.proposal_id) & (held.c.attempt == interval.attempt)
                await self.connection.execute(sa.delete(held).where(same))
                await self._insert(held, records.interval_values(after, interval))

    async def _swap(self, table: sa.Table, where: list[sa.ColumnElement[bool]], values: dict[str, Any]) -> None:
        result = await self.connection.execute(sa.update(table).where(*where).values(**values))
        if result.rowcount != 1:
            raise Conflict(f"The {table.name} was changed by someone else at the same moment.")

    async def _insert(self, table: sa.Table, values: dict[str, Any]) -> None:
        await self.connection.execute(sa.insert(table).values(**values))

    # -- what is not state --------------------------------------------------------------------------------------

    async def tell(
        self, team: str, channel: str, kind: str, subject: str, actor: str, *, once: str | None = None
    ) -> None:
        """Put a notice into the outbox, in this transaction: it is delivered if and only if this commits.

        `once` is a key that only one notice ever has; a second is an `IntegrityError`.
        """
        await self._insert(
            schema.outbox,
            {
                "team": team,
                "channel": channel,
                "kind": kind,
                "subject": subject,
                "actor": actor,
                "created_at": self.now,
                "once": once,
            },
        )

    async def claim_notice(self, notice: Notice, until: datetime) -> bool:
        """Keep other replicas from delivering it until then. False: one of them has it, or it is delivered."""
        table = schema.outbox
        free = table.c.retry_at.is_(None) | (table.c.retry_at <= self.now)
        result = await self.connection.execute(
            sa.update(table)
            .where(table.c.id == notice.id, table.c.delivered_at.is_(None), table.c.set_aside_at.is_(None), free)
            .values(retry_at=until)
        )
        return bool(result.rowcount)

    async def claim_card(self, proposal_id: str, until: datetime) -> bool:
        """The lease to post a proposal's card: at most one holds it, and none once it is posted."""
        table = schema.card
        if await self.connection.scalar(sa.select(sa.true()).where(table.c.proposal_id == proposal_id)) is None:
            await self._insert(table, {"proposal_id": proposal_id, "claimed_until": until})
            return True
        free = table.c.claimed_until.is_(None) | (table.c.claimed_until <= self.now)
        result = await self.connection.execute(
            sa.update(table)
            .where(table.c.proposal_id == proposal_id, table.c.message.is_(None), free)
            .values(claimed_until=until)
        )
        return bool(result.rowcount)

    async def card_posted(self, proposal_id: str, message: str) -> None:
        """Where the card stands."""
        table = schema.card
        await self.connection.execute(
            sa.update(table).where(table.c.proposal_id == proposal_id).values(message=message, claimed_until=None)
        )

    async def save_feedback(self, team: str, channel: str, message: str, user: str, verdict: str) -> None:
        """What a person thinks of an answer; the last word counts."""
        table = schema.feedback
        same = (table.c.team == team) & (table.c.channel == channel)
        same &= (table.c.message == message) & (table.c.user == user)
        await self.connection.execute(sa.delete(table).where(same))
        row = {"team": team, "channel": channel, "message": message, "user": user}
        await self._insert(table, row | {"verdict": verdict, "at": self.now})

    async def delivered(self, notice: Notice) -> None:
        table = schema.outbox
        await self.connection.execute(
            sa.update(table).where(table.c.id == notice.id).values(delivered_at=self.now, trouble="")
        )

    async def not_delivered(self, notice: Notice, trouble: str, retry_at: datetime | None) -> None:
        """It failed; None for `retry_at` sets it aside for good."""
        table = schema.outbox
        aside = self.now if retry_at is None else None
        await self.connection.execute(
            sa.update(table)
            .where(table.c.id == notice.id)
            .values(failures=notice.failures + 1, trouble=trouble[:500], retry_at=retry_at, set_aside_at=aside)
        )

    async def save_progress(self, job: Job, progress: Progress) -> None:
        """What the trainer said last. Not state: no version, no event."""
        table = schema.job
        await self.connection.execute(
            sa.update(table)
            .where(table.c.proposal_id == job.proposal_id)
            .values(progress=records.progress_text(progress), failures=0, retry_at=None, trouble="")
        )

    async def save_trouble(self, job: Job, trouble: str, failures: int, retry_at: datetime) -> None:
        """A step failed for now; it is tried again at `retry_at`."""
        table = schema.job
        await self.connection.execute(
            sa.update(table)
            .where(table.c.proposal_id == job.proposal_id)
            .values(trouble=trouble[:500], failures=failures, retry_at=retry_at)
        )

    async def claim_digest(self, team: str, channel: str, local_date: str) -> None:
        """The digest of that date is ours to send; `Conflict` if it was claimed before."""
        try:
            await self._insert(
                schema.digest,
                {"team": team, "channel": channel, "local_date": local_date, "created_at": self.now},
            )
        except IntegrityError as error:
            raise Conflict(f"The digest of {local_date} was already sent to {channel}.") from error
