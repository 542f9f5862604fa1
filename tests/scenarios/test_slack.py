"""The whole loop in Slack: a real bot process against the strict fake, over real sockets and over signed HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bot.settings import SOURCE, TRAINERS_PYTHON
from tests.fakes.openai_server import KEY, OpenAIServer, says
from tests.fakes.slack import SlackServer
from tests.fakes.trainer import install

POLICY = """
approvers: [U1, U2]
quorum:
  - {up_to_dollars: "0.10", approvals: 1}
  - {up_to_dollars: "25", approvals: 2}
budget_per_month: "100"
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def bot(
    slack: SlackServer, folder: Path, program: Path, *, killed: bool = False, **more: str
) -> AsyncIterator[Process]:
    """`python -m bot serve` until the block ends; it must leave by itself on SIGTERM, unless it is to be killed."""
    policy = folder / "policy.yaml"
    if not policy.exists():
        policy.write_text(POLICY, encoding="utf-8")
    ours = ("SIGNALBOX_", "OPENAI_", "SLACK_", "DATABASE_", "MLFLOW_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment = own | {
        "SIGNALBOX_HOME": str(folder / "home"),
        "SIGNALBOX_TRAINER_PYTHON": str(program),
        "SIGNALBOX_POLICY_FILE": str(policy),
        "SIGNALBOX_HTTP_PORT": "0",
        "SLACK_API_URL": slack.api_url,
        "SLACK_BOT_TOKEN": slack.bot_token,
        "SLACK_APP_TOKEN": slack.app_token,
        "SLACK_SIGNING_SECRET": slack.signing_secret,
        **more,
    }
    log = folder / "bot.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bot", "serve", env=environment, cwd=SOURCE, stdout=PIPE, stderr=errors
        )
    try:
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.readline(), 60)
        assert b"connected" in said, log.read_text()[-3000:]
        yield process
        if not killed:
            process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(process.wait(), 40)
        assert status == (-signal.SIGKILL if killed else 0), log.read_text()[-3000:]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def card(slack: SlackServer, *words: str, seconds: float = 30, channel: str = "C1") -> Any:
    """The card, once it says all of these."""

    def found() -> Any:
        for message in slack.messages(channel):
            if any("sb_details" in str(one) for one in message.blocks) and all(word in message.words for word in words):
                return message
        return None

    return await slack.until(found, seconds, f"a card that says {words}")


def suffixes(slack: SlackServer) -> set[str]:
    return {Path(file.name).suffix for file in slack.home_team.files.values()}


async def whole_loop(slack: SlackServer, *, accuracy: str) -> None:
    """Mention → card → own approval refused → approval → training → final card with its curve."""
    requester, approver = slack.user("U1"), slack.user("U2")
    await requester.mention("C1", "train digits for 2 epochs lr 0.002")
    pending = await card(slack, "Approvals", "digits")
    await (await requester.click(pending, "sb_approve")).done()
    await slack.ephemeral("U1", containing="yourself, so you cannot approve it")
    assert "sb_approve" in str(pending.blocks), "the shared card is unchanged"
    await (await approver.click(pending, "sb_approve")).done()
    final = await card(slack, "succeeded", "val_accuracy", accuracy, seconds=90)
    assert final.ts == pending.ts, "one card, edited"
    shared = {".log", ".png"}
    await slack.until(lambda: suffixes(slack) == shared, 20, "the log and the learning curve as files")
    await slack.message("C1", containing="succeeded", thread_ts=pending.thread_ts)


@pytest.mark.skipif(not TRAINERS_PYTHON.exists(), reason="the trainers' environment is not made; run make setup")
async def test_the_whole_loop_over_sockets_with_a_real_training(tmp_path: Path) -> None:
    async with SlackServer(rates=60) as slack, bot(slack, tmp_path, TRAINERS_PYTHON):
        await whole_loop(slack, accuracy="9")
        approver = slack.user("U2")
        await approver.slash("/signalbox", "digest", channel="C1")
        await slack.ephemeral("U2", containing="1 succeeded")
        await slack.user("U1").open_home("home")
        assert "digits-1" in json.dumps((await slack.home("U1")).body)


