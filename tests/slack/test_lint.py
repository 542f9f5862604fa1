"""The linter: each limit holds to the character, each rule has a payload that breaks it, and others agree with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.blocks import Block

from bot.slack import limits
from bot.slack.lint import lint, lint_message, lint_view
from tests.fakes.slack.limits import message_complaints, view_complaints
from tests.slack import golden

Json = dict[str, Any]
Build = Callable[[int], Json]


def x(count: int) -> str:
    return "x" * count


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> Json:
    return {"type": "mrkdwn", "text": text}


def section(text: str = "x", **more: Any) -> Json:
    return {"type": "section", "text": mrkdwn(text), **more}


def button(action: str = "a", **more: Any) -> Json:
    return {"type": "button", "action_id": action, "text": plain("Press"), **more}


def actions(*elements: Json) -> Json:
    return {"type": "actions", "elements": list(elements)}


def message(*blocks: Json, **more: Any) -> Json:
    return {"text": "x", "blocks": list(blocks), **more}


def modal(*blocks: Json, **more: Any) -> Json:
    return {"type": "modal", "title": plain("x"), "submit": plain("x"), "blocks": list(blocks or [section()]), **more}


def asked(element: Json | None = None, **more: Any) -> Json:
    typed = {"type": "plain_text_input", "action_id": "a"}
    return {"type": "input", "label": plain("x"), "element": element or typed, **more}


def confirmed(**changed: str) -> Json:
    said = {"title": "x", "text": "x", "confirm": "x", "deny": "x", **changed}
    return message(actions(button(confirm={name: plain(text) for name, text in said.items()})))


def chart(points: int = 2, series: int = 1, label: str = "l", **more: Any) -> Json:
    names = [f"{index}{label[len(str(index)) :]}" for index in range(points)]
    data = [
        {"name": f"s{number}", "data": [{"label": name, "value": 1.5} for name in names]} for number in range(series)
    ]
    axis = {"categories": names, "x_label": "x", "y_label": "y"}
    return {
        "type": "data_visualization",
        "title": "x",
        "chart": {"type": "line", "series": data, "axis_config": axis},
        **more,
    }


def cells(rows: int, columns: int, text: str = "x", kind: str = "table") -> Json:
    table = {"type": kind, "rows": [[{"type": "raw_text", "text": text}] * columns for _ in range(rows)]}
    return {**table, "caption": "x"} if kind == "data_table" else table


def options(kind: str, count: int, text: str = "x", value: str = "") -> Json:
    made = [{"text": plain(text), "value": value or f"v{index}"} for index in range(count)]
    return {"type": kind, "action_id": "a", "options": made}


def titled_axis(count: int) -> Json:
    made = chart()
    made["chart"]["axis_config"]["x_label"] = x(count)
    return message(made)


def feedback(action: str) -> Json:
    pressed = {"text": plain("x"), "value": "v"}
    return {"type": "feedback_buttons", "action_id": action, "positive_button": pressed, "negative_button": pressed}


# The limit → a payload with that many of it.
LIMITS: dict[str, tuple[int, Build]] = {
    "blocks of a message": (limits.MESSAGE_BLOCKS, lambda n: message(*[section()] * n)),
    "charts of a message": (limits.MESSAGE_CHARTS, lambda n: message(*[chart()] * n)),
    "tables of a message": (limits.MESSAGE_TABLES, lambda n: message(*[cells(1, 1)] * n)),
    "markdown": (limits.MESSAGE_MARKDOWN, lambda n: message({"type": "markdown", "text": x(n)})),
    "markdown together": (
        limits.MESSAGE_MARKDOWN,
        lambda n: message({"type": "markdown", "text": x(5)}, {"type": "markdown", "text": x(n - 5)}),
    ),
    "section text": (limits.SECTION_TEXT, lambda n: message(section(x(n)))),
    "section fields": (
        limits.SECTION_FIELDS,
        lambda n: message({"type": "section", "fields": [mrkdwn("x")] * n}),
    ),
    "field text": (limits.FIELD_TEXT, lambda n: message({"type": "section", "fields": [mrkdwn(x(n))]})),
    "block id": (limits.BLOCK_ID, lambda n: message(section(block_id=x(n)))),
    "header": (limits.HEADER_TEXT, lambda n: message({"type": "header", "text": plain(x(n))})),
    "context elements": (
        limits.CONTEXT_ELEMENTS,
        lambda n: message({"type": "context", "elements": [mrkdwn("x")] * n}),
    ),
    "context text": (limits.CONTEXT_TEXT, lambda n: message({"type": "context", "elements": [mrkdwn(x(n))]})),
    "actions": (limits.ACTIONS_ELEMENTS, lambda n: message(actions(*[button(f"a{one}") for one in range(n)]))),
    "context actions": (
        limits.CONTEXT_ACTIONS_ELEMENTS,
        lambda n: message({"type": "context_actions", "elements": [feedback(f"a{one}") for one in range(n)]}),
    ),
    "image title": (
        limits.IMAGE_TITLE,
        lambda n: message({"type": "image", "image_url": "https://x.example", "alt_text": "x", "title": plain(x(n))}),
    ),
    "alt text": (
        limits.ALT_TEXT,
        lambda n: message({"type": "image", "image_url": "https://x.example", "alt_text": x(n)}),
    ),
    "image url": (
        limits.IMAGE_URL,
        lambda n: message({"type": "image", "image_url": f"https://{x(n - 8)}", "alt_text": "x"}),
    ),
    "action id": (limits.ACTION_ID, lambda n: message(actions(button(x(n))))),
    "button text": (limits.BUTTON_TEXT, lambda n: message(actions(button() | {"text": plain(x(n))}))),
    "button value": (limits.BUTTON_VALUE, lambda n: message(actions(button(value=x(n))))),
    "button url": (limits.BUTTON_URL, lambda n: message(actions(button(url=f"https://{x(n - 8)}")))),
    "button label": (limits.ACCESSIBILITY_LABEL, lambda n: message(actions(button(accessibility_label=x(n))))),
    "confirm title": (limits.CONFIRM_TITLE, lambda n: confirmed(title=x(n))),
    "confirm text": (limits.CONFIRM_TEXT, lambda n: confirmed(text=x(n))),
    "confirm button": (limits.CONFIRM_BUTTON, lambda n: confirmed(confirm=x(n))),
    "deny button": (limits.CONFIRM_BUTTON, lambda n: confirmed(deny=x(n))),
    "select options": (limits.OPTIONS, lambda n: message(actions(options("static_select", n)))),
    "option text": (limits.OPTION_TEXT, lambda n: message(actions(options("static_select", 1, x(n))))),
    "option value": (limits.OPTION_VALUE, lambda n: message(actions(options("static_select", 1, value=x(n))))),
    "overflow": (limits.OVERFLOW_OPTIONS, lambda n: message(actions(options("overflow", n)))),
    "radio buttons": (limits.CHOICES, lambda n: message(actions(options("radio_buttons", n)))),
    "checkboxes": (limits.CHOICES, lambda n: message(actions(options("checkboxes", n)))),
    "chart title": (limits.CHART_TITLE, lambda n: message(chart(title=x(n)))),
    "chart points": (limits.CHART_POINTS, lambda n: message(chart(points=n))),
    "chart series": (limits.CHART_SERIES, lambda n: message(chart(series=n))),
    "chart label": (limits.CHART_LABEL, lambda n: message(chart(label=x(n)))),
    "chart axis": (limits.CHART_AXIS, titled_axis),
    "table rows": (limits.TABLE_ROWS, lambda n: message(cells(n, 1))),
    "table columns": (limits.TABLE_COLUMNS, lambda n: message(cells(1, n))),
    "table characters": (limits.TABLE_CHARACTERS, lambda n: message(cells(1, 1, x(n)))),
    "data table rows": (limits.DATA_TABLE_ROWS, lambda n: message(cells(n, 1, kind="data_table"))),
    "data table page": (
        limits.DATA_TABLE_PAGE,
        lambda n: message(cells(2, 1, kind="data_table") | {"page_size": n}),
    ),
    "blocks of a view": (limits.VIEW_BLOCKS, lambda n: modal(*[section()] * n)),
    "blocks of a home page": (limits.VIEW_BLOCKS, lambda n: {"type": "home", "blocks": [section()] * n}),
    "view title": (limits.VIEW_TITLE, lambda n: modal(title=plain(x(n)))),
    "view submit": (limits.VIEW_TITLE, lambda n: modal(submit=plain(x(n)))),
    "view close": (limits.VIEW_TITLE, lambda n: modal(close=plain(x(n)))),
    "private metadata": (limits.PRIVATE_METADATA, lambda n: modal(private_metadata=x(n))),
    "callback id": (limits.CALLBACK_ID, lambda n: modal(callback_id=x(n))),
    "external id": (limits.EXTERNAL_ID, lambda n: modal(external_id=x(n))),
    "label": (limits.INPUT_LABEL, lambda n: modal(asked(label=plain(x(n))))),
    "hint": (limits.INPUT_HINT, lambda n: modal(asked(hint=plain(x(n))))),
    "placeholder": (
        limits.PLACEHOLDER,
        lambda n: modal(asked({"type": "plain_text_input", "action_id": "a", "placeholder": plain(x(n))})),
    ),
    "input": (
        limits.INPUT_TEXT,
        lambda n: modal(asked({"type": "plain_text_input", "action_id": "a", "initial_value": x(n)})),
    ),
    "max length": (
        limits.INPUT_TEXT,
        lambda n: modal(asked({"type": "plain_text_input", "action_id": "a", "max_length": n})),
    ),
}
# Limits of the message around the blocks, which the fake judges elsewhere.
AROUND: dict[str, tuple[int, Build]] = {
    "text": (limits.MESSAGE_TEXT, lambda n: {"text": x(n)}),
    "event type": (
        limits.EVENT_TYPE,
        lambda n: message(section(), metadata={"event_type": x(n), "event_payload": {}}),
    ),
}


def fake(payload: Json) -> list[str]:
    return view_complaints(payload) if "type" in payload else message_complaints(payload["blocks"])


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_holds_to_the_character(name: str) -> None:
    most, build = LIMITS[name]
    assert lint(build(most)) == []
    assert lint(build(most + 1)) != []


@pytest.mark.parametrize("name", LIMITS)
def test_the_fake_reads_the_limit_alike(name: str) -> None:
    most, build = LIMITS[name]
    assert fake(build(most)) == []
    assert fake(build(most + 1)) != []


@pytest.mark.parametrize("name", AROUND)
def test_each_limit_around_the_blocks(name: str) -> None:
    most, build = AROUND[name]
    assert lint_message(build(most)) == []
    assert lint_message(build(most + 1)) != []


def test_a_view_may_be_only_so_large() -> None:
    assert lint_view(modal(*[section(x(2400))] * 100)) == []
    assert any("bytes" in said for said in lint_view(modal(*[section(x(2500))] * 100)))


def broken_chart(change: Callable[[Json], object]) -> Json:
    made = chart()
    change(made["chart"])
    return message(made)


BROKEN: dict[str, Json] = {
    "unknown block": message({"type": "marquee"}),
    "no type": message({"text": "x"}),
    "block that is no object": message("x"),  # type: ignore[arg-type]
    "no blocks in a list": {"text": "x", "blocks": {}},
    "no text": {"blocks": [section()]},
    "empty text": {"text": " ", "blocks": [section()]},
    "empty section": message({"type": "section"}),
    "empty mrkdwn": message(section("")),
    "unknown member": message(section(colour="red")),
    "mrkdwn header": message({"type": "header", "text": mrkdwn("x")}),
    "mrkdwn button": message(actions(button() | {"text": mrkdwn("x")})),
    "mrkdwn title": modal(title=mrkdwn("x")),
    "mrkdwn label": modal(asked(label=mrkdwn("x"))),
    "no title": {"type": "modal", "blocks": [section()]},
    "unknown view": {"type": "sheet", "blocks": [section()]},
    "same block id": message(section(block_id="a"), section(block_id="a")),
    "same action id": message(actions(button("a"), button("a"))),
    "no buttons": message(actions()),
    "button style": message(actions(button(style="green"))),
    "input without submit": {"type": "modal", "title": plain("x"), "blocks": [asked()]},
    "button as input": modal(asked(button())),
    "input in actions": message(actions({"type": "plain_text_input", "action_id": "a"})),
    "longer than max_length": modal(
        asked({"type": "plain_text_input", "action_id": "a", "initial_value": "xxx", "max_length": 2})
    ),
    "chart in a modal": modal(chart()),
    "markdown on a home page": {"type": "home", "blocks": [{"type": "markdown", "text": "x"}]},
    "feedback in actions": message(actions(feedback("a"))),
    "button in context actions": message({"type": "context_actions", "elements": [button()]}),
    "image without alt text": message({"type": "image", "image_url": "https://x.example"}),
    "image with two sources": message(
        {"type": "image", "image_url": "https://x.example", "slack_file": {"id": "F1"}, "alt_text": "x"}
    ),
    "uneven table": message({"type": "table", "rows": [[{"type": "raw_text", "text": "x"}], []]}),
    "data table without rows": message(cells(1, 1, kind="data_table")),
    "data table without caption": message(
        {"type": "data_table", "rows": cells(2, 1)["rows"]},
    ),
    "chart of another kind": broken_chart(lambda made: made.update(type="radar")),
    "chart without axis": broken_chart(lambda made: made.pop("axis_config")),
    "chart without number": broken_chart(lambda made: made["series"][0]["data"][0].update(value=float("nan"))),
    "chart with text": broken_chart(lambda made: made["series"][0]["data"][0].update(value="1")),
    "labels that differ": broken_chart(lambda made: made["series"][0]["data"][0].update(label="other")),
    "series twice": broken_chart(lambda made: made["series"].append(made["series"][0])),
    "pie of nothing": message(chart(chart={"type": "pie", "segments": [{"label": "a", "value": 0}]})),
    "empty markdown": message({"type": "markdown", "text": ""}),
    "nobody's option": message(
        actions(options("static_select", 1) | {"initial_option": {"text": plain("y"), "value": "y"}})
    ),
}
# Where we are stricter than Slack: it would show these, we never want to send them.
STRICTER: dict[str, Json] = {
    "calls everybody": message(section("<!channel>")),
    "calls everybody, labelled": message(section("<!here|here>")),
    "another tag": message(section("<tel:1>")),
    "unescaped": message(section("1 < 2")),
    "script": message(section("<javascript:alert(1)|x>")),
    "in the text": message(section()) | {"text": "<!everyone>"},
    "deep metadata": message(section(), metadata={"event_type": "a", "event_payload": {"a": {}}}),
    "no action id": message(actions({"type": "button", "text": plain("x")})),
    "url of another kind": message(actions(button(url="slack://open"))),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_refuses(name: str) -> None:
    assert lint(BROKEN[name]) != []


@pytest.mark.parametrize("name", sorted(set(BROKEN) - {"no text", "empty text", "unknown view"}))
def test_the_fake_refuses_it_too(name: str) -> None:
    assert fake(BROKEN[name]) != []


def test_an_unknown_view_is_refused_as_a_view() -> None:
    assert lint_view(BROKEN["unknown view"]) and view_complaints(BROKEN["unknown view"])


@pytest.mark.parametrize("name", STRICTER)
def test_where_we_are_stricter(name: str) -> None:
    assert lint(STRICTER[name]) != []


def test_a_complaint_says_where() -> None:
    assert lint_message(message(section(), section(x(3001))))[0].startswith("/blocks/1/text/text: ")


def test_what_the_payload_holds_is_not_changed() -> None:
    for payload in golden.payloads().values():
        before = copy.deepcopy(payload)
        lint(payload)
        assert payload == before


# -- others -----------------------------------------------------------------------------------------------------------
NO_MODEL = {"data_table", "data_visualization", "table"}  # slack_sdk has none, or lets everything through


def sdk_refuses(block: Json) -> bool:
    """Whether slack_sdk's own model says that this block is wrong."""
    try:
        parsed = Block.parse(copy.deepcopy(block))
        if parsed is None:
            return False
        parsed.validate_json()
    except SlackObjectFormationError:
        return True
    except (TypeError, ValueError, AttributeError, KeyError):
        return True
    return False


def blocks_of(payload: Json) -> list[Json]:
    blocks = payload.get("blocks")
    return [one for one in blocks if isinstance(one, dict)] if isinstance(blocks, list) else []


def test_what_slack_sdk_refuses_we_refuse() -> None:
    """Over every broken payload here: it finds some of them, and none that we let through."""
    refused = 0
    broken = {**{name: build(most + 1) for name, (most, build) in LIMITS.items()}, **BROKEN}
    for name, payload in broken.items():
        if any(sdk_refuses(block) for block in blocks_of(payload)):
            refused += 1
            assert lint(payload) != [], name
    assert refused >= 15


@pytest.mark.parametrize("name", LIMITS)
def test_at_the_limit_slack_sdk_takes_it(name: str) -> None:
    most, build = LIMITS[name]
    assert not any(sdk_refuses(block) for block in blocks_of(build(most)) if block["type"] not in NO_MODEL)


@pytest.mark.parametrize("name", sorted(golden.payloads()))
def test_slack_sdk_takes_what_we_send(name: str) -> None:
    for block in golden.payloads()[name]["blocks"]:
        assert block["type"] in NO_MODEL or not sdk_refuses(block)
