"""Pictures of what to click, for `docs/slack.md`: golden payloads as SVG, with a number at each thing to press.

`python -m tests.slack.golden` writes `docs/pictures/*.svg`. A text's width is an estimate on the wide side, since the
reader's own font draws it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape, quoteattr

Json = dict[str, Any]

SANS = "'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
MONO = "Menlo, Consolas, 'Liberation Mono', 'DejaVu Sans Mono', monospace"
INK, GREY, LINE, PAPER, BACKDROP = "#1d1c1d", "#616061", "#cfcfd2", "#ffffff", "#ededf0"
GREEN, RED, ORANGE, CODE, BLUE, PLUM = "#007a5a", "#c4184c", "#c2500a", "#b3123f", "#1264a3", "#4a154b"
SERIES = ("#1264a3", "#d9822b")

BODY, SMALL, LEAD, BUTTON, MARK = 14, 12, 20, 32, 11
NARROW, WIDE = set("iljtfI.,:;'|!()[]` "), set("mwMW@%—×→█░…")

STYLES = {
    "plain": {},
    "bold": {"font-weight": "bold"},
    "code": {"font-family": MONO, "fill": CODE, "font-size": "12"},
    "mention": {"fill": BLUE},
}
MARKUP = re.compile(r"(\*[^*\n]+\*|`[^`\n]+`|<[^>\n]+>)")


@dataclass(frozen=True)
class Picture:
    """A golden payload, and the beginnings of what its numbers point at: button, field, heading or bold word."""

    payload: str
    title: str
    marks: tuple[str, ...]


PICTURES = {
    "pending": Picture("card-pending", "A card that waits for approval", ("Approve", "Reject", "Edit", "Details")),
    "reject": Picture("modal-reject", "The form behind Reject", ("Why", "Back", "Reject")),
    "edit": Picture("modal-edit", "The form behind Edit", ("epochs", "max_runtime_minutes", "Back", "Save")),
    "running": Picture("card-running", "The card of a running training", ("Progress", "Cancel", "Details")),
    "finished": Picture(
        "card-succeeded", "The card of a finished training", ("Metrics", "Rerun with changes", "Compare", "Details")
    ),
    "home": Picture(
        "home",
        "The bot's home page",
        ("Approve", "Reject", "Details", "Your trainings", "Running and queued", "Spend this month"),
    ),
    "digest": Picture(
        "digest",
        "The daily digest",
        ("Jobs that ended", "Spend of the day", "Month", "Estimate against actual", "Waits for approval"),
    ),
}


# -- text -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Run:
    """Characters of one style."""

    text: str
    style: str = "plain"


def width(text: str, size: float = BODY, style: str = "plain") -> float:
    """About how wide this is drawn."""
    if style == "code":
        return sum(9.2 if one in WIDE else 7.4 for one in text)
    units = sum(0.36 if one in NARROW else 0.95 if one in WIDE else 0.7 if one.isupper() else 0.6 for one in text)
    return units * size * (1.2 if style == "bold" else 1.0)


def named(kind: str, identity: str) -> str:
    """Slack shows a name where the payload has an id."""
    return f"@{identity[2:].capitalize()}" if kind == "@" else f"#{identity[2:].lower()}"


def parse(marked: str) -> list[list[Run]]:
    """Each line of Slack's markup as runs."""
    return [[_run(piece) for piece in MARKUP.split(line) if piece] for line in marked.split("\n")]


def _run(piece: str) -> Run:
    if piece[0] == "<" and piece[-1] == ">":
        inner, _, label = piece[1:-1].partition("|")
        if inner[0] in "@#":
            return Run(named(inner[0], inner[1:]), "mention")
        return Run(html.unescape(label or inner))
    if len(piece) > 2 and piece[0] == piece[-1] and piece[0] in "*`":
        return Run(html.unescape(piece[1:-1]), "bold" if piece[0] == "*" else "code")
    return Run(html.unescape(piece))


def wrap(runs: list[Run], room: float, size: float = BODY) -> list[list[Run]]:
    """The runs of one line, broken at spaces into lines that fit."""
    lines: list[list[Run]] = [[]]
    used = 0.0
    for run in runs:
        for word in _words(run, room, size):
            wide = width(word, size, run.style)
            if used and used + width(word.rstrip(), size, run.style) > room:
                lines.append([])
                used, word = 0.0, word.lstrip()
            lines[-1].append(Run(word, run.style))
            used += wide
    return lines