async def test_the_whole_loop_over_signed_http(tmp_path: Path) -> None:
    program, ledger = install(tmp_path)
    port = free_port()
    mode = {"SIGNALBOX_SLACK_MODE": "http", "SIGNALBOX_HTTP_PORT": str(port)}
    async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program, **mode):
        base = f"http://127.0.0.1:{port}"
        post = slack.deliver_over_http(f"{base}/slack/events")
        await post.verify_url()
        await whole_loop(slack, accuracy="97")
        assert len(ledger.read_text().splitlines()) == 1
        async with aiohttp.ClientSession() as web:
            for path, words in (("/healthz", "ok"), ("/readyz", "ready"), ("/metrics", "signalbox_open_jobs 0")):
                async with web.get(base + path) as answer:
                    assert answer.status == 200 and words in await answer.text()
        await slack.user("U1").mention("C1", "train digits for 3 epochs")
        pending = await card(slack, "Approvals", "epochs 3")
        genuine = await slack.user("U2").click(pending, "sb_details")
        assert genuine.acknowledged
        pressed = {
            "type": "block_actions",
            "team": {"id": "T1"},
            "user": {"id": "U2"},
            "channel": {"id": "C1"},
            "trigger_id": "1.2.3",
            "actions": [
                {
                    "type": "button",
                    "block_id": "x",
                    "action_id": "sb_approve",
                    "value": pending.buttons["sb_approve"]["value"],
                }
            ],
        }
        for forged in ({"signed": False}, {"secret": "guessed"}, {"age_s": 301}):
            await post.send("interactive", pressed, **forged)
        await asyncio.sleep(1)
        assert "sb_approve" in pending.buttons, "a click that Slack did not sign approved something"


async def test_a_plain_slack_without_metadata_streams_files_or_assistant(tmp_path: Path) -> None:
    """Every socket gets every envelope, metadata is dropped, half of the methods are unknown: still each thing once."""
    program, ledger = install(tmp_path)
    async with SlackServer(simple=True, rates=60) as slack, bot(slack, tmp_path, program):
        requester, approver = slack.user("U1"), slack.user("U2")
        await requester.mention("C1", "train digits for 2 epochs")
        pending = await card(slack, "Approvals", "digits")
        await requester.slash("/signalbox", "help", channel="C1")
        await (await approver.click(pending, "sb_reject")).done()
        await approver.close_view(await slack.view("U2"))
        slack.fail("chat.update", error="invalid_blocks", times=1)  # a Slack that does not know a block of ours
        await (await approver.click(pending, "sb_approve")).done()
        final = await card(slack, "succeeded", seconds=60)
        assert final.ts == pending.ts
        cards = [one for one in slack.messages("C1") if "sb_details" in one.buttons]
        assert len(cards) == 1 and len(ledger.read_text().splitlines()) == 1
        assert len(slack.calls_to("views.open")) == 1
        private = [one.words for one in slack.home_team.ephemerals]
        assert len(private) == 1 and "/signalbox jobs" in private[0], private


