"""A conversation outlives the process: the same SQLite file, a new interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage

from bot.agent.assistant import Assistant, config_of
from bot.agent.checkpoints import checkpoints
from bot.agent.history import KEPT_TURNS, paired, trimmed
from bot.agent.planner import Planner
from bot.core.errors import Misconfigured, Unavailable
from tests.agent.desk import RecordingDesk, caller, nothing_open
from tools.toolkit import build_toolkit

ANSWER = """
import asyncio, sys
from bot.agent.assistant import Assistant
from bot.agent.checkpoints import checkpoints
from bot.agent.planner import Planner
from tests.agent.desk import RecordingDesk, caller, nothing_open
from tools.toolkit import build_toolkit

async def main():
    desk = RecordingDesk()
    async with checkpoints(sys.argv[1]) as saver:
        await Assistant(Planner(), None, build_toolkit(desk), saver, nothing_open).answer(sys.argv[2], caller())
    print([(s.recipe, s.epochs, s.lr) for s in desk.proposed])

asyncio.run(main())
"""


def in_a_new_process(url: str, text: str) -> str:
    done = subprocess.run([sys.executable, "-c", ANSWER, url, text], capture_output=True, text=True, check=True)
    assert "unregistered type" not in done.stderr
    return done.stdout.strip()


def test_a_follow_up_survives_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'deep' / 'conversations.db'}"
    assert in_a_new_process(url, "train digits for 4 epochs") == "[('digits', 4, 0.001)]"
    assert in_a_new_process(url, "same again with lr 3e-4") == "[('digits', 4, 0.0003)]"


async def test_old_steps_and_old_turns_are_forgotten(tmp_path: Path) -> None:
    async with checkpoints(f"sqlite:///{tmp_path / 'c.db'}") as saver:
        assistant = Assistant(Planner(), None, build_toolkit(RecordingDesk()), saver, nothing_open)
        await assistant.answer("train mnist for 7 epochs", caller())
        for _ in range(KEPT_TURNS + 5):
            await assistant.answer("list jobs", caller())
        kept = [step async for step in saver.alist(config_of(caller()))]
        assert len(kept) == 1
        messages = kept[0].checkpoint["channel_values"]["messages"]
        assert sum(isinstance(message, HumanMessage) for message in messages) <= KEPT_TURNS + 1


async def test_threads_keep_apart(tmp_path: Path) -> None:
    async with checkpoints(f"sqlite:///{tmp_path / 'c.db'}") as saver:
        desk = RecordingDesk()
        assistant = Assistant(Planner(), None, build_toolkit(desk), saver, nothing_open)
        await assistant.answer("train mnist for 7 epochs", caller(thread="1"))
        await assistant.answer("train digits for 2 epochs", caller(thread="2"))
        await assistant.answer("again", caller(thread="1"))
        assert [spec.epochs for spec in desk.proposed] == [7, 2, 7]


async def test_other_databases_are_named() -> None:
    with pytest.raises(Misconfigured, match="sqlite:///PATH"):
        async with checkpoints("mysql://x/y"):
            pass


@pytest.mark.parametrize("kept", [0, 100, 5000])
async def test_a_damaged_file_is_set_aside(tmp_path: Path, kept: int) -> None:
    """Its first bytes are whole, or its first page."""
    file = tmp_path / "c.db"
    for words, proposed in (("train mnist for 7 epochs", 1), ("same again", 0)):
        desk = RecordingDesk()
        async with checkpoints(f"sqlite:///{file}") as saver:
            await Assistant(Planner(), None, build_toolkit(desk), saver, nothing_open).answer(words, caller())
        assert len(desk.proposed) == proposed, "conversations began anew"
        whole = file.read_bytes()
        file.write_bytes(whole[:kept] + b"damage" * ((len(whole) - kept) // 6))
    assert (tmp_path / "c.db.damaged").exists()


async def test_a_database_that_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(Unavailable, match="cannot be opened"):
        async with checkpoints(f"sqlite:///{tmp_path / 'folder.db'}"):
            pass


def test_importing_the_package_is_cheap() -> None:
    seen = "import sys, os, bot.agent; print('langchain_core' in sys.modules, os.environ['LANGGRAPH_STRICT_MSGPACK'])"
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "true"]


def test_pairing_puts_each_answer_after_its_call() -> None:
    call = AIMessage("", tool_calls=[{"name": "a", "args": {}, "id": "1"}, {"name": "b", "args": {}, "id": "2"}])
    late = ToolMessage("late", tool_call_id="2")
    stray = ToolMessage("stray", tool_call_id="9")
    repaired = paired([HumanMessage("x"), call, HumanMessage("y"), late, late, stray, AIMessage("")])
    assert [message.type for message in repaired] == ["human", "ai", "tool", "tool", "human"]
    assert [message.text[:4] for message in repaired if isinstance(message, ToolMessage)] == ["This", "late"]


def test_trimming_keeps_whole_turns_and_always_the_last() -> None:
    call = AIMessage("", tool_calls=[{"name": "a", "args": {}, "id": "1"}])
    turn: list[AnyMessage] = [
        HumanMessage("x" * 50_000),
        call,
        ToolMessage("y" * 20_000, tool_call_id="1"),
        AIMessage("z"),
    ]
    kept = trimmed([*turn, *turn])
    assert [message.type for message in kept] == ["human", "ai", "tool", "ai"]
    assert "… (shortened) …" in kept[2].text
