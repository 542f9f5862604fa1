"""Where learning-curve pictures are kept: drawn from a run's epochs when somebody asks, one file a run."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tools.spec import CATALOGUE
from tools.tracking import RunSummary, Tracking


class Curves:
    """`folder` is where the PNG files go."""

    def __init__(self, tracking: Tracking, folder: Path) -> None:
        self._tracking = tracking
        self._folder = folder

    async def of_run(self, run: RunSummary) -> Path | None:
        """The run's learning curve, or None before its first epoch."""
        if not run.epochs:
            return None
        from tools.curves import learning_curve  # matplotlib is slow to import and seldom needed

        path = self._folder / f"{run.name or run.run_id}.png"
        return await asyncio.to_thread(learning_curve, run.name or run.run_id, run.epochs, path)

    async def of_run_id(self, run_id: str) -> Path | None:
        """The same, looked up."""
        run = await self._tracking.run(run_id)
        return await self.of_run(run) if run else None

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
