"""What stands around each call of a model and of a tool: prompt and history before, the planner behind, errors caught.

It exists so that a turn ends with an answer whatever the model server does. The order matters: history and prompt are
outside, so that the planner gets them too; the fallback is inside, around the call itself. Next step: the tools.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse, ToolErrorMiddleware
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, RemoveMessage, SystemMessage
from langgraph.errors import GraphBubbleUp
from langgraph.runtime import Runtime

from bot.agent import history
from bot.agent.prompt import system_prompt
from bot.core.errors import Unavailable
from tools.desk import Caller

log = logging.getLogger(__name__)

Situation = Callable[[Caller], Awaitable[str]]
Handler = Callable[[ModelRequest[Caller]], Awaitable[ModelResponse[Any]]]

# Why the language model did not answer; kept in the planner's message, so that the turn stays with the planner and
# the answer can say so.
FALLBACK: Final = "signalbox_fallback"


class Malformed(Exception):
    """A model's answer that holds neither text nor a readable call."""


class Briefing(AgentMiddleware[AgentState[Any], Caller, Any]):
    """Gives a model its prompt with the thread's situation, and a history that is paired and bounded."""

    def __init__(self, situation: Situation) -> None:
        super().__init__()
        self._situation = situation

    async def abefore_agent(self, state: AgentState[Any], runtime: Runtime[Caller]) -> dict[str, Any] | None:
        old = history.outdated(state["messages"])
        return {"messages": [RemoveMessage(id=message.id) for message in old if message.id]} if old else None

    async def awrap_model_call(self, request: ModelRequest[Caller], handler: Handler) -> ModelResponse[Any]:
        try:
            situation = await self._situation(request.runtime.context)
        except Exception:  # a model without it still answers, from the tools
            log.exception("the thread's situation cannot be read")
            situation = "Not known at the moment; use list_jobs."
        return await handler(
            request.override(
                system_message=SystemMessage(system_prompt(situation)),
                messages=history.trimmed(history.paired(request.messages)),
            )
        )


class Fallback(AgentMiddleware[AgentState[Any], Caller, Any]):
    """Lets the planner answer when the language model does not: down, refusing, too slow, or unreadable."""

    def __init__(self, planner: BaseChatModel | None, deadline_s: float) -> None:
        super().__init__()
        self._planner = planner
        self._deadline_s = deadline_s

    async def awrap_model_call(self, request: ModelRequest[Caller], handler: Handler) -> ModelResponse[Any]:
        reason = fallback_of(history.this_turn(request.messages))
        if reason is None:
            try:
                # Of the whole call: a server that sends a byte now and then outlives every other time-out.
                async with asyncio.timeout(self._deadline_s):
                    return _readable(await handler(request))
            except GraphBubbleUp:
                raise
            except Exception as error:
                reason = why(error)
                log.warning("the language model did not answer: %s (%s)", reason, type(error).__name__)
                if self._planner is None:
                    raise Unavailable(f"No answer was made: {reason}. Please try again in a minute.") from error
        if self._planner is None:
            raise Unavailable(f"No answer was made: {reason}. Please try again in a minute.")
        response = await handler(request.override(model=self._planner))
        for message in response.result:
            if isinstance(message, AIMessage):
                message.response_metadata = {**message.response_metadata, FALLBACK: reason}
        return response


def tool_errors() -> ToolErrorMiddleware[Any, Any]:
    """What a tool did not foresee becomes a sentence; the details go to the log alone."""

    def sentence(error: Exception, request: ToolCallRequest) -> str:
        name = request.tool_call["name"]
        log.error("the tool %s failed", name, exc_info=error)
        return (
            f"{name} failed unexpectedly and gave no result. Please try again, or ask who runs Signalbox to "
            f"look at its log."
        )

    return ToolErrorMiddleware(sentence)


def fallback_of(turn: list[Any]) -> str | None:
    """Why the planner answered in this turn, or None when it did not have to."""
    found = (message.response_metadata.get(FALLBACK) for message in turn if isinstance(message, AIMessage))
    return next((str(reason) for reason in found if reason), None)


def why(error: Exception) -> str:
    """The failure in a few words, without anything that the server or the client wrote."""
    status = getattr(error, "status_code", None)
    names = {kind.__name__ for kind in type(error).__mro__}
    if status in (401, 403):
        return f"the model server refused the key ({status})"
    if status == 429:
        return "the model server has too many requests or no quota left (429)"
    if isinstance(status, int) and status >= 400:
        return f"the model server answered with an error ({status})"
    if isinstance(error, TimeoutError) or "TimeoutException" in names or "APITimeoutError" in names:
        return "the model server took too long"
    if isinstance(error, OSError) or names & {"APIConnectionError", "TransportError"}:
        return "the model server cannot be reached"
    return "the model's answer could not be read"


def _readable(response: ModelResponse[Any]) -> ModelResponse[Any]:
    """The response, its unreadable calls left out. `Malformed` when nothing of it is left."""
    for message in response.result:
        if not isinstance(message, AIMessage):
            continue
        if message.invalid_tool_calls:
            log.warning("a model's call has arguments that are not JSON; it is left out")
            message.invalid_tool_calls = []
            message.additional_kwargs = {}
        if not message.tool_calls and not message.text.strip():
            raise Malformed
        if any(not call["name"] for call in message.tool_calls):
            raise Malformed
    return response
