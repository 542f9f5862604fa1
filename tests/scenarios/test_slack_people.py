"""What people do around a card in Slack: the home page, groups, Stop, time that runs out, restarts, the digest."""

from __future__ import annotations

import asyncio
import struct
import time
from pathlib import Path

from tests.fakes.openai_server import KEY, OpenAIServer, Reply, says
from tests.fakes.slack import SlackServer
from tests.fakes.trainer import install
from tests.scenarios.test_slack import bot, card

POLICY = """
approvers: [U1, U2]
quorum:
  - {up_to_dollars: "0.10", approvals: 1}
budget_per_month: "100"
open_proposals_per_person: 50
"""
SOON = POLICY + 'decide_within_hours: "0.0014"\n'  # five seconds


async def test_the_home_page_decides_and_refuses_privately(tmp_path: Path) -> None:
    program, starts = install(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)
    async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program):
        first, second = slack.user("U1"), slack.user("U2")
        await first.mention("C1", "train digits for 2 epochs")
        own = await card(slack, "Proposal 1", "Approvals")
        await second.mention("C1", "train digits for 3 epochs")
        await card(slack, "Proposal 2", "Approvals")

        await first.open_home()
        page = await slack.home("U1", containing="Proposal 2")
        values = {one["value"] for block in page.body["blocks"] for one in block.get("elements", []) if "value" in one}
        assert own.buttons["sb_approve"]["value"] not in values, "one's own proposal waits for somebody else"
        pressed = await first.click(page, "sb_approve", tamper={"value": own.buttons["sb_approve"]["value"]})
        assert pressed.acknowledged
        direct = slack.home_team.im("U1").id
        await slack.message(direct, containing="yourself, so you cannot approve it")
        assert not slack.home_team.ephemerals and "sb_approve" in own.buttons and not starts.read_text()

        await (await first.click(page, "sb_approve")).done()
        await slack.until(lambda: "sb_approve" not in slack.home_team.homes["U1"].buttons, 5, "the page as it is now")
        await card(slack, "digits-2", "succeeded")
        await second.open_home()
        page = await slack.home("U2", containing="Proposal 1")
        await (await second.click(page, "sb_reject")).done()
        await second.submit_view(await slack.view("U2"), {"reason": "not today"})
        await card(slack, "Proposal 1", "rejected by", "not today")
        assert len(starts.read_text().splitlines()) == 1


async def test_a_user_groups_members_approve_and_a_look_up_that_fails_gives_no_right(tmp_path: Path) -> None:
    program, starts = install(tmp_path)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY + "approver_groups: [S1]\n")
    async with SlackServer(rates=60) as slack:
        member = slack.add_user("U4")
        slack.add_channel("C5")
        slack.add_group("S1", ["U4"])
        slack.add_group("S2", ["U4"])
        async with bot(slack, tmp_path, program):
            await slack.user("U1").mention("C5", "train digits for 2 epochs")
            pending = await card(slack, "Approvals", "<@U4>", channel="C5")
            await (await slack.user("U3").click(pending, "sb_approve")).done()
            await slack.ephemeral("U3", containing="not among the approvers")
            await (await member.click(pending, "sb_approve")).done()
            await card(slack, "succeeded", channel="C5")

            policy.write_text(POLICY + "approver_groups: [S2]\n")
            await asyncio.sleep(1)  # a changed policy takes effect within that time
            slack.fail("usergroups.users.list", hang_s=60, times=100)
            await slack.user("U1").mention("C5", "train digits for 3 epochs")
            second = await card(slack, "Proposal 2", "Approvals", channel="C5")
            refused = await member.click(second, "sb_approve")
            assert refused.acknowledged, "a group that cannot be looked up held the click up"
            await slack.ephemeral("U4", containing="not among the approvers", timeout=15)
            assert len(starts.read_text().splitlines()) == 1
            approved = await slack.user("U2").click(second, "sb_approve")
            assert approved.acknowledged
            await card(slack, "digits-2", "succeeded", channel="C5")
            slack.api.faults.clear()


async def test_stop_ends_a_turn_for_good(tmp_path: Path) -> None:
    program, _ = install(tmp_path)
    slow = Reply(text="Trains are long and slow, and there is much to say about them. " * 60, pace_s=0.05)
    async with OpenAIServer([slow, says("Here I am again.")]) as model, SlackServer(rates=60) as slack:
        more = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": model.url}
        async with bot(slack, tmp_path, program, **more):
            asked = await slack.user("U1").mention("C1", "tell me about trains")
            said = await slack.message("C1", containing="Trains are", thread_ts=asked.ts, timeout=20)
            await (await slack.user("U1").stop(said)).done()  # type: ignore[union-attr]
            await slack.until(lambda: slack.home_team.sessions.get(("C1", asked.ts), {}).get("status") == "closed", 5)
            length = len(said.text)
            await slack.user("U1").reply("C1", asked.ts, "are you there?")
            await slack.message("C1", containing="Here I am again.", thread_ts=asked.ts, timeout=15)
            assert len(said.text) == length and len(model.requests) == 2
        async with bot(slack, tmp_path, program, **more):
            await asyncio.sleep(2)
            assert len(model.requests) == 2, "what was stopped began again after a restart"


