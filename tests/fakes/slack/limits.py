"""Block Kit as Slack judges it: raw JSON in, Slack-like complaints out.

Written for the fake alone and on purpose apart from the bot's own linter: two independent readings of the same limits
catch each other's mistakes. Sources: Slack's Block Kit reference and slack_sdk's models. Elements are in `elements.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.fakes.slack.elements import (
    IN_ACTIONS,
    IN_INPUT,
    IN_SECTION,
    Judge,
    image_source,
    judge_element,
    judge_text,
    type_of,
)
from tests.fakes.slack.state import Json
from tests.fakes.slack.tables import data_table, data_visualization, rich_text, table

MESSAGE_BLOCKS = 50
VIEW_BLOCKS = 100
SECTION_TEXT = 3000
FIELD_TEXT = 2000
FIELDS = 10
HEADER_TEXT = 150
CONTEXT_ELEMENTS = 10
ACTIONS_ELEMENTS = 25
CONTEXT_ACTIONS_ELEMENTS = 5
MARKDOWN_TOTAL = 12_000  # all markdown blocks of one message together
LABEL_TEXT = 2000
BLOCK_ID = 255
IMAGE_TITLE = 2000
CHARTS = 2  # a message
VIEW_TITLE = 24
PRIVATE_METADATA = 3000
CALLBACK_ID = 255
VIEW_BYTES = 250_000
CARD_TITLE, CARD_BODY, CAROUSEL_CARDS, CONTAINER_BLOCKS = 150, 200, 10, 10

EVERYWHERE = {"section", "divider", "image", "actions", "context", "header", "input", "rich_text", "video"}
_DATA = {"table", "data_table", "data_visualization"}
_ONLY_MESSAGES = {"context_actions", "file", "markdown", "task_card", "plan", "card", "carousel", "container"}
SURFACES = {"message": EVERYWHERE | _DATA | _ONLY_MESSAGES, "modal": EVERYWHERE | {"alert"}, "home": EVERYWHERE}


def message_complaints(blocks: Any) -> list[str]:
    """What Slack would say of a message's blocks; nothing when it would take them."""
    judge = Judge()
    if isinstance(blocks, list) and len(blocks) > MESSAGE_BLOCKS:
        judge.say("", f"no more than {MESSAGE_BLOCKS} items allowed")
    _judge_blocks(judge, blocks, "message")
    if judge.complaints:
        return judge.complaints
    markdown = sum(len(block["text"]) for block in blocks if block["type"] == "markdown")
    if markdown > MARKDOWN_TOTAL:
        judge.say("", f"markdown blocks together must be less than {MARKDOWN_TOTAL + 1} characters")
    if sum(block["type"] == "data_visualization" for block in blocks) > CHARTS:
        judge.say("", f"no more than {CHARTS} data_visualization blocks allowed")
    if sum(block["type"] == "table" for block in blocks) > 1:
        judge.say("", "only_one_table_allowed")
    return judge.complaints


def view_complaints(view: Any) -> list[str]:
    """What Slack would say of a view (`modal` or `home`)."""
    judge = Judge(root="/view")
    if not isinstance(view, dict):
        return ["must be an object [json-pointer:/view]"]
    kind = type_of(view)
    if kind not in ("modal", "home"):
        judge.say("/type", "must be one of: modal, home")
        return judge.complaints
    shared = {"type", "blocks", "private_metadata", "callback_id", "external_id"}
    only_modal = {"title", "submit", "close", "clear_on_close", "notify_on_close", "submit_disabled"}
    judge.keys("", view, shared | (only_modal if kind == "modal" else set()))
    if kind == "modal":
        judge_text(judge, "/title", view.get("title"), VIEW_TITLE, kinds=("plain_text",))
        for key in ("submit", "close"):
            if view.get(key) is not None:
                judge_text(judge, f"/{key}", view[key], VIEW_TITLE, kinds=("plain_text",))
    for key, most in (("private_metadata", PRIVATE_METADATA), ("callback_id", CALLBACK_ID), ("external_id", 255)):
        if view.get(key) is not None:
            judge.string(f"/{key}", view[key], 0, most)
    blocks = view.get("blocks")
    if isinstance(blocks, list) and len(blocks) > VIEW_BLOCKS:
        judge.say("/blocks", f"no more than {VIEW_BLOCKS} items allowed")
    _judge_blocks(judge, blocks, kind)
    inputs = isinstance(blocks, list) and any(type_of(b) == "input" for b in blocks)
    if kind == "modal" and inputs and not view.get("submit"):
        judge.say("/submit", "a submit button is required when the view has input blocks")
    if len(json.dumps(view)) > VIEW_BYTES:
        judge.say("", "view_too_large")
    return judge.complaints


def _judge_blocks(judge: Judge, blocks: Any, surface: str, at: str = "/blocks") -> None:
    if not isinstance(blocks, list):
        judge.say(at, "must be an array")
        return
    seen: set[str] = set()
    for index, block in enumerate(blocks):
        here = f"{at}/{index}"
        kind = type_of(block)
        if kind not in SURFACES[surface]:
            judge.say(f"{here}/type", f"unsupported type: {kind}")
            continue
        block_id = block.get("block_id")
        if block_id is not None:
            if not isinstance(block_id, str) or len(block_id) > BLOCK_ID:
                judge.say(f"{here}/block_id", f"must be less than {BLOCK_ID + 1} characters")
            elif block_id in seen:
                judge.say(f"{here}/block_id", f"block_id already exists: {block_id}")
            seen.add(str(block_id))
        _BLOCKS[kind](judge, here, block)
        _unique_actions(judge, here, block)


