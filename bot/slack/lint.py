"""`lint`: every limit and rule of Slack over the raw JSON of a message, a modal or a home page. Pure.

Slack answers a bad payload with `invalid_blocks` and no card; no public validator checks everything, so this one does,
in tests, over every payload that the bot can send. It knows the blocks that the bot may use and refuses all others, and
it is stricter than Slack where that is safer: unknown members, unescaped markup and calls to everybody are faults. The
numbers are in `bot.slack.limits`, the elements in `lint_elements`, tables and charts in `lint_data`, the language of it
all in `lint_rules`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bot.slack import limits
from bot.slack.lint_data import CHART, DATA_TABLE, RICH_TEXT, TABLE
from bot.slack.lint_elements import IMAGE_SOURCE, IN_ACTIONS, IN_CONTEXT, IN_CONTEXT_ACTIONS, IN_INPUT, IN_SECTION
from bot.slack.lint_rules import (
    Rule,
    any_of,
    array,
    boolean,
    by_type,
    exactly_one_of,
    fields,
    markup,
    one_of,
    plain,
    string,
    text,
    typed,
)

_ID: Mapping[str, Rule] = {"block_id": string(1, limits.BLOCK_ID)}

BLOCKS: Mapping[str, Rule] = {
    "section": typed(
        "section",
        {},
        {
            **_ID,
            "text": text(limits.SECTION_TEXT),
            "fields": array(text(limits.FIELD_TEXT), 1, limits.SECTION_FIELDS),
            "accessory": IN_SECTION,
            "expand": boolean,
        },
        any_of("text", "fields"),
    ),
    "divider": typed("divider", {}, _ID),
    "header": typed("header", {"text": plain(limits.HEADER_TEXT)}, _ID),
    "image": typed(
        "image",
        {"alt_text": string(1, limits.ALT_TEXT)},
        {**_ID, **IMAGE_SOURCE, "title": plain(limits.IMAGE_TITLE)},
        exactly_one_of(*IMAGE_SOURCE),
    ),
    "context": typed("context", {"elements": array(IN_CONTEXT, 1, limits.CONTEXT_ELEMENTS)}, _ID),
    "actions": typed("actions", {"elements": array(IN_ACTIONS, 1, limits.ACTIONS_ELEMENTS)}, _ID),
    "context_actions": typed(
        "context_actions", {"elements": array(IN_CONTEXT_ACTIONS, 1, limits.CONTEXT_ACTIONS_ELEMENTS)}, _ID
    ),
    "input": typed(
        "input",
        {"label": plain(limits.INPUT_LABEL), "element": IN_INPUT},
        {**_ID, "hint": plain(limits.INPUT_HINT), "optional": boolean, "dispatch_action": boolean},
    ),
    "markdown": typed("markdown", {"text": string(1, limits.MESSAGE_MARKDOWN)}, _ID),
    "rich_text": RICH_TEXT,
    "table": TABLE,
    "data_table": DATA_TABLE,
    "data_visualization": CHART,
}
_EVERYWHERE = {"section", "divider", "header", "image", "context", "actions", "input", "rich_text"}
_SURFACES: Mapping[str, frozenset[str]] = {
    "message": frozenset(BLOCKS),
    "modal": frozenset(_EVERYWHERE),
    "home": frozenset(_EVERYWHERE),
}


def lint(payload: Mapping[str, Any]) -> list[str]:
    """What is wrong with a message (`text`, `blocks`, `metadata`) or view; nothing if Slack takes it.

    Each sentence begins with the JSON pointer of the place.
    """
    return lint_view(payload) if payload.get("type") in ("modal", "home") else lint_message(payload)


def lint_message(payload: Mapping[str, Any]) -> list[str]:
    """What is wrong with a message: `text`, and `blocks` and `metadata` where it has them."""
    return list(_message(payload))


def lint_view(view: Mapping[str, Any]) -> list[str]:
    """What is wrong with a modal or a home page."""
    if view.get("type") not in ("modal", "home"):
        return ["/type: must be one of modal, home"]
    return list(_view(view))


def _message(payload: Mapping[str, Any]) -> Iterator[str]:
    said = payload.get("text")
    if not isinstance(said, str) or not said.strip():
        yield "/text: is missing; notifications and plain clients show nothing else"
    else:
        yield from string(1, limits.MESSAGE_TEXT)(said, "/text")
        yield from markup(said, "/text")
    if payload.get("metadata") is not None:
        yield from _METADATA(payload["metadata"], "/metadata")
    if payload.get("blocks") is not None:
        yield from _blocks(payload["blocks"], "message", limits.MESSAGE_BLOCKS)
        yield from _together(payload["blocks"])


def _flat(value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, dict) or not all(isinstance(one, str | int | bool) for one in value.values()):
        yield f"{at}: must be an object of texts and numbers"


_METADATA = fields({"event_type": string(1, limits.EVENT_TYPE, r"[A-Za-z0-9_.-]+"), "event_payload": _flat})


def _together(blocks: Any) -> Iterator[str]:
    """What a message may hold only so much of."""
    kinds = [block.get("type") for block in blocks if isinstance(block, dict)] if isinstance(blocks, list) else []
    if kinds.count("data_visualization") > limits.MESSAGE_CHARTS:
        yield f"/blocks: {limits.MESSAGE_CHARTS} charts are allowed"
    if kinds.count("table") > limits.MESSAGE_TABLES:
        yield f"/blocks: {limits.MESSAGE_TABLES} table is allowed"
    if "markdown" in kinds:
        written = sum(len(str(block.get("text", ""))) for block in blocks if block.get("type") == "markdown")
        if written > limits.MESSAGE_MARKDOWN:
            yield f"/blocks: {limits.MESSAGE_MARKDOWN} characters of markdown are allowed together"


_VIEW_SHARED: Mapping[str, Rule] = {
    "private_metadata": string(0, limits.PRIVATE_METADATA),
    "callback_id": string(1, limits.CALLBACK_ID),
    "external_id": string(1, limits.EXTERNAL_ID),
}


def _anything(value: Any, at: str) -> Iterator[str]:
    yield from ()


_MODAL = fields(
    {"type": one_of("modal"), "title": plain(limits.VIEW_TITLE), "blocks": _anything},
    {
        **_VIEW_SHARED,
        "submit": plain(limits.VIEW_TITLE),
        "close": plain(limits.VIEW_TITLE),
        "clear_on_close": boolean,
        "notify_on_close": boolean,
    },
)
_HOME = fields({"type": one_of("home"), "blocks": _anything}, _VIEW_SHARED)


def _view(payload: Mapping[str, Any]) -> Iterator[str]:
    kind = str(payload["type"])
    yield from (_MODAL if kind == "modal" else _HOME)(payload, "")
    blocks = payload.get("blocks")
    yield from _blocks(blocks, kind, limits.VIEW_BLOCKS)
    asks = isinstance(blocks, list) and any(isinstance(one, dict) and one.get("type") == "input" for one in blocks)
    if kind == "modal" and asks and not payload.get("submit"):
        yield "/submit: is missing; a modal with inputs needs one"
    if len(json.dumps(payload).encode()) > limits.VIEW_BYTES:
        yield f": has more than {limits.VIEW_BYTES} bytes"


def _blocks(blocks: Any, surface: str, most: int) -> Iterator[str]:
    known = by_type({kind: rule for kind, rule in BLOCKS.items() if kind in _SURFACES[surface]})
    yield from array(known, 1, most)(blocks, "/blocks")
    seen: set[str] = set()
    for index, block in enumerate(blocks if isinstance(blocks, list) else []):
        name = block.get("block_id") if isinstance(block, dict) else None
        if isinstance(name, str):
            if name in seen:
                yield f"/blocks/{index}/block_id: {name} is used twice"
            seen.add(name)
        yield from _actions_once(block, f"/blocks/{index}")


def _actions_once(block: Any, at: str) -> Iterator[str]:
    """An action id names one element of a block."""
    elements = block.get("elements") if isinstance(block, dict) else None
    names = [one.get("action_id") for one in elements if isinstance(one, dict)] if isinstance(elements, list) else []
    for name in {name for name in names if isinstance(name, str) and names.count(name) > 1}:
        yield f"{at}/elements: the action id {name} is used twice"