async def test_out_of_memory_is_retried_by_one_press_and_another_approval(tmp_path: Path) -> None:
    program, ledger = install(tmp_path, "large")
    async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program):
        requester, approver = slack.user("U1"), slack.user("U2")
        await requester.mention("C1", "train digits for 2 epochs with batch size 32")
        await approver.click(await card(slack, "Approvals", "digits"), "sb_approve")
        failed = await card(slack, "digits-1", "memory did not suffice", "Retry with batch_size 16", seconds=60)
        tail = await slack.message("C1", containing="The end of its log")
        assert "9 GiB" in tail.text and "<!channel>" not in tail.text and tail.text.count("```") == 2
        await slack.until(lambda: ".log" in suffixes(slack), 20, "all of its log")
        assert len(ledger.read_text().splitlines()) == 1, "nothing runs again by itself"

        await asyncio.gather(requester.click(failed, "sb_retry"), slack.user("U3").click(failed, "sb_retry"))
        again = await card(slack, "Proposal 2", "Approvals", "batch_size 16")
        await requester.click(failed, "sb_retry")
        await slack.ephemeral("U1", containing="Proposal 2 asks for this already and is pending")
        await approver.click(again, "sb_reject")
        await approver.submit_view(await slack.view("U2"), {"reason": "not tonight"})
        await card(slack, "Proposal 2", "rejected by")

        await asyncio.gather(requester.click(failed, "sb_retry"), slack.user("U3").click(failed, "sb_retry"))
        again = await card(slack, "Proposal 3", "Approvals", "batch_size 16")
        await approver.click(again, "sb_approve")
        await card(slack, "digits-3", "succeeded", seconds=60)
        numbers = {one.text for one in slack.messages("C1") if "Proposal 4" in one.text}
        assert not numbers, "two presses are one proposal"


async def test_a_cancelled_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    program, ledger = install(tmp_path, "hang")
    async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program):
        requester, approver = slack.user("U1"), slack.user("U2")
        await requester.mention("C1", "train digits for 2 epochs")
        await approver.click(await card(slack, "Approvals", "digits"), "sb_approve")
        running = await card(slack, "digits-1", "epoch 1/2", seconds=60)
        await requester.click(running, "sb_cancel")
        cancelled = await card(slack, "digits-1", "Cancelled by", "Resume", seconds=60)
        name = re.search(r"digits-1-\w+", cancelled.text)
        assert name is not None
        await requester.click(cancelled, "sb_retry")
        again = await card(slack, "Proposal 2", "Approvals", f"resume_from {name[0]}")
        await approver.click(again, "sb_approve")
        await card(slack, "digits-2", "succeeded", seconds=60)
        first, second = ledger.read_text().splitlines()
        assert "--resume" not in first and "--resume" in second
        assert second.split("--output-dir ")[1] == first.split("--output-dir ")[1], "the folder of the first"


async def test_reject_edit_details_rerun_cancel(tmp_path: Path) -> None:
    program, _ = install(tmp_path, "hang")
    async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program):
        requester, approver, other = slack.user("U1"), slack.user("U2"), slack.user("U3")
        await requester.mention("C1", "train digits for 2 epochs")
        first = await card(slack, "Proposal 1", "Approvals")

        await (await other.click(first, "sb_approve")).done()
        await slack.ephemeral("U3", containing="not among the approvers")
        stale = first.buttons["sb_approve"]["value"]

        await (await requester.click(first, "sb_edit")).done()
        form = await slack.view("U1")
        await requester.submit_view(form, {"epochs": "500", "lr": "0.01"})
        assert "from 1 to 100" in form.errors["epochs"] and form.open
        await requester.submit_view(form, {"epochs": "4", "lr": "0.01"})
        assert not form.open
        await card(slack, "Revision 2", "epochs 2 → 4")
        await approver.click(first, "sb_approve", tamper={"value": stale})
        await slack.ephemeral("U2", containing="was changed after that card")

        await (await approver.click(first, "sb_details")).done()
        details = await slack.view("U2")
        assert "max_runtime_seconds" in details.words
        await approver.close_view(details)
        await (await approver.click(first, "sb_reject")).done()
        await approver.submit_view(await slack.view("U2"), {"reason": "too many <!channel> epochs"})
        rejected = await card(slack, "Proposal 1", "rejected by")
        assert not {"sb_approve", "sb_reject", "sb_edit"} & set(rejected.buttons)
        reply = await slack.message("C1", containing="was rejected by")
        assert "<!channel>" not in reply.text

        await requester.mention("C1", "train digits for 5 epochs")
        second = await card(slack, "Proposal 2", "Approvals")
        await asyncio.gather(approver.click(second, "sb_approve"), approver.click(second, "sb_approve"))
        running = await card(slack, "digits-2", "running")
        await (await requester.click(running, "sb_cancel")).done()
        cancelled = await card(slack, "digits-2", "Cancelled by", seconds=60)
        await (await requester.click(cancelled, "sb_rerun")).done()
        await requester.submit_view(await slack.view("U1"), {"epochs": "1"})
        await card(slack, "Proposal 3", "epochs 1", "Approvals")


