"""The store's writing side: one transaction, whose `move` is the only way that a proposal or job changes.

`move` compares and swaps: it changes the row only if it still stands as the caller read it, and its chained event is
written in the same transaction; whoever lost a race gets `Conflict` and decides again from fresh rows. Statements that
every decision takes are built once, at the top: building one costs several times what running it does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from bot.core.canonical import canonical_json
from bot.core.errors import Conflict
from bot.core.job import PERMITTED, Job
from bot.core.periods import Period
from bot.core.proposal import Proposal, ProposalState
from bot.store import chain, records, schema
from bot.store.commit import Commit
from bot.store.reading import ahead_of, proposal_here
from bot.store.spending import Spending
from tools.progress import Progress

EVER = datetime(1, 1, 2, tzinfo=UTC)  # before every moment
LEASE = timedelta(seconds=20)  # on a message, renewed while it is being answered
UNLEASED = timedelta(minutes=2)  # for an answer by a replica of an earlier version, which took no lease


def _swap_of(key: sa.Column[Any], *compared: sa.Column[Any]) -> sa.Update:
    """An update of the row `is_…` that only hits it while the compared columns still are as they were read."""
    still = [column == sa.bindparam(f"is_{column.name}") for column in compared]
    return sa.update(key.table).where(key == sa.bindparam(f"is_{key.name}"), *still)


INSERT = {table: sa.insert(table) for table in schema.metadata.sorted_tables}
_proposal, _job = schema.proposal.c, schema.job.c
SWAP_PROPOSAL = _swap_of(_proposal.id, _proposal.version, _proposal.state, _proposal.revision).where(
    _proposal.expires_at > sa.bindparam("is_before")
)
SWAP_JOB = _swap_of(_job.proposal_id, _job.version, _job.phase)


def nobodys(now: datetime) -> sa.ColumnElement[bool]:
    """Messages that are not answered, by anybody who holds them."""
    table = schema.inbox.c
    unleased = table.claimed_until.is_(None) & (table.received_at <= now - UNLEASED)
    return table.answered_at.is_(None) & ((table.claimed_until <= now) | unleased)


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One row of the outbox: something happened to `subject` that people in `channel` should see."""

    id: int
    team: str
    channel: str
    kind: str
    subject: str
    actor: str
    created_at: datetime
    failures: int


