"""Our limits against those that others have written down: never looser."""

from __future__ import annotations

import importlib

import pytest
from slack_sdk.models import blocks as sdk

from bot.slack import limits

# Ours → slackblocks' name for the same.
THEIRS = {
    "MESSAGE_BLOCKS": "MESSAGE_BLOCKS_MAX_ITEMS",
    "MESSAGE_MARKDOWN": "MARKDOWN_TOTAL_TEXT_MAX_LENGTH",
    "MESSAGE_CHARTS": "MESSAGE_DATA_VISUALIZATIONS_MAX_ITEMS",
    "VIEW_BLOCKS": "VIEW_BLOCKS_MAX_ITEMS",
    "VIEW_TITLE": "VIEW_TITLE_MAX_LENGTH",
    "PRIVATE_METADATA": "VIEW_PRIVATE_METADATA_MAX_LENGTH",
    "CALLBACK_ID": "VIEW_CALLBACK_ID_MAX_LENGTH",
    "EXTERNAL_ID": "VIEW_EXTERNAL_ID_MAX_LENGTH",
    "BLOCK_ID": "BLOCK_ID_MAX_LENGTH",
    "SECTION_TEXT": "SECTION_TEXT_MAX_LENGTH",
    "SECTION_FIELDS": "SECTION_FIELDS_MAX_ITEMS",
    "FIELD_TEXT": "SECTION_FIELDS_ITEM_MAX_LENGTH",
    "HEADER_TEXT": "HEADER_TEXT_MAX_LENGTH",
    "CONTEXT_ELEMENTS": "CONTEXT_ELEMENTS_MAX_ITEMS",
    "CONTEXT_TEXT": "TEXT_MAX_LENGTH",
    "ACTIONS_ELEMENTS": "ACTIONS_ELEMENTS_MAX_ITEMS",
    "CONTEXT_ACTIONS_ELEMENTS": "CONTEXT_ACTIONS_ELEMENTS_MAX_ITEMS",
    "INPUT_LABEL": "INPUT_LABEL_MAX_LENGTH",
    "INPUT_HINT": "INPUT_HINT_MAX_LENGTH",
    "IMAGE_URL": "IMAGE_IMAGE_URL_MAX_LENGTH",
    "ALT_TEXT": "IMAGE_ALT_TEXT_MAX_LENGTH",
    "IMAGE_TITLE": "IMAGE_TITLE_MAX_LENGTH",
    "RICH_TEXT_BORDER": "RICH_TEXT_QUOTE_BORDER_MAX",
    "TABLE_ROWS": "TABLE_ROWS_MAX_ITEMS",
    "TABLE_COLUMNS": "TABLE_COLUMNS_MAX_ITEMS",
    "TABLE_CHARACTERS": "DATA_TABLE_CONTENT_MAX_LENGTH",
    "DATA_TABLE_ROWS": "DATA_TABLE_ROWS_MAX_ITEMS",
    "DATA_TABLE_PAGE": "DATA_TABLE_PAGE_SIZE_MAX",
    "CHART_TITLE": "DATA_VISUALIZATION_TITLE_MAX_LENGTH",
    "CHART_POINTS": "DATA_VISUALIZATION_DATA_MAX_ITEMS",
    "CHART_LABEL": "DATA_VISUALIZATION_CATEGORY_LABEL_MAX_LENGTH",
    "CHART_SERIES": "DATA_VISUALIZATION_SERIES_MAX_ITEMS",
    "CHART_AXIS": "DATA_VISUALIZATION_AXIS_LABEL_MAX_LENGTH",
    "ACTION_ID": "ACTION_ID_MAX_LENGTH",
    "BUTTON_TEXT": "BUTTON_TEXT_MAX_LENGTH",
    "BUTTON_VALUE": "BUTTON_VALUE_MAX_LENGTH",
    "BUTTON_URL": "BUTTON_URL_MAX_LENGTH",
    "ACCESSIBILITY_LABEL": "BUTTON_ACCESSIBILITY_LABEL_MAX_LENGTH",
    "PLACEHOLDER": "PLAIN_TEXT_INPUT_PLACEHOLDER_MAX_LENGTH",
    "OPTIONS": "SELECT_OPTIONS_MAX_ITEMS",
    "OPTION_TEXT": "OPTION_TEXT_MAX_LENGTH",
    "OPTION_VALUE": "OPTION_VALUE_MAX_LENGTH",
    "OVERFLOW_OPTIONS": "OVERFLOW_OPTIONS_MAX_ITEMS",
    "CHOICES": "RADIO_BUTTONS_OPTIONS_MAX_ITEMS",
    "INPUT_TEXT": "PLAIN_TEXT_INPUT_MAX_LENGTH_MAX",
    "CONFIRM_TITLE": "CONFIRMATION_TITLE_MAX_LENGTH",
    "CONFIRM_TEXT": "CONFIRMATION_TEXT_MAX_LENGTH",
    "CONFIRM_BUTTON": "CONFIRMATION_CONFIRM_MAX_LENGTH",
}
STRICTER = {"TABLE_CHARACTERS", "DATA_TABLE_ROWS", "CHART_SERIES"}  # where sources differ the smaller number stands


def test_never_looser_than_slackblocks() -> None:
    pytest.importorskip("slackblocks")
    theirs = vars(importlib.import_module("slackblocks._limits"))
    for ours, name in THEIRS.items():
        mine = getattr(limits, ours)
        assert mine < theirs[name] if ours in STRICTER else mine == theirs[name], (
            f"{ours}: {mine}, {name}: {theirs[name]}"
        )


def test_the_same_as_slack_sdk() -> None:
    assert sdk.SectionBlock.text_max_length == limits.SECTION_TEXT
    assert sdk.SectionBlock.fields_max_length == limits.SECTION_FIELDS
    assert sdk.HeaderBlock.text_max_length == limits.HEADER_TEXT
    assert sdk.ContextBlock.elements_max_length == limits.CONTEXT_ELEMENTS
    assert sdk.ActionsBlock.elements_max_length == limits.ACTIONS_ELEMENTS
    assert sdk.ContextActionsBlock.elements_max_length == limits.CONTEXT_ACTIONS_ELEMENTS
    assert sdk.InputBlock.label_max_length == limits.INPUT_LABEL
    assert sdk.InputBlock.hint_max_length == limits.INPUT_HINT
    assert sdk.ImageBlock.image_url_max_length == limits.IMAGE_URL
    assert sdk.ImageBlock.alt_text_max_length == limits.ALT_TEXT
    assert sdk.Block.block_id_max_length == limits.BLOCK_ID
    assert sdk.MarkdownBlock.text_max_length == limits.MESSAGE_MARKDOWN
    assert sdk.ButtonElement.text_max_length == limits.BUTTON_TEXT
    assert sdk.ButtonElement.value_max_length == limits.BUTTON_VALUE
