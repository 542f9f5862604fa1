"""Learning curves as PNG pictures. matplotlib's object interface: no global state, safe in a thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

Epochs = Sequence[Mapping[str, float]]

SIZE = (12, 6)  # inches, at 100 dots each
TITLE_LIMIT = 100  # characters that fit
LABEL_LIMIT = 40
# Okabe and Ito's palette, which colour-blind eyes can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D")  # once the colours are used up
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
    _explain(figure, "outside lower center", columns=2)
    _entitle(figure, title)
    return _save(figure, path)


def comparison_curve(title: str, series: Mapping[str, Epochs], metric: str, path: Path) -> Path:
    """One metric of several runs by epoch."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    for index, (label, epochs) in enumerate(series.items()):
        points = [(row["epoch"], row[metric]) for row in epochs if metric in row]
        marker = MARKERS[index // len(COLOURS) % len(MARKERS)]
        _draw(axes, points, label, color=COLOURS[index % len(COLOURS)], marker=marker)
    _dress(axes, metric.replace("_", " "))
    if metric.endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    _explain(figure, "outside right upper", columns=1)
    _entitle(figure, title)
    return _save(figure, path)


def _panel(axes: Any, epochs: Epochs, names: Sequence[str], what: str) -> None:
    for name in names:
        points = [(row["epoch"], row[name]) for row in epochs if name in row]
        kind = name.split("_")[0]
        colour = COLOURS[0] if kind == "train" else COLOURS[1]
        label = {"train": "training", "val": "validation"}.get(kind, kind)
        _draw(axes, points, label, color=colour, linestyle=STYLES.get(kind, "-"))
    _dress(axes, what)


def _draw(axes: Any, points: Sequence[tuple[float, float]], label: str, **style: Any) -> None:
    """One line with a marker at each epoch, so that a single one shows; nothing without points."""
    if points:
        (line,) = axes.plot(*zip(*points, strict=True), **{"marker": "o", "markersize": 5, **style})
        line.set_label(f" {label[:LABEL_LIMIT]}")  # matplotlib hides labels that begin with "_"


def _entitle(figure: Figure, title: str) -> None:
    """Names come from MLflow: no mathematics in them, and no more of them than fits."""
    short = title if len(title) <= TITLE_LIMIT else f"{title[: TITLE_LIMIT - 1]}…"
    figure.suptitle(short, fontsize=14, fontweight="bold", parse_math=False)


def _dress(axes: Any, what: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_title(what)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.05)
    if not axes.has_data():
        axes.set(xticks=[], yticks=[])
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color="0.4")


def _explain(figure: Figure, place: Literal["outside lower center", "outside right upper"], *, columns: int) -> None:
    """One legend outside all panels: inside there is always a curve that runs beneath it."""
    lines: dict[str, Any] = {}
    for axes in figure.axes:
        for line in axes.get_lines():
            lines.setdefault(f"{line.get_label()}{line.get_color()}{line.get_marker()}", line)
    if lines:
        legend = figure.legend(handles=list(lines.values()), loc=place, ncols=columns, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)


def _save(figure: Figure, path: Path) -> Path:
    """Written whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spare = path.with_name(f".{path.name[:100]}.{uuid4().hex}")
    try:
        FigureCanvasAgg(figure).print_figure(spare, dpi=100, format="png")
        spare.replace(path)
    finally:
        spare.unlink(missing_ok=True)
    return path