class Writing:
    """One write of a commit. `now` is the database's clock at its beginning."""

    def __init__(self, commit: Commit, now: datetime) -> None:
        self.connection = commit.connection
        self.now = now
        self._commit = commit
        self._events: list[chain.Event] = []
        self._notices: list[dict[str, Any]] = []
        self._jobs: list[tuple[Job | None, Job]] = []

    # -- what a decision looks at, in the transaction that holds it ---------------------------------------------

    def proposal(self, team: str, channel: str, which: int | str) -> Proposal:
        """By its number, or the id on a button, in a channel; else `NotFound`."""
        return proposal_here(self.connection, team, channel, which)

    def spending(self, team: str, month: Period) -> Spending:
        """What the month has cost and what the open jobs may still cost, to be asked before any of them moves."""
        assert not self._jobs
        return self._commit.spending(team, month, self.now)

    def next_number(self, team: str) -> int:
        """The next proposal's number in this workspace."""
        table = schema.proposal
        newest = self.connection.scalar(sa.select(sa.func.max(table.c.number)).where(table.c.team == team))
        return int(newest or 0) + 1

    def move(self, before: Proposal | Job | None, after: Proposal | Job, *, kind: str, actor: str) -> None:
        """From exactly `before` (None: not there) to `after`, with its event; `Conflict` if it moved meanwhile."""
        if isinstance(after, Proposal):
            assert before is None or isinstance(before, Proposal)
            self._move_proposal(before, after)
            entity, snapshot = f"proposal:{after.id}", records.proposal_snapshot(after)
        else:
            assert before is None or isinstance(before, Job)
            self._move_job(before, after)
            self._jobs.append((before, after))
            entity, snapshot = f"job:{after.name}", records.job_snapshot(after)
        self._events.append(
            chain.Event(entity=entity, version=after.version, kind=kind, actor=actor, at=self.now, after=snapshot)
        )

    def seal(self) -> None:
        """Leave the events of all that moved, and the notices, to the commit: the last act of every write."""
        self._commit.leave(self._events, self._notices, self._jobs)

    def has_turn(self, job: Job, free: int, seen: Collection[str]) -> bool:
        """Whether a queued job may take one of so many `free` slots, that were counted when `seen` were permitted.

        Asked where one writer works at a time: no two replicas give one slot, or one checkpoint's folder, twice.
        """
        table = schema.job.c
        permitted = sa.select(table.name, table.checkpoint_of).where(table.phase.in_([one.value for one in PERMITTED]))
        held = self.connection.execute(permitted).all()
        if any(other.checkpoint_of == job.checkpoint_of for other in held):
            return False
        return ahead_of(self.connection, job) + sum(other.name not in seen for other in held) < free

    def _move_proposal(self, before: Proposal | None, after: Proposal) -> None:
        if before is None:
            self._insert(schema.proposal, records.proposal_values(after))
        else:
            # Only its expiry is written when its time is over.
            timely = before.state is ProposalState.PENDING and after.state is not ProposalState.EXPIRED
            unmoved = {
                "is_id": before.id,
                "is_version": before.version,
                "is_state": before.state.value,
                "is_revision": before.revision,
                "is_before": self.now if timely else EVER,
            }
            self._swap(SWAP_PROPOSAL, unmoved, records.proposal_changes(after))
        if before is None or before.revision != after.revision:
            self._insert(schema.revision, records.revision_values(after))
        known = {vote.voter for vote in before.votes} if before and before.revision == after.revision else set()
        for vote in after.votes:
            if vote.voter not in known:
                self._insert(schema.vote, records.vote_values(after, vote))

    def _move_job(self, before: Job | None, after: Job) -> None:
        if before is None:
            self._insert(schema.job, records.job_values(after))
        else:
            unmoved = {
                "is_proposal_id": before.proposal_id,
                "is_version": before.version,
                "is_phase": before.phase.value,
            }
            fresh = {"failures": 0, "retry_at": None, "trouble": ""}
            self._swap(SWAP_JOB, unmoved, records.job_values(after) | fresh)
        held = schema.pod_interval
        for interval in after.intervals:
            if before is None or interval not in before.intervals:
                same = (held.c.proposal_id == after.proposal_id) & (held.c.attempt == interval.attempt)
                self.connection.execute(sa.delete(held).where(same))
                self._insert(held, records.interval_values(after, interval))

    def _swap(self, swap: sa.Update, unmoved: dict[str, Any], values: dict[str, Any]) -> None:
        result = self.connection.execute(swap, unmoved | values)
        if result.rowcount != 1:
            raise Conflict(f"The {swap.table.description} was changed by someone else at the same moment.")

    def _insert(self, table: sa.Table, values: dict[str, Any]) -> None:
        self.connection.execute(INSERT[table], values)

    # -- what is not state --------------------------------------------------------------------------------------

    def tell(self, team: str, channel: str, kind: str, subject: str, actor: str, *, once: str | None = None) -> None:
        """Put a notice into the outbox, in this transaction: it is delivered if and only if this commits.

        `once` is a key that only one notice ever has; a second is an `IntegrityError`.
        """
        notice = {
            "team": team,
            "channel": channel,
            "kind": kind,
            "subject": subject,
            "actor": actor,
            "created_at": self.now,
            "once": once,
        }
        if once is None:
            self._notices.append(notice)
        else:
            self._insert(schema.outbox, notice)

    def receive(self, message: Mapping[str, object], holder: str) -> None:
        """Record what a person said, for its holder to answer; `IntegrityError` if it was here already."""
        lease = {"claimed_by": holder, "claimed_until": self.now + LEASE}
        self._insert(schema.inbox, {**message, "received_at": self.now, **lease})

    def answered(self, team: str, event_id: str) -> None:
        """The person has their answer."""
        table = schema.inbox
        same = (table.c.team == team) & (table.c.event_id == event_id)
        self.connection.execute(sa.update(table).where(same).values(answered_at=self.now))

    def claim_message(self, team: str, event_id: str, holder: str) -> bool:
        """The lease to answer it. False: somebody has it, or it is answered."""
        table = schema.inbox
        free = (table.c.team == team) & (table.c.event_id == event_id) & nobodys(self.now)
        lease = {"claimed_by": holder, "claimed_until": self.now + LEASE}
        return bool(self.connection.execute(sa.update(table).where(free).values(lease)).rowcount)

    def renew(self, team: str, event_id: str, holder: str) -> bool:
        """Hold it for a whole lease again. False: somebody else has it, or it is answered."""
        table = schema.inbox
        held = (table.c.team == team) & (table.c.event_id == event_id)
        held &= (table.c.claimed_by == holder) & table.c.answered_at.is_(None)
        result = self.connection.execute(sa.update(table).where(held).values(claimed_until=self.now + LEASE))
        return bool(result.rowcount)

    def release_messages(self, holder: str) -> None:
        """The holder answers nothing any more."""
        table = schema.inbox
        held = (table.c.claimed_by == holder) & table.c.answered_at.is_(None)
        self.connection.execute(sa.update(table).where(held).values(claimed_by=None, claimed_until=self.now))

    def end_leases(self) -> None:
        """Whoever answered a message or posted a card is no more: only for a process that nobody works beside."""
        inbox, card = schema.inbox, schema.card
        for table, is_open in ((inbox, inbox.c.answered_at.is_(None)), (card, card.c.message.is_(None))):
            self.connection.execute(sa.update(table).where(is_open).values(claimed_until=self.now))

    def claim_notice(self, notice: Notice, until: datetime) -> bool:
        """Keep other replicas from delivering it until then. False: one of them has it, or it is delivered."""
        table = schema.outbox
        free = table.c.retry_at.is_(None) | (table.c.retry_at <= self.now)
        result = self.connection.execute(
            sa.update(table)
            .where(table.c.id == notice.id, table.c.delivered_at.is_(None), table.c.set_aside_at.is_(None), free)
            .values(retry_at=until)
        )
        return bool(result.rowcount)

    def claim_card(self, proposal_id: str, until: datetime) -> bool:
        """The lease to post a proposal's card: at most one holds it, and none once it is posted."""
        table = schema.card
        if self.connection.scalar(sa.select(sa.true()).where(table.c.proposal_id == proposal_id)) is None:
            self._insert(table, {"proposal_id": proposal_id, "claimed_until": until})
            return True
        free = table.c.claimed_until.is_(None) | (table.c.claimed_until <= self.now)
        result = self.connection.execute(
            sa.update(table)
            .where(table.c.proposal_id == proposal_id, table.c.message.is_(None), free)
            .values(claimed_until=until)
        )
        return bool(result.rowcount)

    def release_card(self, proposal_id: str) -> None:
        """It was not posted, that is certain: another try need not wait for the lease to end."""
        table = schema.card
        self.connection.execute(
            sa.update(table)
            .where(table.c.proposal_id == proposal_id, table.c.message.is_(None))
            .values(claimed_until=None)
        )

    def card_posted(self, proposal_id: str, message: str) -> None:
        """Where the card stands."""
        table = schema.card
        self.connection.execute(
            sa.update(table).where(table.c.proposal_id == proposal_id).values(message=message, claimed_until=None)
        )

    def save_feedback(self, team: str, channel: str, message: str, user: str, verdict: str) -> None:
        """What a person thinks of an answer; the last word counts."""
        table = schema.feedback
        same = (table.c.team == team) & (table.c.channel == channel)
        same &= (table.c.message == message) & (table.c.user == user)
        self.connection.execute(sa.delete(table).where(same))
        row = {"team": team, "channel": channel, "message": message, "user": user}
        self._insert(table, row | {"verdict": verdict, "at": self.now})

    def delivered(self, notice: Notice) -> None:
        table = schema.outbox
        self.connection.execute(
            sa.update(table).where(table.c.id == notice.id).values(delivered_at=self.now, trouble="")
        )

    def not_delivered(self, notice: Notice, trouble: str, failures: int, retry_at: datetime | None) -> None:
        """It failed, `failures` times by its own fault; None for `retry_at` sets it aside."""
        table = schema.outbox
        aside = self.now if retry_at is None else None
        self.connection.execute(
            sa.update(table)
            .where(table.c.id == notice.id)
            .values(failures=failures, trouble=trouble[:500], retry_at=retry_at, set_aside_at=aside)
        )

    def take_up(self, since: datetime) -> None:
        """What is not older and was set aside may be tried once more."""
        table = schema.outbox
        aside = table.c.delivered_at.is_(None) & table.c.set_aside_at.is_not(None) & (table.c.created_at >= since)
        self.connection.execute(sa.update(table).where(aside).values(set_aside_at=None, retry_at=None))

    def save_progress(self, job: Job, progress: Progress) -> None:
        """What the trainer said last. Not state: no version, no event."""
        table = schema.job
        self.connection.execute(
            sa.update(table)
            .where(table.c.proposal_id == job.proposal_id)
            .values(progress=records.progress_text(progress), failures=0, retry_at=None, trouble="")
        )

    def save_remedy(self, job: Job, remedy: Mapping[str, int | str]) -> None:
        """What may help it, now that it has failed. Not state: a person decides."""
        table = schema.job
        same = table.c.proposal_id == job.proposal_id
        self.connection.execute(sa.update(table).where(same).values(remedy=canonical_json(dict(remedy))))

    def save_trouble(self, job: Job, trouble: str, failures: int, retry_at: datetime) -> None:
        """A step failed for now; it is tried again at `retry_at`."""
        table = schema.job
        self.connection.execute(
            sa.update(table)
            .where(table.c.proposal_id == job.proposal_id)
            .values(trouble=trouble[:500], failures=failures, retry_at=retry_at)
        )

    def claim_digest(self, team: str, channel: str, local_date: str) -> None:
        """The digest of that date is ours to send; `Conflict` if it was claimed before."""
        try:
            self._insert(
                schema.digest,
                {"team": team, "channel": channel, "local_date": local_date, "created_at": self.now},
            )
        except IntegrityError as error:
            raise Conflict(f"The digest of {local_date} was already sent to {channel}.") from error
