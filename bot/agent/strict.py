"""An OpenAI chat model that refuses a stream which broke off in the middle of a tool call.

It exists because the client library completes broken JSON: `{"epochs": 3` would become a call for three epochs of
whatever the defaults are, and a proposal that nobody asked for.
Next step: `bot.agent.middleware` lets the planner answer instead.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI


class BrokenCall(ValueError):
    """The arguments of a streamed tool call are not a JSON object."""


class StrictChatOpenAI(ChatOpenAI):
    """`ChatOpenAI`, with each streamed call's arguments read strictly when the stream ends."""

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        written: dict[int | str | None, str] = {}
        async for chunk in super()._astream(*args, **kwargs):
            if isinstance(chunk.message, AIMessageChunk):
                for piece in chunk.message.tool_call_chunks:
                    written[piece["index"]] = written.get(piece["index"], "") + (piece["args"] or "")
            yield chunk
        for arguments in written.values():
            _check(arguments)


def _check(arguments: str) -> None:
    try:
        read = json.loads(arguments or "{}")
    except ValueError as error:
        raise BrokenCall from error
    if not isinstance(read, dict):
        raise BrokenCall
