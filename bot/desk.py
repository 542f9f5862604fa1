"""The desk: what the agent's tools may ask of Signalbox, answered in text that is rendered from rows.

Implements `tools.toolkit.Desk`. It can propose, never decide: `bot.approvals.deciding` is out of its reach by an import
contract. Refusals come out as `DeskError`, a sentence that the person reads as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from bot import wording
from bot.accounts import spend
from bot.approvals.pricing import Pricing
from bot.approvals.proposing import Asked, Proposing
from bot.cards import Card, Cards
from bot.core.canonical import canonical_json
from bot.core.errors import NotFound, SignalboxError
from bot.core.job import OPEN
from bot.core.periods import parse_period
from bot.core.policy import Budget
from bot.core.proposal import ProposalState
from bot.curves import Curves
from bot.policies import Policies
from bot.references import References, other_run
from bot.store.store import Store
from tools.desk import Caller, DeskError
from tools.engines.base import Engine, EngineRefused, EngineUnavailable
from tools.spec import TrainingSpec
from tools.tracking import Comparison, RunSummary, Tracking, TrackingError, compared

LOG_LINES = 8
LIST_LIMIT = 20


class Desk:
    def __init__(
        self,
        *,
        store: Store,
        cards: Cards,
        pricing: Pricing,
        policies: Policies,
        proposing: Proposing,
        engine: Engine,
        tracking: Tracking,
        curves: Curves,
    ) -> None:
        self._store = store
        self._references = References(store, pricing.zone)
        self._cards = cards
        self._pricing = pricing
        self._policies = policies
        self._proposing = proposing
        self._engine = engine
        self._tracking = tracking
        self._curves = curves

    async def propose(self, caller: Caller, spec: TrainingSpec) -> str:
        """A proposal; the same spec twice in one turn is one proposal."""
        text = canonical_json(spec.canonical())
        if text not in caller.proposed:
            caller.proposed.append(text)
        asked = Asked(
            team=caller.team,
            channel=caller.channel,
            thread=caller.thread,
            requester=caller.user,
            prompt=caller.prompt,
            event_id=caller.event_id,
            ordinal=caller.proposed.index(text),
        )
        async with _spoken():
            proposal = await self._proposing.propose(asked, spec)
            card = await self._cards.card(proposal.id)
        return (
            f"Proposal {proposal.number}: {spec.recipe} ({wording.parameters(proposal.offer.spec)}). "
            f"It costs {wording.ceiling(proposal.offer)}. Nothing has started: it {wording.standing(card)}."
        )

    async def estimate(self, caller: Caller, spec: TrainingSpec) -> str:
        async with _spoken():
            now = await self._store.now()
            offer = await self._pricing.offer(spec, now)
            budget = await self._budget(caller)
        return "\n".join(
            (
                f"{spec.recipe} ({wording.parameters(spec)}) on {wording.resources(offer.resources)}.",
                "Nothing was proposed.",
                f"Estimate: {wording.estimate(offer.estimate)}.",
                f"Ceiling: {wording.ceiling(offer)}.",
                f"Budget: {wording.budget(budget)}.",
            )
        )

    async def experiments(self, caller: Caller, name: str | None) -> str:
        async with _spoken():
            if name:
                runs = await self._tracking.search(name, LIST_LIMIT)
                return "\n".join([f"Experiment {name}:", *_runs_table(runs)]) if runs else f"No runs in {name} yet."
            found = await self._tracking.experiments()
        if not found:
            return "MLflow has no experiments yet; the first approved training makes one."
        rows = [(one.name, str(one.runs), one.newest or "") for one in found]
        return "\n".join(["MLflow experiments:", *wording.table(("experiment", "runs", "newest run"), rows)])

    async def metrics(self, caller: Caller, reference: str | None) -> str:
        async with _spoken():
            run = await self._run(caller, reference)
            if run is None:
                job = await self._references.job(caller, reference)
                if job is None:
                    raise NotFound(f"There is no run or job {reference or 'here'} yet. List them with /jobs.")
                return f"{job.name} has no MLflow run yet: it is {job.phase}. {job.reason}".strip()
            lines = [f"Run {run.run_id} ({run.name}): {run.status.lower()}."]
            lines += [wording.metrics(run.metrics)] if run.metrics else ["No metrics yet."]
            lines += _epoch_table(run)
            curve = await self._curves.of_run(run)
        return "\n".join(lines + ([f"Learning curve: {_shown(curve)}"] if curve else []))

    async def compare(self, caller: Caller, references: Sequence[str]) -> str:
        async with _spoken():
            run_ids = await self._references.compared(caller, references)
            runs = [run for run in [await self._tracking.run(one) for one in run_ids] if run is not None]
            if len(runs) < 2:
                raise NotFound("It takes two trainings that have run; name them, such as: compare 1 and 2.")
            rows = _comparison(compared(runs))
            curve = await self._curves.of_comparison(runs)
        lines = wording.table(("", *[run.name for run in runs]), rows)
        return "\n".join(lines + ([f"Curves: {_shown(curve)}"] if curve else []))

    async def status(self, caller: Caller, reference: str | None) -> str:
        async with _spoken():
            card = await self._card(caller, reference)
            lines = [f"{_title(card)}: {wording.standing(card)}"]
            if card.job is not None:
                tail = await self._engine.logs(card.job.name, LOG_LINES)
                lines += ["Log:", *[f"  {line}" for line in tail]] if tail else []
        return "\n".join(lines)

    async def cost(self, caller: Caller, reference: str | None) -> str:
        async with _spoken():
            card = await self._card(caller, reference)
        if card.actual is None:
            limit = wording.ceiling(card.proposal.offer)
            return f"{_title(card)} has cost nothing yet: {wording.standing(card)}. It costs {limit}."
        held = wording.resources(card.proposal.offer.resources)
        return f"{_title(card)} on {held}: {wording.against(card.proposal.offer, card.actual)}."

    async def jobs(self, caller: Caller, phase: str | None) -> str:
        async with _spoken():
            proposals = await self._store.proposals(caller.team, caller.channel, limit=LIST_LIMIT)
            cards = [await self._cards.card(proposal.id) for proposal in proposals]
        wanted = (phase or "").strip().lower()
        shown = [card for card in cards if not wanted or wanted in (_phase(card), card.proposal.state.value)]
        if not shown:
            return f"Nothing is {wanted}." if wanted else "There are no proposals or jobs here yet."
        rows = [
            (
                str(card.proposal.number),
                card.proposal.offer.spec.recipe,
                card.proposal.requester,
                wording.standing(card),
            )
            for card in shown
        ]
        return "\n".join(wording.table(("#", "recipe", "asked by", "state"), rows))

    async def ask_to_cancel(self, caller: Caller, reference: str) -> str:
        async with _spoken():
            card = await self._card(caller, reference)
        number = card.proposal.number
        if card.job is not None and card.job.open:
            return f"Cancelling takes a person's hand: type /cancel {number} to end {card.job.name}."
        if card.proposal.state is ProposalState.PENDING:
            return f"Proposal {number} has not started. Its requester takes it back with /withdraw {number}."
        return f"{_title(card)} cannot be cancelled: {wording.standing(card)}."

    async def spend(self, caller: Caller, period: str) -> str:
        async with _spoken():
            now = await self._store.now()
            try:
                window = parse_period(period, now, self._pricing.zone)
            except ValueError:
                raise NotFound(
                    f"“{period[:40]}” is no period; say today, yesterday, week, month, last month, "
                    "a date such as 2026-11-23, or a month such as 2026-11."
                ) from None
            found = await spend(self._store, caller.team, window, now)
            return "\n".join(wording.spend_lines(found, await self._budget(caller)))

    async def situation(self, caller: Caller) -> str:
        """What is open in this channel, for the model's prompt: rendered from rows at every turn."""
        proposals = await self._store.proposals(caller.team, caller.channel, limit=LIST_LIMIT)
        cards = [await self._cards.card(proposal.id) for proposal in proposals[:LIST_LIMIT]]
        recent = (await self._store.now()) - timedelta(days=2)
        live = [card for card in cards if _phase(card) in _LIVE or card.proposal.created_at > recent]
        return "\n".join(f"{_title(card)}: {wording.standing(card)}" for card in live) or "Nothing is open."

    async def _budget(self, caller: Caller) -> Budget:
        policy = await self._policies.of(caller.team, caller.channel)
        return await self._pricing.budget(policy, caller.team, caller.channel, await self._store.now())

    async def _card(self, caller: Caller, reference: str | None) -> Card:
        return await self._cards.card((await self._references.proposal(caller, reference)).id)

    async def _run(self, caller: Caller, reference: str | None) -> RunSummary | None:
        """The run of a job, or any other run in MLflow whose id begins so."""
        job = await self._references.job(caller, reference)
        run_id = job.run_id if job else other_run(reference)
        return await self._tracking.run(run_id) if run_id else None


