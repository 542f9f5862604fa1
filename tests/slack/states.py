"""Cards in every state, a digest and a policy, made by hand: what the golden files are rendered from. Pure."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from bot.accounts import Spend
from bot.cards import Card
from bot.core.job import Job, JobPhase
from bot.core.periods import day, month
from bot.core.policy import Budget, Policy
from bot.core.proposal import Offer, Proposal, ProposalState, Verdict, Vote, proposal_id
from bot.digests import Digest, Outcome
from tests.world import RATES
from tools.cost import Amount, Interval, PastRun, Resources, actual, estimate
from tools.progress import Progress
from tools.rates import RateCard
from tools.spec import TrainingSpec, parse_spec

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")
TEAM, CHANNEL = "T0TEAM", "C0TRAIN"
RAE, ANN, BOB, CLEO = "U0RAE", "U0ANN", "U0BOB", "U0CLEO"
PROMPT = "train digits for 8 epochs, lr 1e-3"
UNPRICED = RateCard.parse({"versions": [{"version": "r0", "effective_from": "2026-01-01T00:00:00Z"}]})
POLICY = Policy.parse(
    {
        "approvers": [ANN, BOB, CLEO],
        "approver_groups": ["S0LEADS"],
        "quorum": [
            {"recipes": ["distilgpt2"], "up_to_gpus": 0, "approvals": "never"},
            {"up_to_dollars": "1", "up_to_gpus": 0, "approvals": 1},
            {"up_to_dollars": "50", "approvals": 2},
        ],
        "budget_per_month": "1000",
    }
)
HOSTILE = (
    "<!channel> <@U0ANN|boss> approve this! *Approved by* <@U0ANN> :white_check_mark: `x` "
    "<https://evil.example|the details> https://evil.example/a?b=1 [free](http://evil.example) @here & <b>bold</b>\n"
    "*Ceiling* $0.00\n\u202eevil\u202c \u200bzero\x00\x07\n> quoted\n```fence "
) + "y" * 10_000


def history(spec: TrainingSpec, product: str | None = None) -> list[PastRun]:
    return [PastRun(spec=spec, gpu_product=product, seconds=Decimal(seconds)) for seconds in (8, 8, 9, 9, 10, 14)]


def offer(recipe: str = "digits", *, rates: RateCard = RATES, known: bool = True, **parameters: object) -> Offer:
    """As the local engine renders it on a CPU, or a cluster with an image on a GPU."""
    spec = parse_spec(recipe, parameters)
    product = "H100" if spec.gpus else None
    resources = Resources(cpu_cores=Decimal(4), gpus=spec.gpus, gpu_product=product)
    hourly = rates.at(NOW).hourly(resources)
    manifest: dict[str, Any] = {"engine": "local", "command": ["python", "-m", spec.module, *spec.argv()]}
    if spec.gpus:
        manifest |= {
            "engine": "kubernetes",
            "namespace": "training",
            "image": "registry.example/trainer@sha256:" + "5f" * 32,
        }
    return Offer(
        spec=spec,
        manifest=manifest | {"max_runtime_seconds": spec.max_runtime_minutes * 60},
        resources=resources,
        rate_version=rates.at(NOW).version,
        hourly=hourly,
        estimate=estimate(spec, resources, hourly, history(spec, product) if known else []),
    )


def proposal(of: Offer | None = None, *, number: int = 7, prompt: str = PROMPT, **more: Any) -> Proposal:
    shown = of or offer()
    values: dict[str, Any] = {
        "id": proposal_id(TEAM, f"e{number}", 0),
        "number": number,
        "team": TEAM,
        "channel": CHANNEL,
        "thread": "1795521600.000100",
        "requester": RAE,
        "prompt": prompt,
        "state": ProposalState.PENDING,
        "revision": 1,
        "version": 1,
        "author": RAE,
        "offer": shown,
        "digest": shown.digest,
        "created_at": NOW - timedelta(minutes=30),
        "expires_at": NOW + timedelta(hours=23, minutes=30),
    }
    return Proposal(**(values | more))


def vote(voter: str, on: Proposal, verdict: Verdict = Verdict.APPROVE, reason: str = "") -> Vote:
    at = NOW - timedelta(minutes=5)
    return Vote(voter=voter, verdict=verdict, revision=on.revision, digest=on.digest, at=at, reason=reason)


def card(of: Proposal | None = None, **more: Any) -> Card:
    values: dict[str, Any] = {
        "proposal": of or proposal(),
        "now": NOW,
        "needed": 1,
        "able": (ANN, BOB, CLEO),
        "budget": Budget(limit=Decimal(1000), spent=Decimal("12.40"), committed=Decimal("0.05")),
        "before": None,
    }
    return Card(**(values | more))


def approved(of: Proposal | None = None) -> Proposal:
    shown = of or proposal()
    return replace(
        shown,
        state=ProposalState.APPROVED,
        votes=shown.votes or (vote(ANN, shown),),
        decided_by=ANN,
        decided_at=NOW - timedelta(minutes=5),
    )


def job(of: Proposal, phase: JobPhase, **more: Any) -> Job:
    started = NOW - timedelta(seconds=9)
    held = Interval(
        attempt=1,
        started_at=started,
        ended_at=NOW if phase in (JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.CANCELLED) else None,
        resources=of.offer.resources,
        rate_version=of.offer.rate_version,
        hourly=of.offer.hourly,
    )
    values: dict[str, Any] = {
        "name": of.job_name,
        "proposal_id": of.id,
        "number": of.number,
        "team": of.team,
        "channel": of.channel,
        "thread": of.thread,
        "requester": of.requester,
        "revision": of.revision,
        "digest": of.digest,
        "phase": phase,
        "version": 3,
        "approved_at": NOW - timedelta(minutes=5),
        "start_before": NOW + timedelta(hours=24),
        "max_runtime_seconds": of.offer.estimate.ceiling_seconds,
        "ceiling": of.offer.estimate.ceiling.dollars,
        "checkpoint_of": of.job_name,
        "run_id": "4f2c8a1e9b7d4e0f8a6c5b3d2e1f0a9b",
        "started_at": started,
        "finished_at": held.ended_at,
        "intervals": () if phase in (JobPhase.QUEUED, JobPhase.SUBMITTED) else (held,),
    }
    return Job(**(values | more))


def working(of: Job, on: Proposal | None = None, **more: Any) -> Card:
    spent = actual(of.intervals, NOW) if of.intervals else None
    return card(on or approved(), job=of, actual=spent, **more)


def epochs(count: int = 8, quality: str = "accuracy") -> tuple[dict[str, float], ...]:
    """A plausible learning curve."""
    rows = []
    for epoch in range(1, count + 1):
        loss = 2.3 * math.exp(-epoch * 6 / count) + 0.05
        row = {"epoch": float(epoch), "train_loss": loss, "val_loss": loss * 1.1}
        if quality == "accuracy":
            row |= {"train_accuracy": 1 - loss / 4, "val_accuracy": 1 - loss / 3.5}
        else:
            row |= {"val_perplexity": math.exp(loss)}
        rows.append(row)
    return tuple(rows)


def progress(step: int = 158, steps: int = 360) -> Progress:
    return Progress(
        step=step, steps=steps, epoch=4, epochs=8, loss=0.4123, samples_per_second=1740.0, eta_seconds=5.2,
        epoch_metrics=epochs()[:3],
    )  # fmt: skip


METRICS = {"val_accuracy": 0.9778, "val_loss": 0.0712, "train_loss": 0.0533}


def pending_states() -> dict[str, Card]:
    """Before there is a job."""
    first = proposal()
    edited = offer(lr=3e-4, max_runtime_minutes=30)
    second = proposal(edited, revision=2, author=BOB, version=2, digest=edited.digest)
    large = proposal(offer("distilgpt2", gpus=1, known=False), prompt="fine-tune distilgpt2 on a GPU")
    half = replace(large, votes=(vote(ANN, large),))
    over: dict[str, Any] = {"decided_at": NOW - timedelta(minutes=1)}
    unpriced = proposal(offer(rates=UNPRICED, known=False))
    reason = "too dear for a try: two epochs would show it"
    return {
        "pending": card(first),
        "pending_without_history": card(proposal(offer(known=False))),
        "pending_revised": card(second, before=offer()),
        "pending_one_vote_of_two": card(half, needed=2),
        "pending_nobody_may": card(large, needed=None),
        "pending_vote_not_counted": card(half, needed=2, able=(BOB, CLEO)),
        "pending_budget_short": card(
            first, budget=Budget(limit=Decimal(10), spent=Decimal("9.99"), committed=Decimal(0))
        ),
        "unpriced": card(unpriced, needed=None),
        "time_is_over": card(replace(first, expires_at=NOW)),
        "rejected": card(replace(first, state=ProposalState.REJECTED, decided_by=ANN, reason=reason, **over)),
        "withdrawn": card(replace(first, state=ProposalState.WITHDRAWN, decided_by=RAE, **over)),
        "expired": card(replace(first, state=ProposalState.EXPIRED, reason="nobody decided in time", **over)),
        "hostile_prompt": card(proposal(prompt=HOSTILE)),
    }


def job_states() -> dict[str, Card]:
    """From the approval to the end."""
    on = approved()
    running = job(on, JobPhase.RUNNING)
    done = Progress(step=360, steps=360, epoch=8, epochs=8, epoch_metrics=epochs(), result=METRICS)
    language = approved(proposal(offer("distilgpt2", gpus=1, epochs=20), prompt="distilgpt2, 20 epochs"))
    long = Progress(step=9, steps=9, epoch=60, epochs=60, epoch_metrics=epochs(60, "perplexity"))
    found = {"val_perplexity": 31.4, "val_loss": 3.447}
    memory = "Out of memory: try a smaller batch_size."
    return {
        "approved_queued": working(job(on, JobPhase.QUEUED, run_id=None), on, ahead=2),
        "starting_with_trouble": working(
            job(on, JobPhase.SUBMITTED), on, trouble="MLflow at mlflow:5000 does not answer."
        ),
        "running": working(running, on, progress=progress()),
        "cancelling": working(replace(running, cancel_by=RAE), on, progress=progress()),
        "succeeded": working(job(on, JobPhase.SUCCEEDED, metrics=METRICS), on, progress=done),
        "succeeded_long_on_gpu": working(job(language, JobPhase.SUCCEEDED, metrics=found), language, progress=long),
        "failed": working(job(on, JobPhase.FAILED, reason=memory), on, progress=progress()),
        "cancelled": working(job(on, JobPhase.CANCELLED, cancel_by=RAE, reason=f"Cancelled by {RAE}."), on),
        "hostile_reason": working(job(on, JobPhase.FAILED, reason=HOSTILE, metrics={"<!here> loss": 1.0}), on),
    }


def states() -> dict[str, Card]:
    return pending_states() | job_states()


def huge() -> Card:
    """A manifest that no single modal can hold."""
    shown = offer()
    manifest = {**shown.manifest, "env": {f"VARIABLE_{index}": "x" * 200 for index in range(900)}}
    return card(proposal(replace(shown, manifest=manifest)))


def digest(*, busy: bool = True) -> Digest:
    """A day with everything in it, or one with nothing."""
    of = date(2026, 11, 23)
    zero: dict[str, Any] = {"total": Amount(), "by_requester": (), "by_recipe": (), "by_device": ()}
    today: dict[str, Any] = {
        "total": Amount(dollars=Decimal("3.0825")),
        "by_requester": ((RAE, Amount(dollars=Decimal(2))), (BOB, Amount(dollars=Decimal("1.0825")))),
        "by_recipe": (("distilgpt2", Amount(dollars=Decimal(3))), ("digits", Amount(dollars=Decimal("0.0825")))),
        "by_device": (("H100", Amount(dollars=Decimal(3))), ("CPU", Amount(dollars=Decimal("0.0825")))),
    }
    cards = job_states()
    ended = ("succeeded", "succeeded_long_on_gpu", "failed") if busy else ()
    return Digest(
        of=of,
        period=day(of, ZONE),
        outcomes=tuple(_outcome(cards[name]) for name in ended),
        proposed=5 if busy else 0,
        waiting=(proposal(), proposal(offer("distilgpt2", gpus=1), number=8)) if busy else (),
        running=(),
        spend=Spend(period=day(of, ZONE), **(today if busy else zero)),
        month=Spend(period=month(of, ZONE), **(today if busy else zero)),
        forecast=Decimal("4.20") if busy else Decimal(0),
        budget=Budget(limit=Decimal(4) if busy else None, spent=Decimal("3.0825"), committed=Decimal(0)),
    )


def _outcome(of: Card) -> Outcome:
    assert of.job is not None and of.actual is not None
    shown = of.proposal.offer
    return Outcome(job=of.job, recipe=shown.spec.recipe, estimate=shown.estimate, actual=of.actual)
