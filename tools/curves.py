"""Learning curves as PNG pictures. matplotlib's object interface: no global state, safe in a thread."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

Epochs = Sequence[Mapping[str, float]]

SIZE = (12, 5.4)  # inches, at 100 dots each
# Okabe and Ito's palette, which colour-blind eyes can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLES = {"train": "--", "val": "-"}


def learning_curve(title: str, epochs: Epochs, path: Path) -> Path:
    """Loss by epoch on the left, accuracy or perplexity on the right; `epochs` as in `tools.tracking.RunSummary`."""
    figure = Figure(figsize=SIZE, layout="constrained")
    losses, quality = figure.subplots(1, 2)
    _panel(losses, epochs, ("train_loss", "val_loss"), "loss")
    accurate = any("val_accuracy" in row for row in epochs)
    names = ("train_accuracy", "val_accuracy") if accurate else ("val_perplexity",)
    _panel(quality, epochs, names, "accuracy" if accurate else "perplexity")
    if accurate:
        quality.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    figure.suptitle(title, fontsize=14, fontweight="bold")
    return _save(figure, path)


def comparison_curve(title: str, series: Mapping[str, Epochs], metric: str, path: Path) -> Path:
    """One metric of several runs by epoch."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for index, (label, epochs) in enumerate(series.items()):
        points = [(row["epoch"], row[metric]) for row in epochs if metric in row]
        axes.plot(*zip(*points, strict=True), "-o", color=COLOURS[index % len(COLOURS)], label=label, markersize=5)
    _dress(axes, metric.replace("_", " "))
    if metric.endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    figure.suptitle(title, fontsize=14, fontweight="bold")
    return _save(figure, path)


def _panel(axes: Any, epochs: Epochs, names: Sequence[str], what: str) -> None:
    for name in names:
        points = [(row["epoch"], row[name]) for row in epochs if name in row]
        if points:
            kind = name.split("_")[0]
            colour = COLOURS[0] if kind == "train" else COLOURS[1]
            label = {"train": "training", "val": "validation"}.get(kind, kind)
            axes.plot(
                *zip(*points, strict=True), STYLES.get(kind, "-"), marker="o", color=colour, label=label, markersize=5
            )
    _dress(axes, what)


def _dress(axes: Any, what: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_title(what)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.05)
    if axes.has_data():
        axes.legend(frameon=False)


def _save(figure: Figure, path: Path) -> Path:
    """Written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spare = path.with_name(f".{path.name}.{os.getpid()}")
    FigureCanvasAgg(figure).print_figure(spare, dpi=100, format="png")
    spare.replace(path)
    return path