_LIVE = {ProposalState.PENDING.value, *[phase.value for phase in OPEN]}


def _phase(card: Card) -> str:
    return (card.job.phase if card.job else card.proposal.state).value


def _title(card: Card) -> str:
    recipe = card.proposal.offer.spec.recipe
    return f"Job {card.job.name}" if card.job else f"Proposal {card.proposal.number} ({recipe})"


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _epoch_table(run: RunSummary) -> list[str]:
    if not run.epochs:
        return []
    names = [name for name in run.epochs[-1] if name != "epoch"]
    rows = [
        [f"{row['epoch']:.0f}", *[f"{row[name]:.4g}" if name in row else "" for name in names]] for row in run.epochs
    ]
    return wording.table(("epoch", *names), rows)


def _runs_table(runs: Sequence[RunSummary]) -> list[str]:
    rows = [(run.name, run.run_id[:8], run.status.lower(), wording.metrics(run.metrics)[:80]) for run in runs]
    return wording.table(("name", "run", "status", "metrics"), rows)


def _comparison(found: Comparison) -> list[list[str]]:
    """One row for each parameter that differs and each metric that any run has."""
    rows = [["status", *[run.status.lower() for run in found.runs]]]
    rows += [[name, *[given or "" for given in values]] for name, values in found.params.items()]
    rows += [
        [name, *["" if value is None else f"{value:.4g}" for value in values]] for name, values in found.metrics.items()
    ]
    return rows


@asynccontextmanager
async def _spoken() -> AsyncIterator[None]:
    """Our errors, and those of the engine and MLflow, as the sentence that the person reads."""
    try:
        yield
    except (SignalboxError, EngineRefused, EngineUnavailable, TrackingError) as error:
        raise DeskError(str(error)) from error
