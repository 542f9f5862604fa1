"""What of a conversation is sent to a model: paired, and no more than fits.

It exists because a crash in mid-tool leaves a call without an answer, which a model server refuses on every later
turn, and because threads grow without end. Pure functions over messages; what is kept in the checkpointer stays as
it was, apart from turns that are older than any model is shown. Next step: `bot.agent.middleware`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage

SENT_TURNS: Final = 20  # what people refer back to; more costs tokens at every message
SENT_CHARACTERS: Final = 60_000  # about 15,000 tokens, which every model of today takes
TOOL_CHARACTERS: Final = 8_000  # one tool's answer: tables and a log's end, not a whole log
KEPT_TURNS: Final = 40  # in the checkpointer
CUT_OFF: Final = (
    "This call was cut off before its result was known. It may or may not have taken effect: look with "
    "list_jobs before "
    "repeating it."
)


def turns(messages: Sequence[AnyMessage]) -> list[list[AnyMessage]]:
    """The messages by turn; each begins with what a person wrote."""
    cut: list[list[AnyMessage]] = []
    for message in messages:
        if isinstance(message, HumanMessage) or not cut:
            cut.append([])
        cut[-1].append(message)
    return cut


def this_turn(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """What came after the person's latest message."""
    found = turns(messages)
    return found[-1][1:] if found else []


def outcomes(turn: Sequence[AnyMessage]) -> dict[str, bool]:
    """Each tool that was called, and whether it did all that it was asked; a model's second try replaces its first."""
    found: dict[str, bool] = {}
    for message in turn:
        if isinstance(message, AIMessage):
            found.update((call["name"], True) for call in message.tool_calls)
        elif isinstance(message, ToolMessage) and message.status == "error":
            found[message.name or ""] = False
    return found


def paired(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """The messages with exactly one answer directly after each tool call, and no answer without a call."""
    answers: dict[str, list[ToolMessage]] = {}  # in order: some servers use an id again
    for message in messages:
        if isinstance(message, ToolMessage):
            answers.setdefault(message.tool_call_id, []).append(message)
    repaired: list[AnyMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            continue
        if isinstance(message, AIMessage) and message.invalid_tool_calls:
            message = message.model_copy(update={"invalid_tool_calls": [], "additional_kwargs": {}})
        repaired.append(message)
        for call in message.tool_calls if isinstance(message, AIMessage) else []:
            waiting = answers.get(call["id"] or "")
            cut_off = ToolMessage(CUT_OFF, tool_call_id=call["id"] or "", name=call["name"], status="error")
            repaired.append(waiting.pop(0) if waiting else cut_off)
    return [message for message in repaired if not _empty(message)]


def trimmed(messages: Sequence[AnyMessage]) -> list[AnyMessage]:
    """The newest whole turns that fit, always the latest; long tool answers are clipped and say so."""
    kept: list[list[AnyMessage]] = []
    size = 0
    for turn in reversed(turns(messages)[-SENT_TURNS:]):
        clipped = [_clipped(message) for message in turn]
        size += sum(len(str(message.content)) for message in clipped)
        if kept and size > SENT_CHARACTERS:
            break
        kept.insert(0, clipped)
    return [message for turn in kept for message in turn]


def outdated(messages: Sequence[AnyMessage]) -> list[BaseMessage]:
    """The messages of turns that are too old to be kept."""
    return [message for turn in turns(messages)[:-KEPT_TURNS] for message in turn]


def _clipped(message: AnyMessage) -> AnyMessage:
    if not isinstance(message, ToolMessage) or len(message.text) <= TOOL_CHARACTERS:
        return message
    half = TOOL_CHARACTERS // 2
    text = f"{message.text[:half]}\n… (shortened) …\n{message.text[-half:]}"
    return message.model_copy(update={"content": text})


def _empty(message: AnyMessage) -> bool:
    """An assistant's message with neither text nor calls, which some servers refuse."""
    return isinstance(message, AIMessage) and not message.tool_calls and not message.text.strip()
