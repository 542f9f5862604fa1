"""Values in words: the sentences and short phrases that every surface shares. Pure; no markup of any surface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from bot.accounts import Spend
from bot.cards import Card
from bot.core.job import Job, JobPhase
from bot.core.policy import Budget
from bot.core.proposal import Offer, ProposalState, Verdict
from tools.cost import Actual, Amount, Estimate, Resources, dollars
from tools.progress import Progress
from tools.spec import CATALOGUE, TrainingSpec, changed

SHARE = {"accuracy"}  # metrics shown as a percentage


def parameters(spec: TrainingSpec) -> str:
    """Every parameter, as one line."""
    return assigned({name: given for name, given in spec.canonical().items() if name != "recipe"})


def assigned(values: Mapping[str, object]) -> str:
    """`epochs 3, lr 0.001`."""
    return ", ".join(f"{name} {value(given)}" for name, given in values.items())


def value(given: object) -> str:
    return f"{given:g}" if isinstance(given, float) else str(given)


def changes(before: Offer, after: Offer) -> str:
    """What an edit changed: `lr 0.001 → 0.0003`, and the ceiling if it moved."""
    found = [f"{name} {value(old)} → {value(new)}" for name, (old, new) in changed(before.spec, after.spec).items()]
    if before.estimate.ceiling != after.estimate.ceiling:
        found.append(f"ceiling {before.estimate.ceiling} → {after.estimate.ceiling}")
    return ", ".join(found) or "nothing"


def resources(held: Resources) -> str:
    """`4 CPU cores`, `2 nodes × 8 × H100`."""
    if held.nodes > 1:
        return f"{held.nodes} nodes × {resources(held.each)}"
    if held.gpus:
        return f"{held.gpus} × {held.gpu_product or 'GPU'}"
    return f"{held.cpu_cores.normalize():f} CPU cores"


def engine(manifest: Mapping[str, Any]) -> str:
    """`local engine`, `kubernetes engine, in the queue gpus`, `kubernetes engine, TrainJob in the runtime torch`."""
    runtime, queue = manifest.get("runtime"), manifest.get("queue")
    more = f", TrainJob in the runtime {runtime['name']}" if runtime else f", in the queue {queue}" if queue else ""
    return f"{manifest.get('engine', 'unknown')} engine{more}"


def duration(seconds: Decimal | float) -> str:
    """`8.4 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = float(seconds)
    if whole < 60:
        return f"{whole:.1f} s"
    if whole < 3600:
        return f"{int(whole // 60)} min" + (f" {int(whole % 60):02d} s" if whole % 60 >= 1 else "")
    return f"{int(whole // 3600)} h {int(whole % 3600 // 60):02d} min"


def estimate(of: Estimate) -> str:
    """The forecast, or that there is none yet."""
    if of.p50 is None or of.p90 is None or of.p50_seconds is None or of.p90_seconds is None:
        return f"{of.basis}; after 5 finished runs alike it is forecast"
    return f"P50 {of.p50} in {duration(of.p50_seconds)}, P90 {of.p90} in {duration(of.p90_seconds)} (from {of.basis})"


def ceiling(offer: Offer) -> str:
    """The most it can cost, and why."""
    most = offer.estimate
    minutes = duration(most.ceiling_seconds)
    return f"at most {most.ceiling} = {minutes} × {offer.hourly}/h (rates {offer.rate_version}); stopped then"


def budget(of: Budget) -> str:
    if of.limit is None or of.left is None:
        return "no monthly budget is set"
    return f"{dollars(max(of.left, Decimal(0)))} left of {dollars(of.limit)} this month"


def against(offer: Offer, spent: Actual) -> str:
    """Estimate against actual."""
    said = offer.estimate
    mark = " so far" if not spent.final else (" (its end was not seen, so estimated)" if spent.estimated else "")
    actual = f"{spent.amount} in {duration(spent.seconds)}{mark}"
    if said.p50 is None or said.p90 is None:
        return f"actual {actual}; estimate: {said.basis}, ceiling {said.ceiling}{_share(spent.amount, said.ceiling)}"
    held = "within P90" if spent.amount.dollars <= said.p90.dollars else "above P90"
    return f"actual {actual}; estimate P50 {said.p50}, P90 {said.p90} ({held}), ceiling {said.ceiling}"


def _share(part: Amount, whole: Amount) -> str:
    if part.unpriced or whole.unpriced or not whole.dollars:
        return ""
    return f" ({part.dollars / whole.dollars:.1%} of it)"


def votes(card: Card) -> str:
    """How many approvals it has, takes, and by whom."""
    given = [vote.voter for vote in card.proposal.votes_for(Verdict.APPROVE)]
    have = f"{len(given)} of {card.needed}" + (f" ({', '.join(given)})" if given else "")
    if card.needed is None:
        return "the policy lets nobody approve this"
    return f"{have}; may approve: {', '.join(card.able) or 'nobody'}"


def moment(when: datetime, zone: ZoneInfo) -> str:
    return f"{when.astimezone(zone):%Y-%m-%d %H:%M %Z}"


def counted(number: int, thing: str) -> str:
    """`1 approval`, `2 approvals`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def until(when: datetime, now: datetime) -> str:
    left = when - now
    if left <= timedelta(0):
        return "over"
    minutes = round(left.total_seconds() / 60)
    if minutes < 60:
        return f"in {minutes} min"
    return f"in {minutes // 60} h" + (f" {minutes % 60:02d} min" if minutes % 60 else "")


def metric(name: str, number: float) -> str:
    """A metric for the eye: `val_accuracy 97.8 %`, `val_loss 0.0712`."""
    if name.split("_")[-1] in SHARE:
        return f"{name} {number:.2%}"
    return f"{name} {number:,.0f}" if abs(number) >= 1000 else f"{name} {number:.4g}"


def metrics(found: Mapping[str, float], spec: TrainingSpec | None = None) -> str:
    """All metrics: the recipe's headline first, then the other validation metrics."""
    first = CATALOGUE[spec.recipe].headline if spec else ""
    names = sorted(found, key=lambda name: (name != first, not name.startswith("val_"), "_" not in name, name))
    return ", ".join(metric(name, found[name]) for name in names)


def progress(of: Progress) -> str:
    """`45 %, epoch 3/8, loss 0.41, 900 samples/s, 3.1 s left`."""
    parts = [f"{of.fraction:.0%}"]
    if of.epochs:
        parts.append(f"epoch {min(of.epoch, of.epochs)}/{of.epochs}")
    if of.loss is not None:
        parts.append(f"loss {of.loss:.3g}")
    if of.samples_per_second:
        parts.append(f"{of.samples_per_second:,.0f} samples/s")
    if of.eta_seconds is not None:
        parts.append(f"{duration(of.eta_seconds)} left")
    return ", ".join(parts)


def standing(card: Card) -> str:
    """Where it stands, in one sentence."""
    proposal, job = card.proposal, card.job
    if job is not None:
        return _job_standing(card, job)
    match proposal.state:
        case ProposalState.PENDING:
            need = "nobody may approve it" if card.needed is None else f"needs {counted(card.needed, 'approval')}"
            return f"waits for people: {need}, expires {until(proposal.expires_at, card.now)}"
        case ProposalState.REJECTED:
            why = f": {proposal.reason}" if proposal.reason else ""
            return f"rejected by {proposal.decided_by}{why}"
        case ProposalState.WITHDRAWN:
            return f"withdrawn by {proposal.decided_by}"
        case ProposalState.EXPIRED:
            return "expired; nobody decided in time"
        case _:
            return f"approved by {proposal.decided_by}"


def _job_standing(card: Card, job: Job) -> str:
    trouble = f" Trouble: {card.trouble}" if card.trouble else ""
    match job.phase:
        case JobPhase.QUEUED:
            place = f", {card.ahead} ahead of it" if card.ahead else ""
            return f"queued{place}.{trouble}"
        case JobPhase.SUBMITTED:
            return f"approved, about to start.{trouble}"
        case JobPhase.RUNNING:
            ending = f" Being cancelled by {job.cancel_by}." if job.cancel_by else ""
            return f"running: {progress(card.progress)}.{ending}{trouble}"
        case JobPhase.SUCCEEDED:
            return "succeeded"
        case _:
            helps = f" Ask for it again with {assigned(card.remedy)}." if card.remedy else ""
            return f"{job.phase}: {job.reason}{helps}"


def spend_lines(of: Spend, left: Budget) -> list[str]:
    """A period's spend as lines."""
    lines = [f"Spend, {of.period.name}: {of.total}."]
    for title, rows in (("By person", of.by_requester), ("By recipe", of.by_recipe), ("By device", of.by_device)):
        if rows:
            lines.append(f"{title}: " + ", ".join(f"{name} {amount}" for name, amount in rows) + ".")
    lines.append(f"Budget: {budget(left)}.")
    return lines


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns for plain text."""
    widths = [max(len(str(row[index])) for row in (header, *rows)) for index in range(len(header))]
    return [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
