"""The built-in planner: a chat model without a language model, which makes real tool calls from a fixed grammar.

It exists for two moments: no model key is set, or the model server does not answer. Being a `BaseChatModel`, it runs
in the same agent, with the same tools, middleware and memory as a language model. It reads the person's latest
message and the thread's earlier training calls; a tool's answer is handed on, never read.
Next step: `bot.agent.assistant`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import ToolCall, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from bot.agent.grammar import understand
from bot.agent.training import ESTIMATE, TRIGGER, Request

_ARGUMENTS: Final = frozenset(
    (
        *("model_type", "epochs", "lr", "batch_size", "gpus", "nodes", "memory_gib", "seed"),
        *("max_runtime_minutes", "model", "dataset", "block_size"),
    )
)


class Planner(BaseChatModel):
    """Rules in a chat model's clothes. `bind_tools` names the tools that it may call."""

    @property
    def _llm_type(self) -> str:
        return "signalbox-planner"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        names = [convert_to_openai_tool(tool)["function"]["name"] for tool in tools]
        return self.bind(tool_names=names)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        tool_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=answer(messages, tool_names))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        tool_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, tool_names=tool_names)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        tool_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(answer(messages, tool_names)):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        tool_names: Sequence[str] = (),
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(answer(messages, tool_names)):
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk


def answer(messages: Sequence[BaseMessage], tool_names: Sequence[str]) -> AIMessage:
    """The next message of a conversation: tool calls, or the tools' answers of this turn, or a sentence."""
    place = max((index for index, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    if place < 0:
        return AIMessage(understand("").say)
    plan = understand(messages[place].text, earlier_requests(messages[:place]))
    answers = [message.text.strip() for message in messages[place + 1 :] if isinstance(message, ToolMessage)]
    if answers:
        return AIMessage("\n\n".join(dict.fromkeys(filter(None, (*answers, plan.say)))))
    calls = [
        ToolCall(name=call.tool, args=call.arguments, id=f"call_{uuid.uuid4().hex[:24]}", type="tool_call")
        for call in plan.calls
        if call.tool in tool_names
    ]
    return AIMessage("", tool_calls=calls) if calls else AIMessage(plan.say or understand("").say)


def earlier_requests(messages: Sequence[BaseMessage]) -> tuple[Request, ...]:
    """The thread's last message that called for a training or an estimate: what "same but …" refers to."""
    for message in reversed(messages):
        if not isinstance(message, AIMessage):
            continue
        found = tuple(
            Request(tool=call["name"], arguments=_under_parameter_names(call["args"]))
            for call in message.tool_calls
            if call["name"] in {TRIGGER, ESTIMATE}
        )
        if found:
            return found
    return ()


def _under_parameter_names(arguments: dict[str, Any]) -> dict[str, Any]:
    """A call's arguments, whichever model made it: known names, given values, GPUs as a number."""
    given = {name: value for name, value in arguments.items() if name in _ARGUMENTS and value is not None}
    if "gpus" not in given and arguments.get("gpu_enabled") is not None:
        given["gpus"] = arguments["gpu_enabled"]
    return {"model_type": "mnist", **given}


def _chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """The message as a stream: its calls at once, its text word by word."""
    if message.tool_calls:
        calls = [
            tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
            for index, call in enumerate(message.tool_calls)
        ]
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=calls))
        return
    for piece in re.findall(r"\S+\s*|\s+", message.text):
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
