"""What the planner's rules read and what they make: a `Message` in, a `Plan` of calls and words out.

Next step: the rules in `bot.agent.grammar` and `bot.agent.looking`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.agent.training import Clauses, Request


@dataclass(frozen=True, kw_only=True)
class Call:
    """One tool call to make."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The calls to make, and what to say: instead of a call, or below the tools' answers."""

    calls: tuple[Call, ...] = ()
    say: str = ""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message as the rules see it."""

    text: str  # one kind of quote and dash, no emoji
    cut: Clauses
    earlier: Sequence[Request]  # the calls of the thread's last training or estimate

    def has(self, pattern: str) -> bool:
        return re.search(pattern, self.text, re.IGNORECASE) is not None
