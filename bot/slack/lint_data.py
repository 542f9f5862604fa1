"""The schemas of rich text, tables and charts, for `bot.slack.lint`. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bot.slack import limits
from bot.slack.lint_rules import Rule, array, boolean, by_type, fields, number, one_of, string, typed, url

_ID = {"block_id": string(1, limits.BLOCK_ID)}

# -- rich text --------------------------------------------------------------------------------------------------------
_STYLE = fields({}, {"bold": boolean, "italic": boolean, "strike": boolean, "code": boolean})
_STYLED: dict[str, Rule] = {"style": _STYLE}
_SPAN = by_type(
    {
        "text": typed("text", {"text": string(1)}, _STYLED),
        "user": typed("user", {"user_id": string(1, None, r"[UWB][A-Z0-9]+")}, _STYLED),
        "usergroup": typed("usergroup", {"usergroup_id": string(1, None, r"S[A-Z0-9]+")}, _STYLED),
        "channel": typed("channel", {"channel_id": string(1, None, r"[CGD][A-Z0-9]+")}, _STYLED),
        "link": typed("link", {"url": url(limits.BUTTON_URL)}, {"text": string(1), **_STYLED}),
        "date": typed(
            "date", {"timestamp": number(0, whole=True), "format": string(1)}, {"fallback": string(1), **_STYLED}
        ),
    }
)
_SPANS = array(_SPAN)
_BORDER = {"border": number(0, limits.RICH_TEXT_BORDER, whole=True)}
_SECTION = typed("rich_text_section", {"elements": _SPANS})
_LIST = typed(
    "rich_text_list",
    {"style": one_of("bullet", "ordered"), "elements": array(_SECTION)},
    {"indent": number(0, 8, whole=True), "offset": number(0, whole=True), **_BORDER},
)
RICH_TEXT = typed(
    "rich_text",
    {
        "elements": array(
            by_type(
                {
                    "rich_text_section": _SECTION,
                    "rich_text_list": _LIST,
                    "rich_text_quote": typed("rich_text_quote", {"elements": _SPANS}, _BORDER),
                    "rich_text_preformatted": typed("rich_text_preformatted", {"elements": _SPANS}, _BORDER),
                }
            )
        )
    },
    _ID,
)

# -- tables -----------------------------------------------------------------------------------------------------------
_CELL = by_type(
    {
        "raw_text": typed("raw_text", {"text": string(1)}),
        "raw_number": typed("raw_number", {"value": number(), "text": string(1)}),
        "rich_text": RICH_TEXT,
    }
)
_ROW = array(_CELL, 1, limits.TABLE_COLUMNS)


def _characters(node: Any) -> int:
    if isinstance(node, list):
        return sum(map(_characters, node))
    if isinstance(node, dict):
        return sum(
            len(one) if name == "text" and isinstance(one, str) else _characters(one) for name, one in node.items()
        )
    return 0


def _rectangle(value: Any, at: str) -> Iterator[str]:
    rows = value.get("rows")
    if isinstance(rows, list):
        if len({len(row) for row in rows if isinstance(row, list)}) > 1:
            yield f"{at}/rows: must all have the same number of cells"
        if _characters(rows) > limits.TABLE_CHARACTERS:
            yield f"{at}/rows: {limits.TABLE_CHARACTERS} characters are allowed in all cells together"


def _plain_header(value: Any, at: str) -> Iterator[str]:
    rows = value.get("rows")
    head = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], list) else []
    if any(isinstance(cell, dict) and cell.get("type") == "rich_text" for cell in head):
        yield f"{at}/rows/0: a header cell cannot be rich text"
    index = value.get("row_header_column_index")
    if isinstance(index, int) and head and not 0 <= index < len(head):
        yield f"{at}/row_header_column_index: there is no such column"


_COLUMN = fields({}, {"align": one_of("left", "center", "right"), "is_wrapped": boolean})
TABLE = typed(
    "table",
    {"rows": array(_ROW, 1, limits.TABLE_ROWS)},
    {**_ID, "column_settings": array(_COLUMN, 1, limits.TABLE_COLUMNS)},
    _rectangle,
)
DATA_TABLE = typed(
    "data_table",
    {"rows": array(_ROW, limits.DATA_TABLE_ROWS_LEAST, limits.DATA_TABLE_ROWS), "caption": string(1)},
    {
        **_ID,
        "page_size": number(1, limits.DATA_TABLE_PAGE, whole=True),
        "row_header_column_index": number(0, limits.TABLE_COLUMNS - 1, whole=True),
    },
    _rectangle,
    _plain_header,
)

# -- charts -----------------------------------------------------------------------------------------------------------
_LABEL = string(1, limits.CHART_LABEL)
_POINT = fields({"label": _LABEL, "value": number()})
_SERIES = fields({"name": _LABEL, "data": array(_POINT, 1, limits.CHART_POINTS)})
_AXIS = fields(
    {"categories": array(_LABEL, 1, limits.CHART_POINTS)},
    {"x_label": string(1, limits.CHART_AXIS), "y_label": string(1, limits.CHART_AXIS)},
)


def _axes_agree(value: Any, at: str) -> Iterator[str]:
    """Every series has each category once, in order; no name twice."""
    axis = value.get("axis_config")
    categories = axis.get("categories") if isinstance(axis, dict) else None
    listed = value.get("series")
    series = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    if isinstance(categories, list) and len(set(map(str, categories))) < len(categories):
        yield f"{at}/axis_config/categories: a label is used twice"
    if len({str(one.get("name")) for one in series}) < len(series):
        yield f"{at}/series: a name is used twice"
    for index, one in enumerate(series):
        data = one.get("data")
        points = data if isinstance(data, list) else []
        if [point.get("label") for point in points if isinstance(point, dict)] != categories:
            yield f"{at}/series/{index}/data: its labels are not the categories"


def _axis_chart(kind: str) -> Rule:
    shape = {"series": array(_SERIES, 1, limits.CHART_SERIES), "axis_config": _AXIS}
    return typed(kind, shape, None, _axes_agree)


_SLICE = fields({"label": _LABEL, "value": number(above=0)})
CHART = typed(
    "data_visualization",
    {
        "title": string(1, limits.CHART_TITLE),
        "chart": by_type(
            {
                **{kind: _axis_chart(kind) for kind in ("line", "bar", "area")},
                "pie": typed("pie", {"segments": array(_SLICE, 1, limits.CHART_SERIES)}),
            }
        ),
    },
    _ID,
)