def _words(run: Run, room: float, size: float) -> Iterator[str]:
    """Words with the space behind them; one that is longer than a line comes in parts."""
    for word in re.findall(r"\s*\S+\s*|\s+", run.text):
        most = max(1, int(room / max(width(word, size, run.style) / len(word), 1)))
        yield from (word[at : at + most] for at in range(0, len(word), most))


# -- svg --------------------------------------------------------------------------------------------------------------
def tag(name: str, inside: str = "", **attributes: object) -> str:
    """One element; `inside` is SVG already."""
    said = "".join(f" {key.replace('_', '-')}={quoteattr(_short(value))}" for key, value in attributes.items())
    return f"<{name}{said}>{inside}</{name}>" if inside else f"<{name}{said}/>"


def _short(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def words(runs: list[Run], x: float, y: float, size: float = BODY, fill: str = INK, **more: object) -> str:
    """One line of text; its runs follow each other whatever font draws them."""
    merged: list[Run] = []
    for run in runs:
        if merged and merged[-1].style == run.style:
            merged[-1] = Run(merged[-1].text + run.text, run.style)
        else:
            merged.append(run)
    if merged:
        merged[-1] = Run(merged[-1].text.rstrip(), merged[-1].style)
    inside = "".join(
        tag("tspan", escape(run.text), **STYLES[run.style])
        if run.style != "plain"
        else f"<tspan>{escape(run.text)}</tspan>"
        for run in merged
        if run.text
    )
    return tag("text", inside, x=x, y=y, font_size=size, fill=fill, **more) if inside else ""


def label(text: str, x: float, y: float, size: float = BODY, fill: str = INK, **more: object) -> str:
    """A short text of one style."""
    return tag("text", escape(text), x=x, y=y, font_size=size, fill=fill, **more)


def box(x: float, y: float, wide: float, high: float, fill: str = PAPER, stroke: str = LINE, rx: float = 6) -> str:
    """A rounded rectangle."""
    return tag("rect", x=x, y=y, width=wide, height=high, rx=rx, fill=fill, stroke=stroke)


def rule(x1: float, y1: float, x2: float, y2: float, stroke: str = LINE, thick: float = 1) -> str:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=stroke, stroke_width=thick)


@dataclass(frozen=True)
class Spot:
    """Where a number may point, and from which side: `below` or `right`."""

    x: float
    y: float
    side: str


def numbered(number: int, spot: Spot) -> str:
    """An orange circle with a beak that touches the spot."""
    if spot.side == "below":
        x, y = spot.x, spot.y + 8 + MARK
        beak = f"{x - 6},{y - 8} {x + 6},{y - 8} {spot.x},{spot.y + 1}"
    else:
        x, y = spot.x + 8 + MARK, spot.y
        beak = f"{x - 8},{y - 6} {x - 8},{y + 6} {spot.x + 1},{spot.y}"
    return (
        tag("polygon", points=beak, fill=ORANGE)
        + tag("circle", cx=x, cy=y, r=MARK, fill=ORANGE)
        + label(str(number), x, y + 4.5, 13, PAPER, text_anchor="middle", font_weight="bold")
    )


