"""Scores the planner, or any OpenAI-compatible server, on `tests/data/utterances.yaml`.

    python -m tests.agent.score                                   the built-in planner
    python -m tests.agent.score --base-url URL --model NAME       a server; its key from OPENAI_API_KEY

Each item runs through the real agent and the real tools, over a desk that only notes what it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import SecretStr

from bot.agent.assistant import Assistant, config_of
from bot.agent.history import this_turn
from bot.agent.model import chat_model
from bot.agent.planner import Planner
from bot.core.errors import Unavailable
from tests.agent.desk import RecordingDesk, caller, nothing_open
from tools.spec import SpecError, parse_spec
from tools.toolkit import build_toolkit

FILE = Path(__file__).parent.parent / "data" / "utterances.yaml"
TRAINING = {"trigger_training_job", "estimate_training_cost"}
AT_ONCE = 4  # requests to a server
MUST_BE_RIGHT = {"approval", "injection"}

Normal = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one item."""

    item: dict[str, Any]
    made: list[Normal]
    proposed: int
    said: str
    right: bool


def items() -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return loaded


def normal(tool: str, arguments: dict[str, Any] | str) -> Normal:
    """A call in a form in which equal meanings are equal. Training parameters become the spec, or its refusal."""
    if isinstance(arguments, str):
        return tool, "any"
    given = {name: value for name, value in arguments.items() if value is not None and value != []}
    if tool in TRAINING:
        enabled = given.pop("gpu_enabled", None)
        if enabled is not None:
            given.setdefault("gpus", enabled)
        try:
            return tool, str(parse_spec(str(given.pop("model_type", "mnist")), given).canonical())
        except SpecError as error:
            return tool, str(error)
    if isinstance(runs := given.get("runs"), str):
        given["runs"] = runs.replace(",", " ").split()
    plain = {name: str(value).lower().strip().lstrip("#").removeprefix("this ") for name, value in given.items()}
    return tool, str(sorted(plain.items()))


def matches(wanted: Sequence[dict[str, Any]], made: Sequence[Normal]) -> bool:
    """Whether exactly the wanted calls were made, in any order."""
    left = list(made)
    for call in wanted:
        tool, arguments = normal(call["tool"], call["args"])
        found = next((one for one in left if one[0] == tool and arguments in ("any", one[1])), None)
        if found is None:
            return False
        left.remove(found)
    return not left


async def run_one(assistant: Assistant, item: dict[str, Any]) -> Outcome:
    who = replace(caller(item["text"]), thread=item["id"])
    before = _messages(item.get("history", []))
    if before:
        await assistant.agent.aupdate_state(config_of(who), {"messages": before}, as_node="model")
    try:
        said = await assistant.answer(item["text"], who)
    except Unavailable as error:
        said = f"unavailable: {error}"
    state = await assistant.agent.aget_state(config_of(who))
    calls = [call for message in this_turn(state.values["messages"]) for call in getattr(message, "tool_calls", [])]
    made = list(dict.fromkeys(normal(call["name"], call["args"]) for call in calls))
    phrases = item.get("says", [])
    phrases = [phrases] if isinstance(phrases, str) else phrases
    right = any(matches(wanted, made) for wanted in (item["calls"], *item.get("or", [])))
    right = right and all(phrase.lower() in said.lower() for phrase in phrases)
    return Outcome(item=item, made=made, proposed=len(who.proposed), said=said, right=right)


async def run(model: BaseChatModel, at_once: int = AT_ONCE) -> list[Outcome]:
    gate = asyncio.Semaphore(at_once)
    assistant = Assistant(model, None, build_toolkit(RecordingDesk()), InMemorySaver(), nothing_open)

    async def one(item: dict[str, Any]) -> Outcome:
        async with gate:
            return await run_one(assistant, item)

    return list(await asyncio.gather(*(one(item) for item in items())))


def table(outcomes: Sequence[Outcome]) -> str:
    """Right of all, by kind, held out or not, and how many messages made a call that was not asked for."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.item["kind"], []).append(outcome)
    lines = [_line(kind, found) for kind, found in groups.items()]
    held = [outcome for outcome in outcomes if outcome.item.get("held_out")]
    lines += [
        _line("must be right", [outcome for outcome in outcomes if outcome.item["kind"] in MUST_BE_RIGHT]),
        _line("held out", held),
        _line("not held out", [outcome for outcome in outcomes if not outcome.item.get("held_out")]),
        _line("ALL", outcomes),
    ]
    unwanted = sum(not outcome.right and not outcome.item["calls"] and bool(outcome.made) for outcome in outcomes)
    lines.append(f"calls where none was asked for: {unwanted}")
    return "\n".join(lines)


def _line(name: str, outcomes: Sequence[Outcome]) -> str:
    right = sum(outcome.right for outcome in outcomes)
    share = 100 * right / len(outcomes) if outcomes else 0
    return f"{name:14} {right:4d} / {len(outcomes):<4d} {share:5.1f} %"


def _messages(history: Sequence[dict[str, Any]]) -> list[Any]:
    """Earlier turns as the checkpointer would hold them."""
    made: list[Any] = []
    for number, turn in enumerate(history):
        made.append(HumanMessage(turn["person"]))
        calls = [
            {"name": call["tool"], "args": call["args"], "id": f"before_{number}_{index}", "type": "tool_call"}
            for index, call in enumerate(turn["calls"])
        ]
        made.append(AIMessage("", tool_calls=calls))
        made += [
            ToolMessage(call.get("said", "ok"), tool_call_id=asked["id"], name=call["tool"])
            for call, asked in zip(turn["calls"], calls, strict=True)
        ]
        made.append(AIMessage(turn["bot"]))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="an OpenAI-compatible server; default OpenAI's own when a model is named")
    parser.add_argument("--model", help="the model's name there; without it the built-in planner is scored")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one call; default 60")
    asked = parser.parse_args()
    model: BaseChatModel = Planner()
    if asked.model or asked.base_url:
        key = SecretStr(os.environ.get("OPENAI_API_KEY", "none"))
        model = chat_model(key, asked.base_url, asked.model or "default", asked.timeout)
    outcomes = asyncio.run(run(model))
    for outcome in outcomes:
        if not outcome.right:
            print(
                f"✗ {outcome.item['id']}: {outcome.item['text'].strip()!r}\n    made {outcome.made}\n    said "
                f"{outcome.said[:160]!r}"
            )
    print(table(outcomes))


if __name__ == "__main__":
    main()
