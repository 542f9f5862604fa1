"""One turn of a conversation: a person's words in, an answer out, through the model, the tools and the memory.

It exists to keep the promises that no model keeps: one turn at a time in a thread, an answer in any case, and no claim
that the records do not hold. Identity comes with the `Caller`; nothing here approves or starts anything.
Next step of a call: `tools.toolkit`; the surfaces (`bot.slack`, `bot.console`) show what `answer` returns.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast
from weakref import WeakValueDictionary

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware
from langchain.agents.middleware.model_call_limit import ModelCallLimitExceededError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver

from bot.agent import history
from bot.agent.middleware import Briefing, Fallback, Situation, fallback_of, tool_errors
from bot.agent.planner import Planner
from bot.agent.training import TRIGGER
from bot.core.errors import Unavailable
from tools.desk import Caller

log = logging.getLogger(__name__)

OnText = Callable[[str], Awaitable[None]]

MODEL_CALLS: Final = 8  # a turn; the longest honest one makes three or four
STEPS: Final = 60  # of the graph a turn; several to each model call
DEADLINE_S: Final = 120.0  # one call of the language model, its retries included
MOST_WORDS: Final = 12_000  # characters of one message; more is a paste, not a request

NO_TEXT: Final = "I have no answer to that, and nothing was proposed. Please say it in other words."
TOO_MANY: Final = "I stopped after {calls} steps without an answer. What was done so far:\n{done}"
NOTHING_PROPOSED: Final = "(From the records: this message made no proposal, and nothing was approved or started.)"
ONLY_PEOPLE: Final = (
    "(From the records: nothing was approved with this message; only people approve, with a "
    "card's button or `/approve ID`.)"
)

# Claims of a model. Said without any tool's result they are invented; in the first person they need a proposal.
_CLAIM: Final = re.compile(
    r"\b(?:submitted|started|launched|approved|queued|scheduled|kicked off|proposed|is (?:now )?(?:running"
    r"|training)|under way|underway"
    r"|proposal (?:#|no\.? |number )?\d+)\b",
    re.IGNORECASE,
)
_MINE: Final = re.compile(
    r"\b(?:i|we)(?:'ve|’ve| have| just| already| now)*\s+(?:submitted|started|launched|queued|scheduled|kicked"
    r"|proposed|created|triggered)\b"
    r"|\b(?:has|have) (?:now |just |been |successfully )*(?:submitted|started|launched)\b.*\bfor you\b",
    re.IGNORECASE,
)
_APPROVED: Final = re.compile(
    r"\b(?:i|we)(?:'ve|’ve| have| just| already| now)*\s+approved\b|\bapproved (?:it|this|that) for you\b",
    re.IGNORECASE,
)


class Assistant:
    """The agent over one model. `fallback` answers when the model does not; the planner itself needs none."""

    def __init__(
        self,
        model: BaseChatModel,
        fallback: BaseChatModel | None,
        tools: list[BaseTool],
        checkpointer: BaseCheckpointSaver[Any],
        situation: Situation,
        *,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._model = model
        self._checkpointer = checkpointer
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.agent = create_agent(
            model,
            tools,
            context_schema=Caller,
            checkpointer=checkpointer,
            middleware=[
                cast("Any", ModelCallLimitMiddleware(run_limit=MODEL_CALLS, exit_behavior="error")),
                Briefing(situation),
                Fallback(fallback, deadline_s),
                tool_errors(),
            ],
        )

    async def answer(self, text: str, caller: Caller, on_text: OnText | None = None) -> str:
        """What to say to `text`. Turns of one thread wait for each other; threads do not.

        `on_text` is given the answer as far as it has come, whole each time (it may begin anew); the returned text is
        the one that counts. Raises `Unavailable`, and nothing else, when nobody could answer.
        """
        thread = thread_of(caller)
        turn = self._turns.setdefault(thread, asyncio.Lock())
        async with turn:
            try:
                messages = await self._run(text[:MOST_WORDS], caller, on_text)
                answered = self._final(messages, caller)
            except Unavailable:
                raise
            except ModelCallLimitExceededError:
                answered = await self._stopped(caller)
            except Exception as error:
                log.exception("the turn in %s failed", thread)
                raise Unavailable(
                    "I could not answer just now; nothing was lost. Please try again in a minute."
                ) from error
            await self._prune(thread)
            return answered

    async def _run(self, text: str, caller: Caller, on_text: OnText | None) -> list[AnyMessage]:
        """The conversation after this turn."""
        config = config_of(caller)
        given = cast("Any", {"messages": [HumanMessage(text)]})
        values: dict[str, Any] = {}
        modes: list[Any] = ["values", "messages"] if on_text else ["values"]
        shown, said = "", ""
        async for mode, part in self.agent.astream(given, config, context=caller, stream_mode=modes):
            if mode == "values":
                values = cast("dict[str, Any]", part)
                continue
            chunk = part[0]
            if not isinstance(chunk, AIMessageChunk) or not chunk.text:
                continue
            said = said + chunk.text if chunk.id == shown else chunk.text
            shown = chunk.id or ""
            if on_text:
                await _shown(on_text, said)
        return list(values.get("messages", []))

    def _final(self, messages: Sequence[AnyMessage], caller: Caller) -> str:
        """The turn's answer, with what the records have to add."""
        turn = history.this_turn(messages)
        last = turn[-1] if turn else None
        text = last.text.strip() if isinstance(last, AIMessage) else ""
        reason = fallback_of(turn)
        caller.outcomes.update(history.outcomes(turn))
        results = [message for message in turn if isinstance(message, ToolMessage) and message.status != "error"]
        if not text:
            text = "\n\n".join(message.text for message in results) or NO_TEXT
        elif reason is None and not isinstance(self._model, Planner):
            text = _checked(text, results, caller)
        if reason:
            text += f"\n(The language model did not answer: {reason}. The built-in planner answered instead.)"
        return text

    async def _stopped(self, caller: Caller) -> str:
        state = await self.agent.aget_state(config_of(caller))
        turn = history.this_turn(state.values.get("messages", []))
        done = [message.text for message in turn if isinstance(message, ToolMessage) and message.status != "error"]
        return TOO_MANY.format(calls=MODEL_CALLS, done="\n".join(dict.fromkeys(done)) or "Nothing.")

    async def _prune(self, thread: str) -> None:
        """Forgets the steps behind the present state; without it a long thread costs its square in storage."""
        try:
            await self._checkpointer.aprune([thread])
        except NotImplementedError:  # savers in memory keep all
            pass
        except Exception:
            log.warning("old steps of %s were not forgotten", thread, exc_info=True)


def thread_of(caller: Caller) -> str:
    """The conversation's key in the checkpointer."""
    return f"{caller.team}:{caller.channel}:{caller.thread}"


def config_of(caller: Caller) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_of(caller)}, "recursion_limit": STEPS}


async def _shown(on_text: OnText, text: str) -> None:
    """A surface that cannot show a part still gets the whole."""
    try:
        await on_text(text)
    except Exception:
        log.warning("a part of an answer was not shown", exc_info=True)


def _checked(text: str, results: Sequence[ToolMessage], caller: Caller) -> str:
    """A model's text, with the records' word where it claims what they do not hold."""
    proposed = bool(caller.proposed) or any(message.name == TRIGGER for message in results)
    if not proposed and ((not results and _CLAIM.search(text)) or _MINE.search(text)):
        return f"{text}\n{NOTHING_PROPOSED}"
    if _APPROVED.search(text):
        return f"{text}\n{ONLY_PEOPLE}"
    return text