# -- blocks -----------------------------------------------------------------------------------------------------------
@dataclass
class Sheet:
    """Draws blocks one below the other between `left` and `right`, and notes where things are."""

    left: float
    right: float
    y: float
    marks: tuple[str, ...]
    parts: list[str] = field(default_factory=list)
    spots: dict[str, Spot] = field(default_factory=dict)

    def add(self, *parts: str) -> None:
        self.parts += [part for part in parts if part]

    def note(self, name: str, x: float, y: float, side: str = "right") -> None:
        self.spots.setdefault(name, Spot(x, y, side))

    def block(self, block: Json) -> None:
        """Any one block of the payload."""
        getattr(self, f"_{block['type']}")(block)

    def lines(self, runs: list[Run], left: float, right: float, y: float, size: float = BODY, fill: str = INK) -> float:
        """One line of markup, wrapped; where the next one goes."""
        for line in wrap(runs, right - left, size):
            y += LEAD * size / BODY
            self.add(words(line, left, y - 5, size, fill))
        return y

    def text(self, marked: str, size: float = BODY, fill: str = INK) -> None:
        """Markup over the whole width; a line's bold beginning can be pointed at from behind it."""
        for runs in parse(marked):
            if runs and runs[0].style == "bold":
                first = sum(width(run.text, size, run.style) for run in wrap(runs, self.right - self.left, size)[0])
                self.note(runs[0].text, min(self.left + first + 2, self.right), self.y + LEAD / 2)
            self.y = self.lines(runs, self.left, self.right, self.y, size, fill)

    def heading(self, text: str, size: float) -> None:
        """Bold words alone on their line, which can be pointed at from behind them."""
        self.note(text, self.left + width(text, size, "bold") + 2, self.y + size * 0.75)
        for line in wrap([Run(text, "bold")], self.right - self.left, size):
            self.y += size * 1.45
            self.add(words(line, self.left, self.y - size * 0.4, size))

    def buttons(self, buttons: list[Json], x: float) -> None:
        """Buttons in a row from `x` on, with room below for their numbers."""
        for button in buttons:
            text = button["text"]["text"]
            wide = round(width(text, 13, "bold")) + 26
            fill = {"primary": GREEN, "danger": RED}.get(button.get("style", ""), PAPER)
            ink, edge = (INK, LINE) if fill == PAPER else (PAPER, fill)
            self.add(box(x, self.y, wide, BUTTON, fill, edge))
            self.add(label(text, x + wide / 2, self.y + 21, 13, ink, text_anchor="middle", font_weight="bold"))
            self.note(text, x + wide / 2, self.y + BUTTON, "below")
            x += wide + 10
        below = any(button["text"]["text"].startswith(self.marks) for button in buttons)
        self.y += BUTTON + (2 * MARK + 12 if below else 4)

    def _header(self, block: Json) -> None:
        self.y += 6
        self.heading(block["text"]["text"], 18)
        self.y += 6

    def _section(self, block: Json) -> None:
        if "text" in block:
            self.text(block["text"]["text"])
        fields = block.get("fields", [])
        for pair in (fields[at : at + 2] for at in range(0, len(fields), 2)):
            self.y = max(self._field(one["text"], column) for column, one in enumerate(pair)) + 6
        self.y += 6

    def _field(self, marked: str, column: int) -> float:
        middle = (self.left + self.right) / 2
        left, right = (self.left, middle - 12) if column == 0 else (middle + 4, self.right)
        y = self.y
        for runs in parse(marked):
            if runs and runs[0].style == "bold":
                self.note(runs[0].text, left + width(runs[0].text, BODY, "bold") + 2, y + LEAD / 2)
            y = self.lines(runs, left, right, y)
        return y

    def _context(self, block: Json) -> None:
        for one in block["elements"]:
            self.text(one["text"], SMALL, GREY)
        self.y += 8

    def _actions(self, block: Json) -> None:
        self.buttons(block["elements"], self.left)
        self.y += 6

    def _divider(self, _block: Json) -> None:
        self.add(rule(self.left, self.y + 6, self.right, self.y + 6))
        self.y += 14

    def _rich_text(self, block: Json) -> None:
        for element in block["elements"]:
            runs = [_rich(one) for one in element["elements"]]
            if element["type"] == "rich_text_quote":
                top, self.y = self.y, self.lines(runs, self.left + 14, self.right, self.y)
                self.add(box(self.left, top + 1, 4, self.y - top - 2, LINE, "none", 2))
            else:
                self.y = self.lines(runs, self.left, self.right, self.y)
        self.y += 6

    def _input(self, block: Json) -> None:
        """A form's field: label, box with what is in it, hint."""
        name, element = block["label"]["text"], block["element"]
        self.text(f"*{name}*{' (optional)' if block.get('optional') else ''}")
        high = 76 if element.get("multiline") else 36
        self.add(box(self.left, self.y + 2, self.right - self.left, high))
        filled, empty = element.get("initial_value", ""), element.get("placeholder", {}).get("text", "")
        self.add(label(filled or empty, self.left + 12, self.y + 25, BODY, INK if filled else GREY))
        self.spots[name] = Spot(self.right, self.y + 2 + high / 2, "right")
        self.y += high + 5
        if block.get("hint"):
            self.text(escape(block["hint"]["text"]), SMALL, GREY)
        self.y += 10

    def _data_table(self, block: Json) -> None:
        """Caption, bold first row, and columns as wide as what is in them asks for."""
        self.heading(block["caption"], BODY)
        rows = [["".join(run.text for run in _cell(cell)) for cell in row] for row in block["rows"]]
        wants = [max(width(row[column], SMALL, "bold") for row in rows) + 14 for column in range(len(rows[0]))]
        scale = (self.right - self.left) / sum(wants)
        top = self.y + 4
        for index, row in enumerate(rows):
            x, y = self.left, top + 24 * index
            if index:
                self.add(rule(self.left, y, self.right, y))
            for text, want in zip(row, wants, strict=True):
                self.add(words([Run(text, "plain" if index else "bold")], x + 8, y + 16.5, SMALL))
                x += want * scale
        self.add(tag("rect", x=self.left, y=top, width=self.right - self.left, height=24 * len(rows), rx=6,
                     fill="none", stroke=LINE))  # fmt: skip
        self.y = top + 24 * len(rows) + 14

    def _data_visualization(self, block: Json) -> None:
        """A small chart with its series' names behind the title."""
        chart, high = block["chart"], 84
        self.heading(block["title"], BODY)
        x = self.right
        for index, one in reversed(list(enumerate(chart["series"]))):
            self.add(label(one["name"], x, self.y - 6, SMALL, GREY, text_anchor="end"))
            x -= width(one["name"], SMALL) + 16
            self.add(box(x, self.y - 15, 10, 10, SERIES[index], "none", 2))
            x -= 14
        left, top = self.left + 56, self.y + 6
        peak = max(point["value"] for one in chart["series"] for point in one["data"])
        self.add(rule(left, top, left, top + high), rule(left, top + high, self.right, top + high))
        self.add(label(f"{peak:.3g}", left - 6, top + 10, SMALL, GREY, text_anchor="end"))
        self.add(label("0", left - 6, top + high, SMALL, GREY, text_anchor="end"))
        step = (self.right - left) / len(chart["axis_config"]["categories"])
        for index, category in enumerate(chart["axis_config"]["categories"]):
            middle = left + step * (index + 0.5)
            self.add(label(category, middle, top + high + 15, SMALL, GREY, text_anchor="middle"))
        draw = _line if chart["type"] == "line" else _bars
        for index, one in enumerate(chart["series"]):
            heights = [high * 0.95 * point["value"] / peak for point in one["data"]]
            self.add(draw(heights, left, top + high, step, index, len(chart["series"])))
        self.y = top + high + 28


