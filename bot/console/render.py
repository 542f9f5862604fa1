"""Values as terminal panels and tables. Pure; texts from people and logs are never read as markup."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bot import wording
from bot.cards import Card
from bot.core.job import Job, JobPhase
from bot.core.proposal import ProposalState
from tools.progress import Progress

BAR = 24  # characters
_OBEYED = frozenset({"Cc", "Cf", "Cs", "Co"})  # Unicode categories
COLOURS = {
    "pending": "yellow",
    "queued": "cyan",
    "submitted": "cyan",
    "running": "cyan",
    "succeeded": "green",
    "failed": "red",
    "rejected": "red",
    "cancelled": "magenta",
    "withdrawn": "magenta",
    "expired": "magenta",
}


def card_panel(card: Card, zone: ZoneInfo, curve: Path | None = None) -> Panel:
    """The whole card: what runs, what it may cost, who said what, how it went."""
    proposal, offer = card.proposal, card.proposal.offer
    state = (card.job.phase if card.job else proposal.state).value
    rows: list[tuple[str, str]] = [("asked by", f"{proposal.requester}: “{_line(proposal.prompt)}”")]
    rows.append(("runs", wording.parameters(offer.spec)))
    rows.append(("on", f"{wording.resources(offer.resources)}, {wording.engine(offer.manifest)}"))
    if offer.manifest.get("note"):
        rows.append(("note", str(offer.manifest["note"])))
    if card.before is not None:
        rows.append(("edited", f"by {proposal.author}: {wording.changes(card.before, offer)}"))
    rows += _outcome_rows(card) if card.job else _decision_rows(card, zone)
    if card.job and card.job.run_id:
        rows.append(("MLflow run", card.job.run_id))
    if curve is not None:
        rows.append(("curve", str(curve)))
    revision = f", revision {proposal.revision}" if proposal.revision > 1 else ""
    rows.append(("digest", f"{proposal.short_digest}{revision} (all of it: /details {proposal.number})"))
    title = f" {card.job.name if card.job else f'Proposal {proposal.number} · {offer.spec.recipe}'} · {state} "
    parts: list[RenderableType] = [_grid(rows)]
    if proposal.state is ProposalState.PENDING:
        number = proposal.number
        parts.append(
            Text(f"/approve {number}   /reject {number} WHY   /edit {number} lr=…   /withdraw {number}", "dim")
        )
    colour = COLOURS.get(state, "white")
    return Panel(Group(*parts), title=Text(title, style=f"bold {colour}"), border_style=colour, box=ROUNDED)


def _decision_rows(card: Card, zone: ZoneInfo) -> list[tuple[str, str]]:
    proposal, offer = card.proposal, card.proposal.offer
    rows = [
        ("estimate", wording.estimate(offer.estimate)),
        ("ceiling", wording.ceiling(offer)),
        ("budget", wording.budget(card.budget)),
    ]
    if proposal.state is ProposalState.PENDING:
        expires = wording.moment(proposal.expires_at, zone)
        rows.append(("approvals", wording.votes(card)))
        rows.append(("expires", f"{wording.until(proposal.expires_at, card.now)} ({expires})"))
    else:
        rows.append(("outcome", wording.standing(card)))
    return rows


def _outcome_rows(card: Card) -> list[tuple[str, str]]:
    assert card.job is not None
    proposal, offer = card.proposal, card.proposal.offer
    approvers = ", ".join(vote.voter for vote in proposal.votes)
    rows = [("approved by", approvers), ("state", wording.standing(card))]
    if card.job.phase is JobPhase.RUNNING and card.progress.steps:
        rows.append(("progress", bar(card.progress)))
    if card.job.metrics:
        rows.append(("metrics", wording.metrics(card.job.metrics, offer.spec)))
    if card.actual is not None:
        rows.append(("cost", wording.against(offer, card.actual)))
    else:
        rows.append(("ceiling", wording.ceiling(offer)))
    rows.append(("budget", wording.budget(card.budget)))
    return rows


def bar(progress: Progress) -> str:
    """`█████████░░░░░░░ 45 %, epoch 3/8, …`."""
    full = round(progress.fraction * BAR)
    return f"{'█' * full}{'░' * (BAR - full)} {wording.progress(progress)}"


def jobs_table(cards: Sequence[Card], title: str) -> Table:
    """Proposals and jobs, newest first."""
    table = Table(title=title, title_justify="left", box=ROUNDED, expand=False)
    for name in ("#", "training", "asked by", "state", "cost"):
        table.add_column(name, overflow="fold")
    for card in cards:
        spec = card.proposal.offer.spec
        state = (card.job.phase if card.job else card.proposal.state).value
        cost = str(card.actual.amount) if card.actual else f"≤ {card.proposal.offer.estimate.ceiling}"
        table.add_row(
            Text(str(card.proposal.number)),
            Text(card.job.name if card.job else spec.recipe),
            Text(clean(card.proposal.requester)),
            Text(clean(_headline(card)), style=COLOURS.get(state, "white")),
            Text(cost),
        )
    return table


def _headline(card: Card) -> str:
    found = f": {wording.metrics(card.job.metrics, card.proposal.offer.spec)}" if card.job and card.job.metrics else ""
    return wording.standing(card) + found.split(", ")[0]


def progress_line(job: Job, progress: Progress) -> str:
    return f"{job.name} {bar(progress)}"


def clean(text: str) -> str:
    """Without what a terminal would obey: escape sequences, control, formatting and direction characters."""
    return "".join(char for char in text if char == "\n" or unicodedata.category(char) not in _OBEYED)


def _grid(rows: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(name, Text(clean(text)))
    return grid


def _line(text: str) -> str:
    """Somebody's words on one line, without control characters."""
    clean = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return clean if len(clean) <= 300 else f"{clean[:300]}… ({len(clean)} characters)"