async def test_a_kill_loses_nothing_and_makes_no_second_card(tmp_path: Path) -> None:
    program, ledger = install(tmp_path, "slow")
    async with SlackServer(rates=60, retry_after_s=(0.5, 1, 2)) as slack:
        async with bot(slack, tmp_path, program, killed=True) as process:
            await slack.user("U1").mention("C1", "train digits for 2 epochs")
            pending = await card(slack, "Approvals", "digits")
            await (await slack.user("U2").click(pending, "sb_approve")).done()
            await slack.until(ledger.read_text, 30, "the training's start")
            process.kill()
        async with bot(slack, tmp_path, program):
            final = await card(slack, "succeeded", seconds=60)
            assert final.ts == pending.ts and len(ledger.read_text().splitlines()) == 1


async def test_what_is_not_for_it_is_left_alone(tmp_path: Path) -> None:
    program, _ = install(tmp_path)
    async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program):
        requester = slack.user("U1")
        await requester.say("C1", "train digits for 2 epochs")  # not to the bot
        await asyncio.sleep(1.5)
        assert not [one for one in slack.messages("C1") if one.user == slack.bot.id]
        asked = await requester.mention("C1", "hello")
        await slack.message("C1", thread_ts=asked.ts, author="app")
        await requester.reply("C1", asked.ts, "train digits for 3 epochs")  # a follow-up needs no mention
        await card(slack, "Approvals", "epochs 3")
        hostile = "train digits <!channel> [x](http://evil.example) " + "y" * 1500
        await requester.mention("C1", hostile)
        await card(slack, "Proposal 2", "Approvals")
        for message in slack.messages("C1"):
            if message.user == slack.bot.id:
                assert "<!channel>" not in json.dumps(message.blocks) + message.text


async def test_a_language_models_answer_is_streamed(tmp_path: Path) -> None:
    program, _ = install(tmp_path)
    answer = "There is nothing to report today, " + "so here are some words about trains. " * 40 + "The end."
    async with OpenAIServer([says(answer)]) as model:
        more = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": model.url}
        async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program, **more):
            asked = await slack.user("U1").mention("C1", "tell me about trains")
            said = await slack.message("C1", containing="The end.", thread_ts=asked.ts)
            assert said.text.count("The end.") == 1 and said.text.startswith("There is nothing")
            assert len([one for one in slack.messages("C1") if "The end." in one.words]) == 1
            await slack.user("U1").feedback(said, positive=True)


async def test_doctor_says_what_slack_lacks(tmp_path: Path) -> None:
    async with SlackServer(rates=60) as slack:
        slack.home_team.scopes.remove("files:write")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SIGNALBOX_", "SLACK_"))
        }
        environment |= {
            "SIGNALBOX_HOME": str(tmp_path / "home"),
            "SIGNALBOX_TRAINER_PYTHON": sys.executable,
            "SLACK_API_URL": slack.api_url,
            "SLACK_BOT_TOKEN": slack.bot_token,
            "SLACK_APP_TOKEN": "xapp-wrong",
            "SIGNALBOX_DIGEST_CHANNEL": "C404",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bot", "doctor", env=environment, cwd=SOURCE, stdout=PIPE
        )
        said, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 1
        for words in ("files:write", "SLACK_APP_TOKEN is refused", "C404"):
            assert words in said.decode(), said.decode()
