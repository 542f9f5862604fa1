"""The daily digest: what a day cost, what came of it, what waits. A pure value, its text, and the alarm clock.

Truth is the unique row (workspace, channel, date): whoever writes it also writes the outbox row in one transaction, so
that neither a restart nor a second scheduler sends a date twice. The scheduler only looks at the clock often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from bot import wording
from bot.accounts import Spend, spend, spend_of
from bot.approvals.pricing import Pricing, budget_in
from bot.core.errors import Conflict
from bot.core.job import TERMINAL, Job, JobPhase
from bot.core.periods import Period, day, month
from bot.core.policy import Budget
from bot.core.proposal import Proposal
from bot.policies import Policies
from bot.store.spending import Spending, by_channel
from bot.store.store import EndedJob, Store
from bot.store.writing import Writing
from tools.cost import Actual, Estimate, Interval, actual, clip, dollars

CATCH_UP_DAYS = 3  # after downtime, older days are not sent any more
LOOK_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One job that ended in the day."""

    job: Job
    recipe: str
    estimate: Estimate
    actual: Actual


@dataclass(frozen=True, kw_only=True)
class Digest:
    """One local day of a workspace."""

    of: date
    period: Period
    outcomes: tuple[Outcome, ...]
    proposed: int
    waiting: tuple[Proposal, ...]  # for approval, now
    running: tuple[Job, ...]  # or queued, now
    spend: Spend
    month: Spend  # to date
    forecast: Decimal  # of the month, at its pace so far, in dollars
    budget: Budget  # of that month


async def build(store: Store, pricing: Pricing, policies: Policies, team: str, channel: str, of: date) -> Digest:
    """The digest of a workspace's local date, as the rows tell it now, for a channel to read."""
    now = await store.now()
    period = day(of, pricing.zone)
    whole = month(of, pricing.zone)
    ended = await store.ended_jobs(team, period)
    spent = await store.spent(team, whole, now)
    to_date = spend_of(spent, whole)
    money = Spending(spent=by_channel(spent), committed=await store.committed(team, now))
    return Digest(
        of=of,
        period=period,
        outcomes=tuple(_outcome(one, now) for one in ended),
        proposed=await store.count_proposed(team, period),
        waiting=tuple(await store.pending_of_team(team, limit=None)),
        running=tuple(one.job for one in await store.open_jobs() if one.job.team == team),
        spend=await spend(store, team, period, now),
        month=to_date,
        forecast=_forecast(to_date.total.dollars, whole, now),
        budget=budget_in(money, await policies.of(team, channel), channel),
    )


def lines(digest: Digest, zone: ZoneInfo) -> list[str]:
    """The digest as plain text, a line each."""
    found = [f"Digest of {digest.of:%A, %d %B %Y} ({zone.key})", ""]
    counts = {phase: sum(one.job.phase is phase for one in digest.outcomes) for phase in sorted(TERMINAL)}
    tally = ", ".join(f"{count} {phase}" for phase, count in counts.items() if count) or "none ended"
    found.append(f"Jobs: {tally}; {digest.proposed} proposed; {len(digest.running)} running or queued now.")
    if digest.outcomes:
        rows = [_row(one) for one in digest.outcomes]
        found += ["", *wording.table(("job", "asked by", "outcome", "estimate P50", "actual", "time"), rows), ""]
    found += wording.spend_lines(digest.spend, digest.budget)
    found.append(f"{digest.month.period.name} so far: {digest.month.total}; at this pace {dollars(digest.forecast)}.")
    found += [f"{line[:1].upper()}{line[1:]}." for line in (waste(digest.outcomes), coverage(digest.outcomes)) if line]
    for proposal in digest.waiting:
        found.append(
            f"Waits for approval: proposal {proposal.number}, {proposal.offer.spec.recipe} by {proposal.requester}, "
            f"up to {proposal.offer.estimate.ceiling}, expires {wording.moment(proposal.expires_at, zone)}."
        )
    return found


