"""Where learning-curve pictures are kept: drawn from a run's epochs when somebody asks, one file a run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.progress import Progress
from tools.spec import CATALOGUE
from tools.tracking import RunSummary


class Curves:
    """`folder` is where the PNG files go."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def of_run(self, run: RunSummary) -> Path | None:
        """The run's learning curve, or None before its first epoch."""
        return await self._draw(run.name or run.run_id, run.epochs)

    async def _draw(self, name: str, epochs: Sequence[Mapping[str, float]]) -> Path | None:
        if not epochs:
            return None
        from tools.curves import learning_curve  # matplotlib is slow to import and seldom needed

        safe = "".join(char if char.isalnum() or char in "-_." else "-" for char in name).lstrip(".")[:100]
        return await asyncio.to_thread(learning_curve, name, epochs, self._folder / f"{safe or 'run'}.png")

    async def of_job(self, name: str, progress: Progress) -> Path | None:
        """The same from what the trainer itself said, so that a card needs no MLflow."""
        return await self._draw(name, progress.epoch_metrics)

    async def of_comparison(self, runs: Sequence[RunSummary]) -> Path | None:
        """Several runs' headline metric in one picture, if they share one."""
        headlines = {recipe.headline for recipe in CATALOGUE.values()}
        shared = [name for name in headlines if all(any(name in row for row in run.epochs) for run in runs)]
        if not shared:
            return None
        from tools.curves import comparison_curve

        path = self._folder / f"compare-{'-'.join(run.run_id[:6] for run in runs)}.png"
        series = {run.name or run.run_id[:8]: run.epochs for run in runs}
        return await asyncio.to_thread(comparison_curve, "Comparison", series, shared[0], path)