async def test_time_that_runs_out_takes_buttons_and_forms_with_it(tmp_path: Path) -> None:
    program, starts = install(tmp_path)
    (tmp_path / "policy.yaml").write_text(SOON)
    async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program):
        await slack.user("U1").mention("C1", "train digits for 2 epochs")
        pending = await card(slack, "Approvals")
        value = pending.buttons["sb_approve"]["value"]
        await (await slack.user("U2").click(pending, "sb_reject")).done()
        await (await slack.user("U1").click(pending, "sb_edit")).done()
        reject, edit = await slack.view("U2"), await slack.view("U1")
        expired = await card(slack, "Expired", seconds=15)
        assert expired.ts == pending.ts and set(expired.buttons) == {"sb_details"}
        await slack.message("C1", containing="expired; nobody decided")
        await slack.user("U2").submit_view(reject, {"reason": "too late"})
        assert reject.open and "expired" in reject.errors["reason"]
        await slack.user("U1").submit_view(edit, {"epochs": "3"})
        assert edit.open and "expired" in " ".join(edit.errors.values())
        stale = {"action_id": "sb_approve", "value": value}
        await (await slack.user("U2").click(pending, "sb_details", tamper=stale)).done()
        await slack.ephemeral("U2", containing="expired")
        assert not starts.read_text()


async def test_a_start_corrects_the_cards_that_went_stale_meanwhile(tmp_path: Path) -> None:
    program, starts = install(tmp_path)
    policy = tmp_path / "policy.yaml"
    async with SlackServer(rates=60) as slack:
        async with bot(slack, tmp_path, program, killed=True) as process:
            await slack.user("U1").mention("C1", "train digits for 2 epochs")
            approved = await card(slack, "Proposal 1", "Approvals")
            policy.write_text(SOON)
            await asyncio.sleep(1)  # a changed policy takes effect within that time
            await slack.user("U1").mention("C1", "train digits for 3 epochs")
            overdue = await card(slack, "Proposal 2", "Approvals")
            slack.fail("chat.update", hang_s=60, times=20)
            await (await slack.user("U2").click(approved, "sb_approve")).done()
            process.kill()
        slack.api.faults.clear()
        assert "sb_approve" in approved.buttons, "the card went stale"
        await asyncio.sleep(5)
        async with bot(slack, tmp_path, program):
            await card(slack, "Expired")
            await slack.until(lambda: "succeeded" in approved.words and "Expired" in overdue.words, 120, "both cards")
            assert set(overdue.buttons) == {"sb_details"} and len(starts.read_text().splitlines()) == 1
            assert len([one for one in slack.messages("C1") if "sb_details" in one.buttons]) == 2


def clock_with_midnight(folder: Path, seconds: float) -> str:
    """A time zone of its own whose next midnight is that far away; answers the search path for it."""
    ahead = int(86_400 - seconds - time.time() % 86_400)  # seconds east of UTC
    east = ahead if ahead <= 43_200 else ahead - 86_400
    body = struct.pack(">l?B", east, False, 0) + b"TST\0"
    counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    head = b"TZif" + b"2" + b"\0" * 15 + counts
    sign, rest = ("-" if east >= 0 else "+"), abs(east)  # POSIX counts west of UTC
    rule = f"\n<TST>{sign}{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}\n"
    (folder / "Test").mkdir(parents=True, exist_ok=True)
    (folder / "Test" / "Midnight").write_bytes(head + body + head + body + rule.encode())
    return str(folder)


async def test_the_digest_comes_to_the_channel_once(tmp_path: Path) -> None:
    """At midnight, over an answer that is lost, a kill and another start."""
    program, _ = install(tmp_path)
    async with SlackServer(rates=60) as slack:
        slack.add_channel("C9")
        more = {
            "SIGNALBOX_DIGEST_CHANNEL": "C9",
            "SIGNALBOX_DIGEST_HOUR": "0",
            "SIGNALBOX_TIMEZONE": "Test/Midnight",
            "PYTHONTZPATH": clock_with_midnight(tmp_path / "zones", 9),
        }
        midnight = time.monotonic() + 9

        async with bot(slack, tmp_path, program, **more):
            await slack.user("U1").mention("C1", "train digits for 2 epochs")
            await card(slack, "Approvals")
            assert not slack.messages("C9"), "a day that is not over has no digest"
        await asyncio.sleep(max(0.0, midnight - time.monotonic()) + 0.5)
        slack.fail("chat.postMessage", drop=True, after=True, channel="C9")
        async with bot(slack, tmp_path, program, killed=True, **more) as process:
            digest = await slack.message("C9", containing="Digest of", timeout=15)
            process.kill()
        assert "1 proposed" in digest.words and "proposal 1" in digest.words
        async with bot(slack, tmp_path, program, **more):
            await asyncio.sleep(3)
        assert len(slack.messages("C9")) == 1