def waste(outcomes: Sequence[Outcome]) -> str:
    """What brought nothing: attempts by why there was another, or how their job ended, and image pulls of the rest."""
    lost: dict[str, Decimal] = {}
    for one in outcomes:
        for held in one.job.intervals:
            part, until = _lost(one.job, held)
            if until is not None:
                lost[part] = lost.get(part, Decimal(0)) + clip(held, held.started_at, until, until).dollars
    parts = [f"{part} {dollars(amount)}" for part, amount in sorted(lost.items()) if amount]
    return f"brought nothing: {dollars(sum(lost.values(), Decimal(0)))} ({', '.join(parts)})" if parts else ""


def _lost(job: Job, held: Interval) -> tuple[str, datetime | None]:
    """Which part of the loss an attempt belongs to, and until when it brought nothing."""
    succeeded = job.phase is JobPhase.SUCCEEDED
    last = max(one.started_at for one in job.intervals)
    if succeeded and (held.ended_at is None or held.ended_at > last):
        return "image pull", held.began_at
    if held.preempted:
        return "preempted", held.ended_at
    return "attempts that were repeated" if succeeded else job.phase.value, held.ended_at


def coverage(outcomes: Sequence[Outcome]) -> str:
    """How often the P90 held, of the jobs that succeeded and had one."""
    known = [
        (one.actual.seconds, one.estimate.p90_seconds)
        for one in outcomes
        if one.job.phase is JobPhase.SUCCEEDED and one.estimate.p90_seconds is not None
    ]
    return f"estimates: {sum(took <= p90 for took, p90 in known)} of {len(known)} within their P90" if known else ""


def _outcome(one: EndedJob, now: datetime) -> Outcome:
    return Outcome(job=one.job, recipe=one.recipe, estimate=one.estimate, actual=actual(one.job.intervals, now))


def _row(one: Outcome) -> tuple[str, ...]:
    expected = str(one.estimate.p50) if one.estimate.p50 else f"≤ {one.estimate.ceiling}"
    time = wording.duration(one.actual.seconds)
    return (one.job.name, one.job.requester, one.job.phase.value, expected, str(one.actual.amount), time)


def _forecast(spent: Decimal, whole: Period, now: datetime) -> Decimal:
    gone = (min(max(now, whole.start), whole.end) - whole.start) / (whole.end - whole.start)
    return spent / Decimal(gone) if gone > 0 else spent


class DigestClock:
    """Sends yesterday's digest once local time has passed the hour. APScheduler is only the alarm clock."""

    def __init__(self, store: Store, team: str, channel: str, zone: ZoneInfo, hour: int) -> None:
        self._store = store
        self._team = team
        self._channel = channel
        self._zone = zone
        self._hour = hour
        self._scheduler: Any = None

    async def look(self) -> list[date]:
        """Claim every date that is due and was not claimed; answers those."""
        now = (await self._store.now()).astimezone(self._zone)
        newest = now.date() - timedelta(days=1 if now.hour >= self._hour else 2)
        first = await self._store.first_day(self._team, self._zone)
        claimed = []
        for back in range(CATCH_UP_DAYS - 1, -1, -1):
            of = newest - timedelta(days=back)
            if first is not None and of >= first and await self._claim(of):
                claimed.append(of)
        return claimed

    async def _claim(self, of: date) -> bool:
        def commit(writing: Writing) -> None:
            writing.claim_digest(self._team, self._channel, of.isoformat())
            writing.tell(self._team, self._channel, "digest", of.isoformat(), "signalbox")

        try:
            await self._store.write(commit)
        except Conflict:
            return False
        return True

    def start(self) -> None:
        """Look now and every half minute."""
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        self._scheduler = AsyncIOScheduler(timezone=self._zone)
        self._scheduler.add_job(
            self.look,
            "interval",
            seconds=LOOK_SECONDS,
            next_run_time=datetime.now(self._zone),
            max_instances=1,
            coalesce=True,
        )
        self._scheduler.start()

    def stop(self) -> None:
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)
