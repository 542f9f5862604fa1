"""Tables, charts and rich text as Slack judges them: the blocks whose shape matters more than their length."""

from __future__ import annotations

from typing import Any

from tests.fakes.slack.elements import Judge, type_of
from tests.fakes.slack.state import Json

TABLE_ROWS, TABLE_COLUMNS, TABLE_CHARACTERS = 100, 20, 10_000
DATA_TABLE_ROWS = 101  # the header and 100 more
CHART_TITLE, CHART_LABEL, CHART_POINTS, CHART_SERIES = 50, 20, 20, 6


def rich_text(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "elements"})
    kinds = ("rich_text_section", "rich_text_list", "rich_text_preformatted", "rich_text_quote")
    for index, element in enumerate(judge.items(f"{at}/elements", block.get("elements"), 1, None)):
        if type_of(element) not in kinds:
            judge.say(f"{at}/elements/{index}", "unsupported type")
        elif not isinstance(element.get("elements"), list):
            judge.say(f"{at}/elements/{index}", "missing required field: elements")


def _rows(judge: Judge, at: str, block: Json, least: int, most: int, cells: tuple[str, ...]) -> None:
    """A rectangle of cells; together no more characters than Slack takes."""
    characters = 0
    widths: set[int] = set()
    for index, row in enumerate(judge.items(f"{at}/rows", block.get("rows"), least, most)):
        inside = judge.items(f"{at}/rows/{index}", row, 1, TABLE_COLUMNS)
        widths.add(len(inside))
        for column, cell in enumerate(inside):
            here = f"{at}/rows/{index}/{column}"
            kind = type_of(cell)
            if kind not in cells or (block["type"] == "data_table" and index == 0 and kind == "rich_text"):
                judge.say(here, f"unsupported cell type: {kind}")
            elif kind == "raw_number":
                if isinstance(cell.get("value"), bool) or not isinstance(cell.get("value"), int | float):
                    judge.say(f"{here}/value", "must be a number")
            elif kind == "raw_text":
                judge.string(f"{here}/text", cell.get("text"), 0 if block["type"] == "table" else 1, TABLE_CHARACTERS)
                characters += len(str(cell.get("text") or ""))
            else:
                rich_text(judge, here, cell)
    if len(widths) > 1:
        judge.say(f"{at}/rows", "all rows must have the same number of cells")
    if characters > TABLE_CHARACTERS:
        judge.say(f"{at}/rows", f"must be less than {TABLE_CHARACTERS + 1} characters in all cells together")


def table(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "rows", "column_settings"})
    _rows(judge, at, block, 1, TABLE_ROWS, ("raw_text", "rich_text", "raw_number"))
    settings = judge.items(f"{at}/column_settings", block.get("column_settings"), 0, TABLE_COLUMNS)
    for index, setting in enumerate(settings):
        if isinstance(setting, dict) and setting.get("align", "left") not in ("left", "center", "right"):
            judge.say(f"{at}/column_settings/{index}/align", "must be one of: left, center, right")


def data_table(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "rows", "caption", "page_size", "row_header_column_index"})
    judge.string(f"{at}/caption", block.get("caption"), 1, None)
    size = block.get("page_size", 5)
    if not isinstance(size, int) or not 1 <= size <= 100:
        judge.say(f"{at}/page_size", "must be between 1 and 100")
    _rows(judge, at, block, 2, DATA_TABLE_ROWS, ("raw_text", "rich_text", "raw_number"))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value and abs(value) < 1e300


def data_visualization(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "title", "chart"})
    judge.string(f"{at}/title", block.get("title"), 1, CHART_TITLE)
    chart = block.get("chart")
    if not isinstance(chart, dict) or type_of(chart) not in ("line", "bar", "area", "pie"):
        judge.say(f"{at}/chart/type", "must be one of: line, bar, area, pie")
        return
    if chart["type"] == "pie":
        judge.keys(f"{at}/chart", chart, {"type", "segments"})
        for index, part in enumerate(judge.items(f"{at}/chart/segments", chart.get("segments"), 1, CHART_SERIES)):
            _point(judge, f"{at}/chart/segments/{index}", part, positive=True)
        return
    judge.keys(f"{at}/chart", chart, {"type", "series", "axis_config"})
    axis = chart.get("axis_config")
    if not isinstance(axis, dict):
        judge.say(f"{at}/chart/axis_config", "missing required field")
        return
    judge.keys(f"{at}/chart/axis_config", axis, {"categories", "x_label", "y_label"})
    categories = judge.items(f"{at}/chart/axis_config/categories", axis.get("categories"), 1, CHART_POINTS)
    for index, category in enumerate(categories):
        judge.string(f"{at}/chart/axis_config/categories/{index}", category, 1, CHART_LABEL)
    for key in ("x_label", "y_label"):
        if axis.get(key) is not None:
            judge.string(f"{at}/chart/axis_config/{key}", axis[key], 1, CHART_TITLE)
    names: list[Any] = []
    for index, series in enumerate(judge.items(f"{at}/chart/series", chart.get("series"), 1, CHART_SERIES)):
        here = f"{at}/chart/series/{index}"
        if not isinstance(series, dict):
            judge.say(here, "must be an object")
            continue
        judge.keys(here, series, {"name", "data"})
        judge.string(f"{here}/name", series.get("name"), 1, CHART_LABEL)
        names.append(series.get("name"))
        points = judge.items(f"{here}/data", series.get("data"), 1, CHART_POINTS)
        for place, point in enumerate(points):
            _point(judge, f"{here}/data/{place}", point)
        if [point.get("label") for point in points if isinstance(point, dict)] != list(categories):
            judge.say(f"{here}/data", "labels must match axis_config.categories")
    if len(set(map(str, names))) != len(names):
        judge.say(f"{at}/chart/series", "series names must be unique")


def _point(judge: Judge, at: str, point: Any, *, positive: bool = False) -> None:
    if not isinstance(point, dict):
        judge.say(at, "must be an object")
        return
    judge.keys(at, point, {"label", "value"})
    judge.string(f"{at}/label", point.get("label"), 1, CHART_LABEL)
    if not _number(point.get("value")) or (positive and point["value"] <= 0):
        judge.say(f"{at}/value", "must be a positive number" if positive else "must be a finite number")