def _unique_actions(judge: Judge, at: str, block: Json) -> None:
    seen: set[str] = set()
    for element in block["elements"] if isinstance(block.get("elements"), list) else []:
        action = element.get("action_id") if isinstance(element, dict) else None
        if isinstance(action, str) and action in seen:
            judge.say(f"{at}/elements", f"action_id already exists: {action}")
        seen.add(str(action))


def _section(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "text", "fields", "accessory", "expand"})
    if block.get("text") is None and not block.get("fields"):
        judge.say(at, "missing required field: text or fields")
    if block.get("text") is not None:
        judge_text(judge, f"{at}/text", block["text"], SECTION_TEXT)
    for index, item in enumerate(judge.items(f"{at}/fields", block.get("fields"), 0, FIELDS)):
        judge_text(judge, f"{at}/fields/{index}", item, FIELD_TEXT)
    if block.get("accessory") is not None:
        judge_element(judge, f"{at}/accessory", block["accessory"], IN_SECTION)


def _divider(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id"})


def _image(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "image_url", "slack_file", "alt_text", "title"})
    image_source(judge, at, block)
    if block.get("title") is not None:
        judge_text(judge, f"{at}/title", block["title"], IMAGE_TITLE, kinds=("plain_text",))


def _actions(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "elements"})
    for index, element in enumerate(judge.items(f"{at}/elements", block.get("elements"), 1, ACTIONS_ELEMENTS)):
        judge_element(judge, f"{at}/elements/{index}", element, IN_ACTIONS)


def _context_actions(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "elements"})
    for index, element in enumerate(judge.items(f"{at}/elements", block.get("elements"), 1, CONTEXT_ACTIONS_ELEMENTS)):
        judge_element(judge, f"{at}/elements/{index}", element, frozenset({"feedback_buttons", "icon_button"}))


def _context(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "elements"})
    for index, element in enumerate(judge.items(f"{at}/elements", block.get("elements"), 1, CONTEXT_ELEMENTS)):
        here = f"{at}/elements/{index}"
        if type_of(element) == "image":
            image_source(judge, here, element)
        else:
            judge_text(judge, here, element, SECTION_TEXT)


def _header(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "text", "level"})
    judge_text(judge, f"{at}/text", block.get("text"), HEADER_TEXT, kinds=("plain_text",))


def _input(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "label", "element", "dispatch_action", "hint", "optional"})
    judge_text(judge, f"{at}/label", block.get("label"), LABEL_TEXT, kinds=("plain_text",))
    if block.get("hint") is not None:
        judge_text(judge, f"{at}/hint", block["hint"], LABEL_TEXT, kinds=("plain_text",))
    judge_element(judge, f"{at}/element", block.get("element"), IN_INPUT)


def _markdown(judge: Judge, at: str, block: Json) -> None:
    judge.keys(at, block, {"type", "block_id", "text"})
    judge.string(f"{at}/text", block.get("text"), 1, MARKDOWN_TOTAL)


def _card(judge: Judge, at: str, block: Json) -> None:
    for key, most in (("title", CARD_TITLE), ("subtitle", CARD_TITLE), ("body", CARD_BODY)):
        if block.get(key) is not None:
            judge_text(judge, f"{at}/{key}", block[key], most)
    if not any(block.get(key) for key in ("hero_image", "title", "actions", "body")):
        judge.say(at, "missing required field: hero_image, title, actions or body")
    for index, element in enumerate(judge.items(f"{at}/actions", block.get("actions"), 0, None)):
        judge_element(judge, f"{at}/actions/{index}", element, frozenset({"button"}))


def _carousel(judge: Judge, at: str, block: Json) -> None:
    for index, card in enumerate(judge.items(f"{at}/elements", block.get("elements"), 1, CAROUSEL_CARDS)):
        _card(judge, f"{at}/elements/{index}", card if isinstance(card, dict) else {})


def _container(judge: Judge, at: str, block: Json) -> None:
    judge.items(f"{at}/child_blocks", block.get("child_blocks"), 1, CONTAINER_BLOCKS)
    if block.get("title") is not None:
        judge_text(judge, f"{at}/title", block["title"], CARD_TITLE)
    elif block.get("rich_text_title") is None:
        judge.say(at, "missing required field: title or rich_text_title")
    _judge_blocks(judge, block.get("child_blocks"), "message", f"{at}/child_blocks")


def _alert(judge: Judge, at: str, block: Json) -> None:
    judge_text(judge, f"{at}/text", block.get("text"), SECTION_TEXT)
    if block.get("level", "default") not in ("default", "info", "warning", "error", "success"):
        judge.say(f"{at}/level", "must be one of: default, info, warning, error, success")


def _taken_as_it_is(judge: Judge, at: str, block: Json) -> None:
    """Blocks whose inside is not judged here: video, file, task_card, plan."""


_BLOCKS: dict[str, Callable[[Judge, str, Json], None]] = {
    "section": _section,
    "divider": _divider,
    "image": _image,
    "actions": _actions,
    "context": _context,
    "context_actions": _context_actions,
    "header": _header,
    "input": _input,
    "markdown": _markdown,
    "rich_text": rich_text,
    "table": table,
    "data_table": data_table,
    "data_visualization": data_visualization,
    "card": _card,
    "carousel": _carousel,
    "container": _container,
    "alert": _alert,
    "video": _taken_as_it_is,
    "file": _taken_as_it_is,
    "task_card": _taken_as_it_is,
    "plan": _taken_as_it_is,
}
