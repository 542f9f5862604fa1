"""The schemas of interactive elements and images, for `bot.slack.lint`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bot.slack import limits
from bot.slack.lint_rules import (
    Rule,
    array,
    boolean,
    by_type,
    exactly_one_of,
    fields,
    mrkdwn,
    number,
    one_of,
    plain,
    string,
    text,
    typed,
    url,
)

_ACTION: Mapping[str, Rule] = {"action_id": string(1, limits.ACTION_ID)}
_FOCUS: Mapping[str, Rule] = {"focus_on_load": boolean, "placeholder": plain(limits.PLACEHOLDER)}
_CONFIRM = fields(
    {"title": plain(limits.CONFIRM_TITLE), "text": text(limits.CONFIRM_TEXT)},
    {
        "confirm": plain(limits.CONFIRM_BUTTON),
        "deny": plain(limits.CONFIRM_BUTTON),
        "style": one_of("primary", "danger"),
    },
)
IMAGE_SOURCE: Mapping[str, Rule] = {
    "image_url": url(limits.IMAGE_URL),
    "slack_file": fields({}, {"id": string(), "url": url(limits.IMAGE_URL)}, exactly_one_of("id", "url")),
}
_IMAGE = typed("image", {"alt_text": string(1, limits.ALT_TEXT)}, IMAGE_SOURCE, exactly_one_of(*IMAGE_SOURCE))

_BUTTON = typed(
    "button",
    {"text": plain(limits.BUTTON_TEXT), **_ACTION},
    {
        "value": string(1, limits.BUTTON_VALUE),
        "url": url(limits.BUTTON_URL),
        "style": one_of("primary", "danger"),
        "confirm": _CONFIRM,
        "accessibility_label": string(1, limits.ACCESSIBILITY_LABEL),
    },
)
_FEEDBACK = fields(
    {"text": plain(limits.BUTTON_TEXT), "value": string(1, limits.BUTTON_VALUE)},
    {"accessibility_label": string(1, limits.ACCESSIBILITY_LABEL)},
)
_FEEDBACK_BUTTONS = typed("feedback_buttons", {"positive_button": _FEEDBACK, "negative_button": _FEEDBACK}, _ACTION)


def _option(words: Rule) -> Rule:
    return fields({"text": words, "value": string(1, limits.OPTION_VALUE)}, {"description": words})


_OPTIONS = array(_option(plain(limits.OPTION_TEXT)), 1, limits.OPTIONS)
_CHOICES = array(_option(text(limits.OPTION_TEXT)), 1, limits.CHOICES)


def _among(value: Any, at: str) -> Iterator[str]:
    """What is chosen beforehand must be one of the choices."""
    options = value.get("options")
    chosen = (
        [value["initial_option"]] if value.get("initial_option") is not None else value.get("initial_options") or []
    )
    if isinstance(options, list) and any(one not in options for one in chosen):
        yield f"{at}: what is chosen beforehand is none of the options"


_SELECT = typed(
    "static_select",
    {"options": _OPTIONS, **_ACTION},
    {**_FOCUS, "initial_option": _option(plain(limits.OPTION_TEXT)), "confirm": _CONFIRM},
    _among,
)
_RADIO = typed(
    "radio_buttons",
    {"options": _CHOICES, **_ACTION},
    {"initial_option": _option(text(limits.OPTION_TEXT)), "confirm": _CONFIRM, "focus_on_load": boolean},
    _among,
)
_CHECKBOXES = typed(
    "checkboxes",
    {"options": _CHOICES, **_ACTION},
    {"initial_options": _CHOICES, "confirm": _CONFIRM, "focus_on_load": boolean},
    _among,
)
_OVERFLOW = typed(
    "overflow",
    {"options": array(_option(plain(limits.OPTION_TEXT)), 1, limits.OVERFLOW_OPTIONS), **_ACTION},
    {"confirm": _CONFIRM},
)


def _fits(value: Any, at: str) -> Iterator[str]:
    """What is filled in beforehand must be something that could be typed."""
    filled, most = value.get("initial_value"), value.get("max_length")
    if isinstance(filled, str) and isinstance(most, int) and len(filled) > most:
        yield f"{at}/initial_value: is longer than max_length"


_TEXT_INPUT = typed(
    "plain_text_input",
    _ACTION,
    {
        **_FOCUS,
        "initial_value": string(0, limits.INPUT_TEXT),
        "multiline": boolean,
        "min_length": number(0, limits.INPUT_TEXT, whole=True),
        "max_length": number(1, limits.INPUT_TEXT, whole=True),
    },
    _fits,
)
_DECIMAL = string(1, None, r"-?\d+(\.\d+)?")


def _whole(value: Any, at: str) -> Iterator[str]:
    if value.get("is_decimal_allowed") is False:
        for name in ("initial_value", "min_value", "max_value"):
            if "." in str(value.get(name, "")):
                yield f"{at}/{name}: must be a whole number"


_NUMBER_INPUT = typed(
    "number_input",
    {"is_decimal_allowed": boolean, **_ACTION},
    {**_FOCUS, "initial_value": _DECIMAL, "min_value": _DECIMAL, "max_value": _DECIMAL},
    _whole,
)

_PRESSED = {"button": _BUTTON, "static_select": _SELECT, "overflow": _OVERFLOW}
_CHOSEN = {"radio_buttons": _RADIO, "checkboxes": _CHECKBOXES}
IN_ACTIONS = by_type({**_PRESSED, **_CHOSEN})
IN_SECTION = by_type({**_PRESSED, **_CHOSEN, "image": _IMAGE})
IN_INPUT = by_type(
    {"static_select": _SELECT, **_CHOSEN, "plain_text_input": _TEXT_INPUT, "number_input": _NUMBER_INPUT}
)
IN_CONTEXT = by_type({"plain_text": plain(limits.CONTEXT_TEXT), "mrkdwn": mrkdwn(limits.CONTEXT_TEXT), "image": _IMAGE})
IN_CONTEXT_ACTIONS = by_type({"feedback_buttons": _FEEDBACK_BUTTONS})