def _line(heights: list[float], left: float, floor: float, step: float, index: int, _of: int) -> str:
    points = " ".join(f"{left + step * (at + 0.5):.1f},{floor - high:.1f}" for at, high in enumerate(heights))
    return tag("polyline", points=points, fill="none", stroke=SERIES[index], stroke_width=2)


def _bars(heights: list[float], left: float, floor: float, step: float, index: int, of: int) -> str:
    wide = min(36.0, step * 0.6 / of)
    return "".join(
        box(left + step * (at + 0.5) + wide * (index - of / 2), floor - high, wide - 2, high, SERIES[index], "none", 2)
        for at, high in enumerate(heights)
    )


def _rich(element: Json) -> Run:
    if element["type"] == "user":
        return Run(named("@", element["user_id"]), "mention")
    return Run(element.get("text", ""), "code" if element.get("style", {}).get("code") else "plain")


def _cell(cell: Json) -> list[Run]:
    if cell["type"] == "rich_text":
        return [_rich(one) for part in cell["elements"] for one in part["elements"]]
    return [Run(cell["text"])]


# -- surfaces ---------------------------------------------------------------------------------------------------------
def avatar(x: float, y: float) -> str:
    """The bot's square: a signal with a green light."""
    return (
        box(x, y, 36, 36, PLUM, "none", 8)
        + box(x + 12, y + 6, 12, 24, INK, "none", 5)
        + tag("circle", cx=x + 18, cy=y + 13, r=4, fill="#7a4048")
        + tag("circle", cx=x + 18, cy=y + 23, r=4, fill="#2eb67d")
    )


