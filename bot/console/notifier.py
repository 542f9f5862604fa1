"""Prints what happened: the outbox's way to a terminal. Cards are rendered whole from the store at that moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.text import Text

from bot import wording
from bot.cards import Card, Cards
from bot.console import render
from bot.core.job import Job
from bot.store.writing import Notice
from tools.progress import Progress

log = logging.getLogger(__name__)

TEAM = "local"
CHANNEL = "terminal"
PROGRESS_SECONDS = 2.0  # between two progress lines where there is no status bar


class TerminalNotifier:
    """The reconciler's `Notifier` for one terminal."""

    def __init__(
        self,
        console: Console,
        cards: Cards,
        zone: ZoneInfo,
        *,
        curve: Callable[[str, Progress], Awaitable[Path | None]],
        digest: Callable[[date], Awaitable[list[str]]],
        lines: bool,
    ) -> None:
        self._console = console
        self._cards = cards
        self._zone = zone
        self._curve = curve
        self.digest = digest
        self._lines = lines
        self._printed: dict[str, tuple[float, int]] = {}
        self.running: dict[str, str] = {}  # job → its progress, for a status bar
        self.shown: dict[int, str] = {}  # proposal number → digest of the card that was shown last

    @property
    def teams(self) -> Collection[str]:
        return (TEAM,)

    async def deliver(self, notice: Notice) -> None:
        if notice.kind == "digest":
            for line in await self.digest(date.fromisoformat(notice.subject)):
                self.say(line)
            return
        card = await self._cards.card(notice.subject)
        match notice.kind:
            case "proposed" | "revised":
                await self.show(card)
            case "finished":
                self.running.pop(card.job.name if card.job else "", None)
                await self.show(card)
            case "rejected" | "expired" | "withdrawn":
                self.say(
                    f"Proposal {card.proposal.number} ({card.proposal.offer.spec.recipe}): {wording.standing(card)}."
                )
            case "voted":
                self.say(f"{notice.actor} voted on proposal {card.proposal.number}: {wording.votes(card)}.")
            case "approved":
                self.say(f"Proposal {card.proposal.number} is approved by {notice.actor}; its job is queued.")
            case "started" if card.job is not None:
                held = wording.resources(card.proposal.offer.resources)
                self.say(f"{card.job.name} has started on {held} (MLflow run {card.job.run_id}).")
            case "trouble" if card.job is not None and card.trouble:
                self.say(f"{card.job.name} has to wait: {card.trouble} It is tried again by itself.")
            case "reminder":
                left = wording.until(card.proposal.expires_at, card.now)
                self.say(f"Proposal {card.proposal.number} still waits for a decision; it expires {left}.")
            case "cancelling" if card.job is not None:
                self.say(f"{notice.actor} has cancelled {card.job.name}; it may write a checkpoint, then it ends.")

    async def show(self, card: Card) -> None:
        """Print the whole card, with the learning curve if there is one."""
        curve = None
        if card.job is not None and not card.job.open:
            try:
                curve = await self._curve(card.job.name, card.progress)
            except Exception as error:  # a picture that cannot be drawn must not keep the card back
                log.warning("no learning curve for %s: %s", card.job.name, error)
        self._console.print(render.card_panel(card, self._zone, _short(curve)))
        self.shown[card.proposal.number] = card.proposal.digest

    async def progress(self, job: Job, progress: Progress) -> None:
        line = render.progress_line(job, progress)
        self.running[job.name] = line
        at, epoch = self._printed.get(job.name, (0.0, -1))
        now = time.monotonic()
        if self._lines and (now - at >= PROGRESS_SECONDS or progress.epoch != epoch):
            self._printed[job.name] = (now, progress.epoch)
            self.say(line)

    def say(self, text: str) -> None:
        self._console.print(Text(render.clean(text)), soft_wrap=True)


def _short(path: Path | None) -> Path | None:
    here = Path.cwd()
    return path.relative_to(here) if path is not None and path.is_relative_to(here) else path
