"""The small language in which `bot.slack.lint` writes down Slack's schema: rules over raw JSON. Pure.

A rule takes a value and the JSON pointer where it stands, and yields sentences. Rules are built from rules, so that a
block's whole schema reads as one expression. Nothing here knows a block.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Rule = Callable[[Any, str], Iterator[str]]

_TAG = re.compile(r"<([^<>]*)>")
_BROADCAST = re.compile(r"^!(?:here|channel|everyone|group)\b")
_SAFE_TAG = re.compile(
    r"^(?:@[A-Z0-9]+|#[A-Z0-9]+(?:\|[^|]*)?|!subteam\^[A-Z0-9]+(?:\|[^|]*)?|!date\^\d+\^[^|]+\|[^|]+"
    r"|(?:https?|mailto):[^|]+(?:\|[^|]*)?)$"
)


def string(least: int = 1, most: int | None = None, pattern: str | None = None) -> Rule:
    """Text between two lengths."""

    def rule(value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, str):
            yield f"{at}: must be text"
        elif len(value) < least:
            yield f"{at}: must have {least} characters or more"
        elif most is not None and len(value) > most:
            yield f"{at}: has {len(value)} characters, {most} are allowed"
        elif pattern is not None and not re.fullmatch(pattern, value):
            yield f"{at}: does not have the form {pattern}"

    return rule


def url(most: int) -> Rule:
    """A web address; no other scheme is ever sent."""
    return string(1, most, r"https?://[^\s<>|]+")


def one_of(*values: object) -> Rule:
    def rule(value: Any, at: str) -> Iterator[str]:
        if not any(value is known or (type(value) is type(known) and value == known) for known in values):
            yield f"{at}: must be one of {', '.join(map(str, values))}"

    return rule


def boolean(value: Any, at: str) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{at}: must be true or false"


def number(
    low: float | None = None, high: float | None = None, *, whole: bool = False, above: float | None = None
) -> Rule:
    """A finite number; `above` is an open lower bound."""

    def rule(value: Any, at: str) -> Iterator[str]:
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
            yield f"{at}: must be a {'whole' if whole else 'finite'} number"
        elif (low is not None and value < low) or (high is not None and value > high):
            yield f"{at}: must be from {low} to {high}"
        elif above is not None and value <= above:
            yield f"{at}: must be more than {above}"

    return rule


def array(item: Rule, least: int = 1, most: int | None = None) -> Rule:
    def rule(value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{at}: must be a list"
            return
        if len(value) < least:
            yield f"{at}: must have {least} items or more"
        if most is not None and len(value) > most:
            yield f"{at}: has {len(value)} items, {most} are allowed"
        for index, one in enumerate(value):
            yield from item(one, f"{at}/{index}")

    return rule


def fields(required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None, *extra: Rule) -> Rule:
    """An object with these members and no others; `extra` rules see the whole object."""
    known = {**required, **(optional or {})}

    def rule(value: Any, at: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{at}: must be an object"
            return
        yield from (f"{at}: {name} is missing" for name in required if value.get(name) is None)
        yield from (f"{at}: {name} is unknown here" for name in value if name not in known)
        for name, member in known.items():
            if value.get(name) is not None:
                yield from member(value[name], f"{at}/{name}")
        for also in extra:
            yield from also(value, at)

    return rule


def by_type(kinds: Mapping[str, Rule]) -> Rule:
    """An object whose `type` names its rule."""

    def rule(value: Any, at: str) -> Iterator[str]:
        kind = value.get("type") if isinstance(value, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            yield f"{at}: the type {kind!r} is not allowed here"
        else:
            yield from kinds[kind](value, at)

    return rule


def typed(kind: str, required: Mapping[str, Rule], optional: Mapping[str, Rule] | None = None, *extra: Rule) -> Rule:
    """An object of one type."""
    return fields({"type": one_of(kind), **required}, optional, *extra)


def any_of(*names: str) -> Rule:
    """At least one of these members must be there."""

    def rule(value: Any, at: str) -> Iterator[str]:
        if not any(value.get(name) for name in names):
            yield f"{at}: one of {', '.join(names)} is needed"

    return rule


def exactly_one_of(*names: str) -> Rule:
    def rule(value: Any, at: str) -> Iterator[str]:
        if sum(value.get(name) is not None for name in names) != 1:
            yield f"{at}: exactly one of {', '.join(names)} is needed"

    return rule


def plain(most: int) -> Rule:
    return typed("plain_text", {"text": string(1, most)}, {"emoji": boolean})


def mrkdwn(most: int) -> Rule:
    return typed("mrkdwn", {"text": _marked(1, most)}, {"verbatim": boolean})


def text(most: int) -> Rule:
    """A text object of either kind."""
    return by_type({"plain_text": plain(most), "mrkdwn": mrkdwn(most)})


def _marked(least: int, most: int) -> Rule:
    """Slack's markup: whole tags only, links to the web only, and never a mention of everybody."""
    length = string(least, most)

    def rule(value: Any, at: str) -> Iterator[str]:
        yield from length(value, at)
        if isinstance(value, str):
            yield from markup(value, at)

    return rule


def markup(value: str, at: str) -> Iterator[str]:
    """What is wrong with the tags of a mrkdwn text."""
    for tag in _TAG.findall(value):
        if _BROADCAST.match(tag):
            yield f"{at}: <{tag}> would call everybody"
        elif not _SAFE_TAG.match(tag):
            yield f"{at}: <{tag[:40]}> is no tag that the bot sends; escape it"
    rest = _TAG.sub("", value)
    if "<" in rest:
        yield f"{at}: a < is not escaped"
