"""Numbers as Slack's native charts and tables, and the same in plain blocks where those are not to be had. Pure.

A chart takes 20 points, 6 series and two charts a message; longer curves are thinned evenly, first and last point kept,
and the title says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bot.slack import limits
from bot.slack.elements import Block, preformatted
from bot.slack.text import literal, shortened

Epochs = Sequence[Mapping[str, float]]

DIGITS = 6  # significant ones of a charted value
DRAWN = 1e15  # a value beyond it, or none at all (a loss that ran away), has no place in a chart
_LOSSES = ("train_loss", "val_loss")
_QUALITIES = (("accuracy", ("train_accuracy", "val_accuracy")), ("perplexity", ("train_perplexity", "val_perplexity")))
_NAMES = {"train": "training", "val": "validation"}


def learning_curves(epochs: Epochs) -> list[Block]:
    """Loss by epoch, and accuracy or perplexity by epoch: none before two epochs, never more than two charts."""
    rows = list({int(row.get("epoch", 0)): row for row in epochs}.values())  # an epoch done again counts once
    found = [_curve("Loss", "loss", _LOSSES, rows)]
    found += [_curve(title.capitalize(), title, names, rows) for title, names in _QUALITIES]
    return [chart for chart in found if chart is not None][: limits.MESSAGE_CHARTS]


def _curve(title: str, what: str, names: Sequence[str], rows: Sequence[Mapping[str, float]]) -> Block | None:
    known = [name for name in names if any(name in row for row in rows)]
    whole = [row for row in rows if all(abs(row.get(name, math.nan)) < DRAWN for name in known)]
    if not known or len(whole) < 2:
        return None
    shown = thinned(whole)
    scale, unit = (100, ", %") if what == "accuracy" else (1, "")
    labels = [f"{row['epoch']:.0f}" for row in shown]
    series = [
        _series(_NAMES.get(name.split("_")[0], name), labels, [row[name] * scale for row in shown]) for name in known
    ]
    some = f" ({len(shown)} of {len(whole)} epochs)" if len(shown) < len(whole) else ""
    return _chart("line", f"{title} by epoch{some}", series, labels, "epoch", what + unit)


def thinned(rows: Sequence[Mapping[str, float]], most: int = limits.CHART_POINTS) -> list[Mapping[str, float]]:
    """Evenly spread, with the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(index * (len(rows) - 1) / (most - 1))] for index in range(most)]


def bars(title: str, names: Sequence[str], series: Mapping[str, Sequence[float]], x: str, y: str) -> Block:
    """A bar for each name and series. More names than fit: the first ones, and the title says so."""
    labels = _labels(names[: limits.CHART_POINTS])
    some = f" ({len(labels)} of {len(names)})" if len(labels) < len(names) else ""
    data = [_series(name, labels, values[: len(labels)]) for name, values in series.items()]
    return _chart("bar", f"{title[: limits.CHART_TITLE - len(some)]}{some}", data, labels, x, y)


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Block]], size: int = 10) -> Block:
    """A table that readers can sort and page. Cells: `cell`, `number`, or rich text. The caller keeps to the limits."""
    return {
        "type": "data_table",
        "caption": caption,
        "page_size": size,
        "row_header_column_index": 0,
        "rows": [[cell(name) for name in head], *[list(row) for row in rows]],
    }


def cell(text: str, limit: int = 80) -> Block:
    return {"type": "raw_text", "text": shortened(literal(text), limit) or "–"}


def number(value: float, text: str) -> Block:
    """A cell that sorts by its value."""
    return {"type": "raw_number", "value": _rounded(value), "text": text}


def who(user: Block) -> Block:
    """A cell with a person."""
    return {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [user]}]}


def plainer(message: Mapping[str, Any]) -> dict[str, Any]:
    """The same message with charts and tables as fixed-width text, for a Slack that refuses them (`invalid_blocks`)."""
    return {**message, "blocks": [_as_text(block) for block in message.get("blocks", [])]}


def _as_text(block: Block) -> Block:
    match block["type"]:
        case "data_visualization":
            axis = block["chart"]["axis_config"]
            head = [axis.get("x_label", ""), *axis["categories"]]
            rows = [
                [one["name"], *[f"{point['value']:g}" for point in one["data"]]] for one in block["chart"]["series"]
            ]
            return preformatted("\n".join([block["title"], *_aligned(list(zip(head, *rows, strict=True)))]))
        case "data_table":
            rows = [[_words(one) for one in row] for row in block["rows"]]
            return preformatted("\n".join([block["caption"], *_aligned(rows)]))
        case _:
            return block


def _words(node: Any) -> str:
    if isinstance(node, list):
        return "".join(map(_words, node))
    if not isinstance(node, dict):
        return ""
    return str(node.get("text") or node.get("user_id") or _words(node.get("elements", [])))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return ["  ".join(one.ljust(width) for one, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _series(name: str, labels: Sequence[str], values: Sequence[float]) -> Block:
    data = [{"label": label, "value": _rounded(value)} for label, value in zip(labels, values, strict=True)]
    return {"name": shortened(name, limits.CHART_LABEL), "data": data}


def _chart(kind: str, title: str, series: list[Block], labels: Sequence[str], x: str, y: str) -> Block:
    axis = {"categories": list(labels), "x_label": x, "y_label": y}
    chart = {"type": kind, "series": series, "axis_config": axis}
    return {"type": "data_visualization", "title": title, "chart": chart}


def _labels(names: Sequence[str]) -> list[str]:
    """Short enough, and each only once."""
    found: list[str] = []
    for name in names:
        label = (literal(name).strip() or "?")[: limits.CHART_LABEL]
        count = 2
        while label in found:
            mark = f" {count}"
            label = f"{(literal(name).strip() or '?')[: limits.CHART_LABEL - len(mark)]}{mark}"
            count += 1
        found.append(label)
    return found


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
