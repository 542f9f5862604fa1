"""The store's reading side: typed queries, and the door to `Writing`, which alone changes anything.

Reads for people take team and channel, so that nobody reads across them; reads by id are for our own rows.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TypeVar
from zoneinfo import ZoneInfo

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from bot.core import job as jobs
from bot.core.errors import Conflict
from bot.core.job import Job, JobPhase
from bot.core.periods import Period
from bot.core.proposal import Offer, Proposal, ProposalState
from bot.store import records, schema, spending
from bot.store.commit import Commit
from bot.store.database import Database
from bot.store.history import past_runs
from bot.store.reading import (
    BY_ID,
    IN_LINE,
    JOBS,
    PROPOSALS,
    QUEUED,
    OpenJob,
    ahead_of,
    jobs_of,
    proposal_here,
    read_jobs,
    read_proposals,
)
from bot.store.spending import Spending, Spent
from bot.store.writing import Notice, Writing, nobodys
from tools.cost import Estimate, Interval, PastRun
from tools.desk import Caller
from tools.progress import Progress

RERUNS = 10  # of one use case after lost races, before the person is asked to try again

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Message:
    """One thing that a person said to the agent, recorded before it was answered."""

    team: str
    event_id: str
    channel: str
    thread: str
    user: str
    text: str

    def caller(self) -> Caller:
        """Who speaks, and where, for the agent that answers it."""
        return Caller(
            team=self.team,
            channel=self.channel,
            thread=self.thread,
            user=self.user,
            event_id=self.event_id,
            prompt=self.text,
        )


@dataclass(frozen=True, kw_only=True)
class Expiring:
    """A pending proposal, whose time will be over."""

    id: str
    revision: int
    team: str
    channel: str
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One interval and whom it is charged to."""

    team: str
    channel: str
    number: int  # of the proposal
    requester: str
    recipe: str
    job: str
    phase: JobPhase
    interval: Interval


CLOCK = sa.select(sa.func.clock_timestamp())  # PostgreSQL's


@dataclass(frozen=True, kw_only=True)
class EndedJob:
    """A job that is over, and what was approved of it."""

    job: Job
    recipe: str
    estimate: Estimate


