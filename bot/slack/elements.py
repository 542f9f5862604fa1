"""The few pieces that every payload of ours is made of. Pure; somebody's own words never reach mrkdwn from here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bot.slack import limits
from bot.slack.text import fitting_lines, is_person, literal, shortened

Block = dict[str, Any]


def plain(text: str, limit: int = limits.SECTION_TEXT) -> Block:
    """Text that Slack shows as it is, without `:emoji:`, on one line."""
    return {"type": "plain_text", "text": shortened(literal(text), limit) or " ", "emoji": False}


def mrkdwn(text: str) -> Block:
    """Our own markup around escaped values. Verbatim: Slack makes no links of words by itself."""
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def header(text: str, **more: Any) -> Block:
    return {"type": "header", "text": plain(text, limits.HEADER_TEXT), **more}


def section(text: str, **more: Any) -> Block:
    """Lines of mrkdwn; where they are too many, whole lines are left out and counted."""
    return {"type": "section", "text": mrkdwn(fitting_lines(text.split("\n"), limits.SECTION_TEXT)), **more}


def pairs(rows: Sequence[tuple[str, str]]) -> Block:
    """Names with mrkdwn values, in two columns where there is room."""
    assert len(rows) <= limits.SECTION_FIELDS
    return {
        "type": "section",
        "fields": [mrkdwn(fitting_lines([f"*{name}*", *value.split("\n")], limits.FIELD_TEXT)) for name, value in rows],
    }


def context(*parts: str) -> Block:
    return {"type": "context", "elements": [mrkdwn(" · ".join(parts))]}


def span(text: str, **style: bool) -> Block:
    return {"type": "text", "text": text, **({"style": style} if style else {})}


def person(user: str) -> Block:
    """A person in rich text."""
    return {"type": "user", "user_id": user} if is_person(user) else span(literal(user) or "?")


def quote(lead: Sequence[Block], words: str, limit: int) -> Block:
    """Somebody's own words, set apart and without any markup, below a line of ours."""
    said = shortened(literal(words), limit) or "(no words)"
    return {
        "type": "rich_text",
        "elements": [
            {"type": "rich_text_section", "elements": list(lead)},
            {"type": "rich_text_quote", "elements": [span(said)]},
        ],
    }


def preformatted(text: str) -> Block:
    """Text exactly as it is, in a fixed width. The caller answers for its length."""
    return {
        "type": "rich_text",
        "elements": [{"type": "rich_text_preformatted", "elements": [span(text or " ")]}],
    }