def named_bot(x: float, y: float, after: str) -> str:
    """The bot's name, the tag of an app, and a grey word."""
    return (
        label("Signalbox", x, y, 15, INK, font_weight="bold")
        + box(x + 88, y - 12, 34, 15, BACKDROP, "none", 3)
        + label("APP", x + 105, y - 1, 10, GREY, text_anchor="middle", font_weight="bold")
        + label(after, x + 132, y, SMALL, GREY)
    )


def message(payload: Json, picture: Picture) -> str:
    """A message in a channel."""
    sheet = Sheet(left=68, right=670, y=38, marks=picture.marks)
    sheet.add(avatar(18, 18), named_bot(68, 31, "12:00"))
    for block in payload["blocks"]:
        sheet.block(block)
    return _svg(sheet, picture, 720, sheet.y + 10)


def dialog(payload: Json, picture: Picture) -> str:
    """A form over the darkened page."""
    sheet = Sheet(left=54, right=496, y=92, marks=picture.marks)
    for block in payload["blocks"]:
        sheet.block(block)
    foot = sheet.y + 4
    sheet.y = foot + 14
    buttons = [{"text": payload["close"]}]
    buttons += [{"text": payload["submit"], "style": "primary"}] if "submit" in payload else []
    wide = sum(width(one["text"]["text"], 13, "bold") + 36 for one in buttons) - 10
    sheet.buttons(buttons, sheet.right - round(wide))
    end = sheet.y + 8
    under = [box(24, 20, 522, end - 20, PAPER, LINE, 10), avatar(40, 32)]
    under += [label(payload["title"]["text"], 88, 56, 18, INK, font_weight="bold"), rule(24, 80, 546, 80)]
    under += [rule(518, 44, 530, 56, GREY, 2), rule(518, 56, 530, 44, GREY, 2), rule(24, foot, 546, foot)]
    sheet.parts = under + sheet.parts
    return _svg(sheet, picture, 570, end + 20, BACKDROP)


def panel(payload: Json, picture: Picture) -> str:
    """The home page; of what waits for a decision, the first."""
    sheet = Sheet(left=32, right=670, y=112, marks=picture.marks)
    sheet.add(avatar(18, 16), named_bot(66, 39, ""), label("Home", 66, 82, BODY, INK, font_weight="bold"))
    sheet.add(label("Messages", 126, 82, BODY, GREY), label("About", 214, 82, BODY, GREY))
    sheet.add(rule(1, 94, 719, 94), rule(62, 94, 112, 94, PLUM, 3))
    first, more, rest = cut(payload["blocks"])
    for block in first:
        sheet.block(block)
    if more:
        sheet.text(f"… and {more} more below it", BODY, GREY)
        sheet.y += 8
    for block in rest:
        sheet.block(block)
    return _svg(sheet, picture, 720, sheet.y + 10)


def cut(blocks: list[Json]) -> tuple[list[Json], int, list[Json]]:
    """Blocks up to the first row of buttons, how many rows are left out, and the blocks from the next heading on."""
    kinds = [block["type"] for block in blocks]
    end = kinds.index("actions") + 1
    start = kinds.index("header", end)
    return blocks[:end], kinds[end:start].count("actions"), blocks[start:]


def _svg(sheet: Sheet, picture: Picture, wide: int, high: float, paper: str = PAPER) -> str:
    """The whole file: paper, what was drawn, then the numbers over it."""
    marks = [numbered(number, _find(sheet, mark)) for number, mark in enumerate(picture.marks, 1)]
    tall = round(high)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve" width="{wide}" height="{tall}" '
        f'viewBox="0 0 {wide} {tall}" role="img" font-family={quoteattr(SANS)}>',
        f"<title>{escape(picture.title)}</title>",
        box(0.5, 0.5, wide - 1, tall - 1, paper, LINE, 10),
        *sheet.parts,
        *marks,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _find(sheet: Sheet, mark: str) -> Spot:
    found = [name for name in sheet.spots if name.startswith(mark)]
    if not found:
        raise LookupError(f"nothing begins with {mark!r}; there are {', '.join(sheet.spots)}")
    return sheet.spots[mark if mark in found else found[0]]


def drawn(payloads: dict[str, Json]) -> dict[str, str]:
    """File name → SVG, of every picture in the guide."""
    surfaces = {"modal": dialog, "home": panel}
    return {
        f"{name}.svg": surfaces.get(payloads[one.payload].get("type", ""), message)(payloads[one.payload], one)
        for name, one in PICTURES.items()
    }
