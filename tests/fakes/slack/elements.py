"""Texts and interactive elements as Slack judges them; the blocks around them are in `limits.py`.

A `Judge` gathers complaints with the JSON pointer Slack would print, so that a refused payload says what to mend.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.slack.state import INTERACTIVE, Json

ACTION_ID = 255
BUTTON_TEXT = 75
BUTTON_VALUE = 2000
URL = 3000
ALT_TEXT = 2000
PLACEHOLDER = 150
OPTIONS = 100
OPTION_TEXT = 75
OPTION_VALUE = 150
OVERFLOW_OPTIONS = 5
CHOICES = 10  # radio buttons and checkboxes
INPUT_TEXT = 3000
CONFIRM = {"title": 100, "text": 300, "confirm": 30, "deny": 30}

_PRESSED = {"button", "overflow", "feedback_buttons", "icon_button", "workflow_button"}
_TYPED = {"email_text_input", "file_input", "number_input", "plain_text_input", "url_text_input"}
_MARKS = {"feedback_buttons", "icon_button"}
IN_INPUT = INTERACTIVE - _PRESSED
IN_ACTIONS = INTERACTIVE - _TYPED - _MARKS
IN_SECTION = INTERACTIVE - _TYPED - _MARKS - {"rich_text_input", "datetimepicker"} | {"image"}


@dataclass
class Judge:
    root: str = ""
    complaints: list[str] = field(default_factory=list)

    def say(self, at: str, what: str) -> None:
        self.complaints.append(f"{what} [json-pointer:{self.root}{at}]")

    def keys(self, at: str, node: Json, allowed: set[str]) -> None:
        for key in node:
            if key not in allowed:
                self.say(at, f"invalid additional property: {key}")

    def string(self, at: str, value: Any, least: int, most: int | None) -> None:
        if not isinstance(value, str):
            self.say(at, "missing required field" if value is None else "must be a string")
        elif len(value) < least:
            self.say(at, f"must be more than {least - 1} characters")
        elif most is not None and len(value) > most:
            self.say(at, f"must be less than {most + 1} characters")

    def items(self, at: str, value: Any, least: int, most: int | None) -> list[Any]:
        """The items of an array whose length is judged; empty where there is none to look into."""
        if value is None and least == 0:
            return []
        if not isinstance(value, list):
            self.say(at, "missing required field" if value is None else "must be an array")
            return []
        if len(value) < least:
            self.say(at, f"no fewer than {least} items allowed")
        if most is not None and len(value) > most:
            self.say(at, f"no more than {most} items allowed")
        return value


def type_of(node: Any) -> str:
    """The `type` of a JSON object; empty for anything that has none."""
    kind = node.get("type") if isinstance(node, dict) else None
    return kind if isinstance(kind, str) else ""


def judge_text(
    judge: Judge, at: str, node: Any, most: int, *, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")
) -> None:
    if not isinstance(node, dict):
        judge.say(at, "missing required field" if node is None else "must be an object")
        return
    if type_of(node) not in kinds:
        judge.say(f"{at}/type", f"unsupported type: {node.get('type')}")
        return
    judge.keys(at, node, {"type", "text"} | ({"emoji"} if node["type"] == "plain_text" else {"verbatim"}))
    judge.string(f"{at}/text", node.get("text"), 1, most)


def image_source(judge: Judge, at: str, node: Json) -> None:
    if (node.get("image_url") is None) == (node.get("slack_file") is None):
        judge.say(at, "exactly one of image_url and slack_file is required")
    if node.get("image_url") is not None:
        judge.string(f"{at}/image_url", node["image_url"], 1, URL)
        if not str(node["image_url"]).startswith(("https://", "http://")):
            judge.say(f"{at}/image_url", "invalid url")
    judge.string(f"{at}/alt_text", node.get("alt_text"), 1, ALT_TEXT)


def judge_element(judge: Judge, at: str, element: Any, allowed: frozenset[str]) -> None:
    kind = type_of(element)
    if kind not in allowed:
        judge.say(f"{at}/type", f"unsupported type: {kind}")
        return
    if kind == "image":
        image_source(judge, at, element)
        return
    if element.get("action_id") is not None:
        judge.string(f"{at}/action_id", element["action_id"], 1, ACTION_ID)
    if element.get("placeholder") is not None:
        judge_text(judge, f"{at}/placeholder", element["placeholder"], PLACEHOLDER, kinds=("plain_text",))
    if element.get("confirm") is not None:
        _confirm(judge, f"{at}/confirm", element["confirm"])
    if kind == "button":
        _button(judge, at, element)
    elif kind in ("static_select", "multi_static_select"):
        _select(judge, at, element)
    elif kind in ("radio_buttons", "checkboxes"):
        _options(judge, f"{at}/options", element.get("options"), 1, CHOICES, kinds=("plain_text", "mrkdwn"))
        _initial(judge, at, element)
    elif kind == "overflow":
        _options(judge, f"{at}/options", element.get("options"), 1, OVERFLOW_OPTIONS)
    elif kind == "plain_text_input":
        _plain_text_input(judge, at, element)
    elif kind == "number_input":
        _number_input(judge, at, element)
    elif kind == "datepicker" and element.get("initial_date") is not None:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", str(element["initial_date"])):
            judge.say(f"{at}/initial_date", "must be YYYY-MM-DD")
    elif kind == "timepicker" and element.get("initial_time") is not None:
        if not re.fullmatch(r"\d\d:\d\d", str(element["initial_time"])):
            judge.say(f"{at}/initial_time", "must be HH:mm")
    elif kind == "feedback_buttons":
        judge.keys(at, element, {"type", "action_id", "positive_button", "negative_button"})
        for key in ("positive_button", "negative_button"):
            _feedback(judge, f"{at}/{key}", element.get(key))


def _button(judge: Judge, at: str, element: Json) -> None:
    allowed = "type action_id text url value style confirm accessibility_label agent_prompt"
    judge.keys(at, element, set(allowed.split()))
    judge_text(judge, f"{at}/text", element.get("text"), BUTTON_TEXT, kinds=("plain_text",))
    for key, most in (("value", BUTTON_VALUE), ("url", URL), ("accessibility_label", BUTTON_TEXT)):
        if element.get(key) is not None:
            judge.string(f"{at}/{key}", element[key], 0, most)
    if "style" in element and element["style"] not in ("primary", "danger"):
        judge.say(f"{at}/style", "must be one of: primary, danger")


def _feedback(judge: Judge, at: str, button: Any) -> None:
    if not isinstance(button, dict):
        judge.say(at, "missing required field")
        return
    judge.keys(at, button, {"text", "value", "accessibility_label"})
    judge_text(judge, f"{at}/text", button.get("text"), BUTTON_TEXT, kinds=("plain_text",))
    judge.string(f"{at}/value", button.get("value"), 1, BUTTON_VALUE)


def _confirm(judge: Judge, at: str, node: Any) -> None:
    if not isinstance(node, dict):
        judge.say(at, "must be an object")
        return
    judge.keys(at, node, {*CONFIRM, "style"})
    for key, most in CONFIRM.items():
        if node.get(key) is not None or key in ("title", "text"):
            kinds = ("plain_text", "mrkdwn") if key == "text" else ("plain_text",)
            judge_text(judge, f"{at}/{key}", node.get(key), most, kinds=kinds)


def _options(
    judge: Judge, at: str, options: Any, least: int, most: int, *, kinds: tuple[str, ...] = ("plain_text",)
) -> None:
    for index, option in enumerate(judge.items(at, options, least, most)):
        if not isinstance(option, dict):
            judge.say(f"{at}/{index}", "must be an object")
            continue
        judge.keys(f"{at}/{index}", option, {"text", "value", "description", "url"})
        judge_text(judge, f"{at}/{index}/text", option.get("text"), OPTION_TEXT, kinds=kinds)
        judge.string(f"{at}/{index}/value", option.get("value"), 1, OPTION_VALUE)
        if option.get("description") is not None:
            judge_text(judge, f"{at}/{index}/description", option["description"], OPTION_TEXT, kinds=kinds)


def _select(judge: Judge, at: str, element: Json) -> None:
    if ("options" in element) == ("option_groups" in element):
        judge.say(at, "exactly one of options and option_groups is required")
    if "options" in element:
        _options(judge, f"{at}/options", element["options"], 1, OPTIONS)
    for index, group in enumerate(judge.items(f"{at}/option_groups", element.get("option_groups"), 0, OPTIONS)):
        if not isinstance(group, dict):
            judge.say(f"{at}/option_groups/{index}", "must be an object")
            continue
        judge_text(judge, f"{at}/option_groups/{index}/label", group.get("label"), OPTION_TEXT, kinds=("plain_text",))
        _options(judge, f"{at}/option_groups/{index}/options", group.get("options"), 1, OPTIONS)
    _initial(judge, at, element)


def _listed(node: Json, key: str) -> list[Any]:
    value = node.get(key)
    return value if isinstance(value, list) else []


def _initial(judge: Judge, at: str, element: Json) -> None:
    """What is chosen beforehand must be one of the choices, in every detail."""
    groups = [element, *_listed(element, "option_groups")]
    choices = [option for group in groups if isinstance(group, dict) for option in _listed(group, "options")]
    one = element.get("initial_option")
    if one is not None and one not in choices:
        judge.say(f"{at}/initial_option", "must be one of the provided options")
    for option in _listed(element, "initial_options"):
        if option not in choices:
            judge.say(f"{at}/initial_options", "must be among the provided options")


def _plain_text_input(judge: Judge, at: str, element: Json) -> None:
    least, most = element.get("min_length", 0), element.get("max_length", INPUT_TEXT)
    if not (isinstance(least, int) and 0 <= least <= INPUT_TEXT):
        judge.say(f"{at}/min_length", f"must be between 0 and {INPUT_TEXT}")
    if not (isinstance(most, int) and 1 <= most <= INPUT_TEXT):
        judge.say(f"{at}/max_length", f"must be between 1 and {INPUT_TEXT}")
    elif element.get("initial_value") is not None:
        judge.string(f"{at}/initial_value", element["initial_value"], 0, most)


def _number_input(judge: Judge, at: str, element: Json) -> None:
    if not isinstance(element.get("is_decimal_allowed"), bool):
        judge.say(f"{at}/is_decimal_allowed", "missing required field")
    for key in ("initial_value", "min_value", "max_value"):
        value = element.get(key)
        if value is None:
            continue
        if not isinstance(value, str) or not re.fullmatch(r"-?\d+(\.\d+)?", value):
            judge.say(f"{at}/{key}", "must be a number written as a string")
        elif element.get("is_decimal_allowed") is False and "." in value:
            judge.say(f"{at}/{key}", "must be a whole number")
