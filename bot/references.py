"""What a person means by "3", "digits-3-ab12", a run's id, "the latest" or "yesterday's best", in their own channel."""

from __future__ import annotations

from collections.abc import Sequence
from zoneinfo import ZoneInfo

from bot.core.errors import NotFound
from bot.core.job import Job, JobPhase
from bot.core.periods import parse_period
from bot.core.proposal import Proposal
from bot.store.store import Store
from tools.desk import Caller
from tools.spec import CATALOGUE

NEWEST = frozenset({"latest", "newest", "last", "it", "this", "this one", "the latest", "the last", "the newest"})
BEST = "best"
LOWER_IS_BETTER = ("loss", "perplexity")


class References:
    def __init__(self, store: Store, zone: ZoneInfo) -> None:
        self._store = store
        self._zone = zone

    async def proposal(self, caller: Caller, reference: str | None) -> Proposal:
        """The proposal meant; without a reference the newest of this thread. `NotFound` says how to list them."""
        word = _word(reference)
        if not word or word in NEWEST:
            found = await self._store.proposals(caller.team, caller.channel)
            here = [proposal for proposal in found if proposal.thread == caller.thread] or found
            if not here:
                raise NotFound("There are no proposals or jobs here yet. Ask for one: train digits for 3 epochs.")
            return here[0]
        if word.isdecimal() and len(word) < 9:
            return await self._store.proposal(caller.team, caller.channel, int(word))
        job = await self._store.job_like(caller.team, caller.channel, word)
        proposal = await self._store.proposal_by_id(job.proposal_id) if job else None
        if proposal is None:
            raise NotFound(f"There is no job or proposal “{(reference or '')[:60]}” here. List them with /jobs.")
        return proposal

    async def job(self, caller: Caller, reference: str | None) -> Job | None:
        """The job meant, or None; without a reference the newest of this thread that exists."""
        if not _word(reference) or _word(reference) in NEWEST:
            return next(iter(await self._jobs(caller)), None)
        try:
            return await self._store.job((await self.proposal(caller, reference)).id)
        except NotFound:
            return None

    async def compared(self, caller: Caller, references: Sequence[str]) -> list[str]:
        """The run ids of what is to be compared; without references the newest two of this thread that ran."""
        if not references:
            return [job.run_id for job in await self._jobs(caller) if job.run_id][:2]
        found: list[str] = []
        for reference in sorted(references, key=lambda one: BEST in one.lower()):  # the best is of the others' recipe
            word = reference.strip().lower()
            best = word.endswith(BEST)
            job = await (self._best(caller, word.removesuffix(BEST), found) if best else self.job(caller, reference))
            run_id = job.run_id if job else other_run(reference)
            if run_id and run_id not in found:
                found.append(run_id)
        return found

    async def _best(self, caller: Caller, when: str, others: Sequence[str]) -> Job | None:
        """The best finished job, or that of a period ("yesterday's"), by its recipe's headline metric."""
        jobs = await self._jobs(caller)
        recipe = next((_recipe(job) for job in jobs if job.run_id in others), _recipe(jobs[0]) if jobs else "")
        alike = [job for job in jobs if job.phase is JobPhase.SUCCEEDED and _recipe(job) == recipe]
        words = when.replace("’", "'").replace("'s", "").removeprefix("the ").strip()
        if words and words not in {"the", "our", "my", "all time"}:
            try:
                period = parse_period(words, await self._store.now(), self._zone)
            except ValueError:
                raise NotFound(f"“{when.strip()} best”: say best, yesterday's best, or last week's best.") from None
            alike = [job for job in alike if job.finished_at and period.start <= job.finished_at < period.end]
        headline = CATALOGUE[recipe].headline if recipe in CATALOGUE else ""
        measured = [job for job in alike if headline in job.metrics and job.run_id not in others]
        if not measured:
            of = f" of {words}" if words else ""
            raise NotFound(f"There is no other finished {recipe or 'training'}{of} to compare with.")
        lower = headline.endswith(LOWER_IS_BETTER)
        return min(measured, key=lambda job: job.metrics[headline] * (1 if lower else -1))

    async def _jobs(self, caller: Caller) -> list[Job]:
        """The channel's jobs, those of this thread first, newest first."""
        jobs = await self._store.jobs(caller.team, caller.channel)
        return sorted(jobs, key=lambda job: job.thread != caller.thread)


def other_run(reference: str | None) -> str | None:
    """A reference that may be a run of MLflow's own; a proposal's number never is."""
    word = (reference or "").strip()
    return None if not word or (word.lstrip("#").isdecimal() and len(word) < 10) else word


def _word(reference: str | None) -> str:
    word = (reference or "").strip().lower()
    return word.removeprefix("proposal").removeprefix("job").strip().lstrip("#")


def _recipe(job: Job) -> str:
    """A job's name begins with its recipe."""
    return job.name.split("-")[0]