class Store:
    """`clock` replaces the database's own clock in tests that need to be at another time."""

    def __init__(self, database: Database, clock: Callable[[], datetime] | None = None) -> None:
        self.database = database
        self._clock = clock
        self._holder = uuid.uuid4().hex  # this process, in the leases of messages

    async def now(self) -> datetime:
        """The database's clock, which alone decides what has expired."""
        if self._clock is not None or self.database.sqlite:
            return self._here()
        return await self.database.read(self._now)

    async def write(self, act: Callable[[Writing], T]) -> T:
        """One transaction: all that `act` does is committed when this returns, or nothing if it raises."""

        def unit(commit: Commit) -> T:
            writing = Writing(commit, self._now(commit.connection))
            result = act(writing)
            writing.seal()
            return result

        return await self.database.write(unit)

    def _now(self, connection: sa.Connection) -> datetime:
        if self._clock is not None or self.database.sqlite:
            return self._here()
        moment: datetime = connection.execute(CLOCK).scalar_one()
        return moment.astimezone(UTC)

    def _here(self) -> datetime:
        """SQLite has no clock but this machine's."""
        return self._clock().astimezone(UTC) if self._clock is not None else datetime.now(UTC)

    async def rerun(self, use_case: Callable[[], Awaitable[T]]) -> T:
        """Run a load-verb-commit again from fresh rows while it loses races; its verb must be pure."""
        for attempt in range(RERUNS):
            try:
                return await use_case()
            except Conflict:
                if attempt == RERUNS - 1:
                    raise
        raise AssertionError("unreachable")

    # -- proposals --------------------------------------------------------------------------------------------

    async def proposal(self, team: str, channel: str, number: int) -> Proposal:
        """The proposal of that number in that channel, or `NotFound`."""
        return await self.database.read(lambda connection: proposal_here(connection, team, channel, number))

    async def proposal_by_id(self, proposal_id: str) -> Proposal | None:
        """Our own row, whichever channel it is of."""
        found = await self.database.read(lambda connection: read_proposals(connection, BY_ID, {"is_id": proposal_id}))
        return found[0] if found else None

    async def proposals(
        self, team: str, channel: str, *, states: Collection[ProposalState] | None = None, limit: int = 50
    ) -> list[Proposal]:
        """The newest proposals of a channel, newest first."""
        where = [schema.proposal.c.team == team, schema.proposal.c.channel == channel]
        if states is not None:
            where.append(schema.proposal.c.state.in_([state.value for state in states]))
        return await self._proposals(*where, limit=limit)

    async def every_proposal(self) -> list[Proposal]:
        """All of them."""
        return await self._proposals(sa.true(), limit=None)

    async def first_day(self, team: str, zone: ZoneInfo) -> date | None:
        """The local date of a workspace's first proposal; there is nothing to tell of the days before."""
        query = sa.select(sa.func.min(schema.proposal.c.created_at)).where(schema.proposal.c.team == team)
        first: datetime | None = await self.database.read(lambda connection: connection.scalar(query))
        return first.astimezone(zone).date() if first else None

    async def overdue(self) -> list[Proposal]:
        """Pending proposals whose time is over by the database's clock."""
        now = await self.now()
        return await self._proposals(
            schema.proposal.c.state == ProposalState.PENDING.value, schema.proposal.c.expires_at <= now, limit=100
        )

    async def count_proposed(self, team: str, period: Period) -> int:
        """How many proposals were made in a period."""
        table = schema.proposal
        made = (table.c.created_at >= period.start) & (table.c.created_at < period.end)
        query = sa.select(sa.func.count()).where(schema.of_team(team), made)
        counted: int = await self.database.read(lambda connection: connection.execute(query).scalar_one())
        return counted

    async def count_pending(self, team: str, *, requester: str | None = None, channel: str | None = None) -> int:
        """How many proposals of a person, or of a channel, wait for a decision."""
        table = schema.proposal
        query = sa.select(sa.func.count()).where(table.c.team == team, table.c.state == ProposalState.PENDING.value)
        if requester is not None:
            query = query.where(table.c.requester == requester)
        if channel is not None:
            query = query.where(table.c.channel == channel)
        counted: int = await self.database.read(lambda connection: connection.execute(query).scalar_one())
        return counted

    async def revisions(self, proposal_id: str) -> list[Offer]:
        """Every revision's offer, oldest first."""
        table = schema.revision
        query = sa.select(table).where(table.c.proposal_id == proposal_id).order_by(table.c.revision)
        rows = await self.database.read(lambda connection: connection.execute(query).all())
        return [Offer.from_document(json.loads(row.offer), json.loads(row.estimate)) for row in rows]

    async def _proposals(self, *where: sa.ColumnElement[bool], limit: int | None) -> list[Proposal]:
        query = PROPOSALS.where(*where).limit(limit)
        return await self.database.read(lambda connection: read_proposals(connection, query))

    # -- jobs -------------------------------------------------------------------------------------------------

    async def job(self, proposal_id: str) -> Job | None:
        found = await self._jobs(schema.job.c.proposal_id == proposal_id, limit=1)
        return found[0].job if found else None

    async def job_detail(self, proposal_id: str) -> OpenJob | None:
        """The job with its trouble, if there is any."""
        found = await self._jobs(schema.job.c.proposal_id == proposal_id, limit=1)
        return found[0] if found else None

    async def job_like(self, team: str, channel: str, reference: str) -> Job | None:
        """The newest job of a channel whose name, or MLflow run id, begins so."""
        prefix = reference.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        found = await self._jobs(
            schema.proposal.c.team == team,
            schema.proposal.c.channel == channel,
            schema.job.c.name.like(prefix, escape="\\") | schema.job.c.run_id.like(prefix, escape="\\"),
            limit=1,
        )
        return found[0].job if found else None

    async def jobs(self, team: str, channel: str | None = None, *, limit: int = 50) -> list[Job]:
        """The newest jobs of a channel (of the whole workspace where it is None), newest first."""
        where = [schema.proposal.c.team == team]
        if channel is not None:
            where.append(schema.proposal.c.channel == channel)
        return [found.job for found in await self._jobs(*where, limit=limit)]

    async def ended_jobs(self, team: str, period: Period) -> list[EndedJob]:
        """A workspace's jobs that ended in a period, newest first, each with what was approved of it."""
        job, revision = schema.job.c, schema.revision.c
        ended = (schema.of_team(team), job.finished_at >= period.start, job.finished_at < period.end)
        approved = (revision.proposal_id == job.proposal_id) & (revision.revision == job.revision)
        query = JOBS.where(*ended).order_by(job.finished_at.desc()).join(schema.revision, approved)
        query = query.add_columns(revision.recipe, revision.estimate)

        def look(connection: sa.Connection) -> list[EndedJob]:
            rows = connection.execute(query).all()
            return [
                EndedJob(job=one.job, recipe=row.recipe, estimate=records.estimate_from(row.estimate))
                for one, row in zip(jobs_of(connection, rows), rows, strict=True)
            ]

        return await self.database.read(look)

    async def open_jobs(self) -> list[OpenJob]:
        """Every open job, the longest approved first."""
        phases = [phase.value for phase in jobs.OPEN]
        found = await self._jobs(schema.job.c.phase.in_(phases), limit=None)
        return sorted(found, key=lambda one: one.job.approved_at)

    async def held_jobs(self) -> list[OpenJob]:
        """The open jobs that are beyond the queue, the longest approved first."""
        beyond = [phase.value for phase in jobs.PERMITTED]
        query = JOBS.where(schema.job.c.phase.in_(beyond)).order_by(schema.job.c.approved_at)
        return await self.database.read(lambda connection: read_jobs(connection, query))

    async def queued_jobs(self, *, first: int | None, now: datetime) -> list[OpenJob]:
        """The `first` jobs in line (None: all queued), and those whose place ends: cancelled, or too old."""
        table = schema.job.c
        order = (table.approved_at, table.proposal_id)
        query = JOBS.where(QUEUED).order_by(*order)
        if first is not None:
            head = sa.select(table.proposal_id).where(IN_LINE).order_by(*order).limit(first)
            ends = table.cancel_by.is_not(None) | (table.start_before <= now)
            query = query.where(table.proposal_id.in_(head) | ends)
        return await self.database.read(lambda connection: read_jobs(connection, query))

    async def count_queued(self) -> int:
        """How many jobs are queued."""
        query = sa.select(sa.func.count()).select_from(schema.job).where(QUEUED)
        found: int = await self.database.read(lambda connection: connection.scalar(query) or 0)
        return found

    async def ahead_of(self, job: Job) -> int:
        """How many jobs stand in line before that one."""
        return await self.database.read(lambda connection: ahead_of(connection, job))

    async def _jobs(self, *where: sa.ColumnElement[bool], limit: int | None) -> list[OpenJob]:
        query = JOBS.where(*where).order_by(schema.proposal.c.number.desc()).limit(limit)
        return await self.database.read(lambda connection: read_jobs(connection, query))

    async def progress(self, proposal_id: str) -> Progress:
        """What the trainer said last."""
        query = sa.select(schema.job.c.progress).where(schema.job.c.proposal_id == proposal_id)
        said: str | None = await self.database.read(lambda connection: connection.scalar(query))
        return records.progress_from(said or "{}")

    # -- surfaces ---------------------------------------------------------------------------------------------

    async def card_message(self, proposal_id: str) -> str | None:
        """Where the card of a proposal was posted."""
        table = schema.card
        query = sa.select(table.c.message).where(table.c.proposal_id == proposal_id)
        found: str | None = await self.database.read(lambda connection: connection.scalar(query))
        return found

    async def takes_part(self, team: str, channel: str, thread: str) -> bool:
        """Whether somebody has spoken to the bot in that thread before."""
        table = schema.inbox
        query = sa.select(sa.true()).where(table.c.team == team, table.c.channel == channel, table.c.thread == thread)
        return await self.database.read(lambda connection: connection.scalar(query.limit(1))) is not None

    async def expiring(self) -> list[Expiring]:
        """Every pending proposal, as far as reminders need it: there may be many, and this is asked again and again."""
        table, names = schema.proposal.c, list(Expiring.__dataclass_fields__)
        query = sa.select(*(table[name] for name in names)).where(table.state == ProposalState.PENDING.value)
        rows = await self.database.read(lambda connection: connection.execute(query).all())
        return [Expiring(**dict(zip(names, row, strict=True))) for row in rows]

    async def pending_of_team(self, team: str, *, limit: int | None = 50) -> list[Proposal]:
        """A workspace's pending proposals, newest first; who may see one is the caller's to say."""
        pending = schema.proposal.c.state == ProposalState.PENDING.value
        return await self._proposals(schema.of_team(team), pending, limit=limit)

    # -- money ------------------------------------------------------------------------------------------------

    async def spent(self, team: str, period: Period, now: datetime) -> list[Spent]:
        """What a period cost, by person, recipe and resources; what still runs is charged up to `now`."""
        return await self.database.read(lambda connection: spending.by_whom(connection, team, period, now))

    async def committed(self, team: str, now: datetime) -> Mapping[str, Decimal]:
        """What the open jobs may still cost, by channel, in dollars."""
        return await self.database.read(lambda connection: spending.committed(connection, team, now))

    async def charges(self, start: datetime, end: datetime) -> list[Charge]:
        """Every interval of every workspace that touches the window [start, end), oldest first: the ledger's lines."""
        proposal, held, job, revision = schema.proposal.c, schema.pod_interval.c, schema.job.c, schema.revision.c
        query = (
            sa.select(schema.pod_interval, job.name, job.phase, revision.recipe)
            .add_columns(*(proposal[name] for name in ("number", "team", "channel", "requester")))
            .join_from(schema.pod_interval, schema.job, job.proposal_id == held.proposal_id)
            .join(schema.proposal, proposal.id == job.proposal_id)
            .join(schema.revision, (revision.proposal_id == job.proposal_id) & (revision.revision == job.revision))
            .where(held.started_at < end, held.ended_at.is_(None) | (held.ended_at > start))
            .order_by(held.started_at, job.name, held.attempt)
        )
        rows = await self.database.read(lambda connection: connection.execute(query).all())
        names = ("team", "channel", "number", "requester", "recipe")
        return [
            Charge(
                **{name: getattr(row, name) for name in names},
                job=row.name,
                phase=JobPhase(row.phase),
                interval=records.interval_from(row),
            )
            for row in rows
        ]

    async def spending(self, team: str, month: Period, now: datetime, *, apart_from: str | None = None) -> Spending:
        """What the month has cost and what the open jobs may still cost; `apart_from` leaves one proposal out."""
        return await self.database.read(lambda connection: spending.look(connection, team, month, now, apart_from))

    async def history(self) -> list[PastRun]:
        """What succeeded, for estimates."""
        return await self.database.read(past_runs)

    # -- inbox and outbox -------------------------------------------------------------------------------------

    async def receive(self, message: Message) -> bool:
        """Record what a person said, for us to answer, before it is acknowledged. False: it was here already."""
        try:
            await self.write(lambda writing: writing.receive(asdict(message), self._holder))
        except IntegrityError:
            return False
        return True

    async def answered(self, team: str, event_id: str) -> None:
        """The person has their answer."""
        await self.write(lambda writing: writing.answered(team, event_id))

    async def unanswered(self, team: str) -> list[Message]:
        """What was recorded and never answered, oldest first."""
        return await self._messages(team, schema.inbox.c.answered_at.is_(None))

    async def take_up(self, team: str, *, apart_from: Collection[Message] = ()) -> list[Message]:
        """What is not answered and held by nobody, oldest first: from now on by us."""
        found = [one for one in await self._messages(team, nobodys(await self.now())) if one not in apart_from]
        if not found:
            return []

        def claim(writing: Writing) -> list[Message]:
            return [one for one in found if writing.claim_message(team, one.event_id, self._holder)]

        return await self.write(claim)

    async def renew(self, message: Message) -> bool:
        """Hold it on. False: it is not ours any more."""
        return await self.write(lambda writing: writing.renew(message.team, message.event_id, self._holder))

    async def release_messages(self) -> None:
        """Hold none any more."""
        await self.write(lambda writing: writing.release_messages(self._holder))

    async def _messages(self, team: str, *where: sa.ColumnElement[bool]) -> list[Message]:
        table = schema.inbox
        query = sa.select(table).where(table.c.team == team, *where).order_by(table.c.received_at)
        rows = await self.database.read(lambda connection: connection.execute(query).all())
        names = Message.__dataclass_fields__
        return [Message(**{name: getattr(row, name) for name in names}) for row in rows]

    async def undelivered(
        self, teams: Collection[str], *, due: bool = True, only: str | None = None, other_than: str | None = None
    ) -> list[Notice]:
        """What people have not seen yet, of one kind or others, oldest first; with `due`, what may be tried now."""
        table = schema.outbox
        query = sa.select(table).where(
            table.c.delivered_at.is_(None), table.c.set_aside_at.is_(None), table.c.team.in_(list(teams))
        )
        if only is not None:
            query = query.where(table.c.kind == only)
        if other_than is not None:
            query = query.where(table.c.kind != other_than)
        if due:
            now = await self.now()
            query = query.where(table.c.retry_at.is_(None) | (table.c.retry_at <= now))
        oldest = query.order_by(table.c.id).limit(200)
        rows = await self.database.read(lambda connection: connection.execute(oldest).all())
        return [
            Notice(
                id=row.id,
                team=row.team,
                channel=row.channel,
                kind=row.kind,
                subject=row.subject,
                actor=row.actor,
                created_at=row.created_at,
                failures=row.failures,
            )
            for row in rows
        ]
