"""Everything that can come wrong out of Slack, or go wrong on the way to it: nothing is lost, no click stays silent.

One real bot process behind sockets and one behind signed HTTP serve all tests of this file, each test in a channel of
its own. What people do there is in `test_slack_people.py`.
"""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from tests.fakes.slack import Delivery, Message, Person, Signed, SlackServer, View, responding
from tests.fakes.slack.delivery import Post
from tests.fakes.slack.state import Json
from tests.fakes.trainer import install
from tests.scenarios.test_slack import bot, card, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = """
approvers: [U1, U2]
quorum:
  - {up_to_dollars: "0.10", approvals: 1}
budget_per_month: "1000"
open_proposals_per_person: 100
"""
HOSTILE = "<!channel> <@U3> <http://x.example|y> *bold* `code` _slant_ &lt;!here&gt; @everyone ``` *bold* ``` U3"


@dataclass(frozen=True, kw_only=True)
class Room:
    """A fake Slack with a bot at work in it."""

    slack: SlackServer
    starts: Path  # a line for each training that was started
    post: Post | None = None  # the way in, over HTTP

    @property
    def requester(self) -> Person:
        return self.slack.user("U1")

    @property
    def approver(self) -> Person:
        return self.slack.user("U2")

    async def proposal(self, channel: str, words: str = "train digits for 2 epochs") -> Message:
        """The card of a proposal in a channel, which is made if it is not there."""
        if channel not in self.slack.home_team.channels:
            self.slack.add_channel(channel)
        before = len(self.cards(channel))
        await self.requester.mention(channel, words)
        await self.slack.until(lambda: len(self.cards(channel)) > before, 20, f"a card for {words!r}")
        return self.cards(channel)[-1]

    def cards(self, channel: str) -> list[Message]:
        return [one for one in self.slack.messages(channel) if "sb_details" in one.buttons]

    def started(self) -> int:
        return len(self.starts.read_text().splitlines())

    async def ends(self, channel: str, seconds: float = 30) -> Message:
        """The card, once its training has succeeded; people are told in the thread."""
        final = await card(self.slack, "succeeded", channel=channel, seconds=seconds)
        await self.slack.message(channel, containing="succeeded", thread_ts=final.thread_ts, timeout=seconds)
        return final  # type: ignore[no-any-return]

    async def refused(self, press: Callable[[], Any], user: str, words: str) -> None:
        """A press that is acknowledged and answered privately, anew, with these words."""
        before = len(self.slack.home_team.ephemerals)
        delivery = await press()
        assert delivery.acknowledged, delivery.failures

        def told() -> bool:
            new = self.slack.home_team.ephemerals[before:]
            return any(one.ephemeral_to == user and words in one.words for one in new)

        await self.slack.until(told, 10, f"a private {words!r} to {user}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def room(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    folder = tmp_path_factory.mktemp("sockets")
    program, starts = install(folder)
    (folder / "policy.yaml").write_text(POLICY)
    slack = SlackServer(rates=60, retry_after_s=(0.5, 1, 2, 4, 8, 8))
    async with slack, bot(slack, folder, program):
        yield Room(slack=slack, starts=starts)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    folder = tmp_path_factory.mktemp("http")
    program, starts = install(folder)
    (folder / "policy.yaml").write_text(POLICY)
    port = free_port()
    mode = {"SIGNALBOX_SLACK_MODE": "http", "SIGNALBOX_HTTP_PORT": str(port)}
    async with SlackServer(rates=60) as slack, bot(slack, folder, program, **mode):
        post = slack.deliver_over_http(f"http://127.0.0.1:{port}/slack/events")
        yield Room(slack=slack, starts=starts, post=post)


async def approving(room: Room, pending: Message) -> Json:
    """The payload of an approval as Slack would send it, made from a click that does no harm."""
    harmless = await (await room.approver.click(pending, "sb_details")).done()
    payload = copy.deepcopy(harmless.payload)
    payload["actions"][0] |= {"action_id": "sb_approve", "value": pending.buttons["sb_approve"]["value"]}
    return payload


# Requests over HTTP --------------------------------------------------------------------------------------------------


async def test_what_slack_did_not_sign_now_changes_nothing(http: Room) -> None:
    assert http.post is not None
    pending = await http.proposal("CH1")
    approval = await approving(http, pending)
    spoken = copy.deepcopy(next(one.payload for one in http.slack.deliveries if one.kind == "events_api"))
    spoken["event"] |= {"text": f"<@{http.slack.bot.id}> train digits for 9 epochs", "ts": "1700000000.000100"}
    forgeries: list[Json] = [{"signed": False}, {"secret": "guessed"}, {"age_s": 301}, {"age_s": -301}]
    for how in forgeries:
        for kind, payload in (("interactive", approval), ("events_api", spoken)):
            answer = await http.post.send(kind, payload, **how)
            assert answer.status == 401, (how, kind)
    genuine = next(one for one in http.post.sent if b"sb_details" in one.body)
    altered = Signed(url=genuine.url, body=genuine.body.replace(b"sb_details", b"sb_approve"), headers=genuine.headers)
    assert (await http.post.replay(altered)).status == 401
    vast = Signed(url=genuine.url, body=b"x" * 2_000_000, headers=genuine.headers)
    assert (await http.post.replay(vast)).status == 413
    await http.approver.slash("/signalbox", "jobs", channel="CH1")  # what came before is through now
    await http.slack.ephemeral("U2")
    assert "sb_approve" in pending.buttons and not http.started()
    assert len(http.cards("CH1")) == 1
    await (await http.approver.click(pending, "sb_approve")).done()
    await http.ends("CH1")


async def test_a_replayed_request_does_nothing_twice(http: Room) -> None:
    assert http.post is not None
    before = http.started()
    pending = await http.proposal("CH2", "train digits for 3 epochs")
    genuine = await http.approver.click(pending, "sb_approve")
    assert genuine.acknowledged
    await http.ends("CH2")
    click = next(one for one in reversed(http.post.sent) if b"sb_approve" in one.body and b"block_actions" in one.body)
    words = [
        one for one in http.post.sent if b"train digits for 3 epochs" in one.body and b"event_callback" in one.body
    ]
    assert len(words) >= 2, "a mention is an app_mention and a message"
    for event in words:
        assert (await http.post.replay(event)).status == 200

    async def again() -> Delivery:
        assert (await http.post.replay(click)).status == 200
        return genuine

    await http.refused(again, "U2", "already approved by")
    assert http.started() == before + 1 and len(http.cards("CH2")) == 1
    mine = [one for one in http.slack.messages("CH2") if one.user == http.slack.bot.id]
    assert sum("was approved by" in one.text for one in mine) == 1, "the click was heard twice"
    assert sum("sb_feedback" in one.buttons for one in mine) == 1, "the words were answered twice"


async def test_another_workspace_is_not_heard(http: Room) -> None:
    pending = await http.proposal("CH3")
    http.slack.add_workspace("T2")
    stranger = http.slack.add_user("U2", team="T2")  # the name of an approver here
    http.slack.add_channel("CH4", team="T2", members=["U2", "UBOTT2"])
    calls = len(http.slack.calls)
    await stranger.mention("CH4", f"<@{http.slack.bot.id}> train digits for 2 epochs", raw=True)
    heard = [one for one in http.slack.deliveries if one.payload.get("team_id") == "T2"]
    assert heard
    heard.append(await stranger.slash("/signalbox", "jobs", channel="CH4"))
    payload = await approving(http, pending)
    calls = len(http.slack.calls)
    for elsewhere in (
        {"team": {"id": "T2", "domain": "team-t2"}},
        {"team": None, "user": {"id": "U2", "team_id": "T2"}},
    ):
        heard.append(http.slack.courier.send("interactive", payload | elsewhere))
    for delivery in heard:
        await delivery.done()  # acknowledged, or Slack would send it again
        assert not delivery.response
    await asyncio.sleep(0.3)
    assert len(http.slack.calls) == calls, "somebody was answered"
    assert "sb_approve" in pending.buttons


# Buttons and forms ---------------------------------------------------------------------------------------------------


async def test_an_altered_button_is_refused_aloud(room: Room) -> None:
    pending = await room.proposal("CB1")
    other = await room.proposal("CB2")
    value = pending.buttons["sb_approve"]["value"]
    name, revision, digest = value.split(":")
    flipped = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    foreign = "does not belong to a proposal of this channel"
    altered = {
        f"{name}:{revision}:{flipped}": "was changed after that card",
        f"{name}:{revision}:": "",
        name: "",
        f"{'f' * 16}:{revision}:{digest}": foreign,
        f"{name[:-1]}:{revision}:{digest}": foreign,
        "": foreign,
        "::::": foreign,
        "' OR 1=1 --": foreign,
        "\x00" * 2000: foreign,
        other.buttons["sb_approve"]["value"]: foreign,
    }
    for spoilt, words in altered.items():
        await room.refused(
            lambda spoilt=spoilt: room.approver.click(pending, "sb_approve", tamper={"value": spoilt}), "U2", words
        )
        assert "sb_approve" in pending.buttons, spoilt
    for action in ("sb_reject", "sb_edit", "sb_details"):
        tamper = {"value": other.buttons["sb_approve"]["value"]}
        await room.refused(lambda a=action, t=tamper: room.approver.click(pending, a, tamper=t), "U2", foreign)
    later: Json = {"action_id": "sb_cancel", "value": value}
    await room.refused(lambda: room.approver.click(pending, "sb_details", tamper=later), "U2", "no job to cancel")
    assert "sb_approve" in pending.buttons and "sb_approve" in other.buttons


async def test_a_form_sent_twice_counts_once(room: Room) -> None:
    pending = await room.proposal("CF1")

    async def form(person: Person, message: Message, action: str) -> View:
        await (await person.click(message, action)).done()
        return await room.slack.view(person.id)

    async def again(first: Delivery) -> Json:
        """The same payload once more, and what is said beside the form's fields."""
        second = await room.slack.courier.send("interactive", first.payload).done()
        return dict((second.response or {}).get("errors", {}))

    edited = await room.requester.submit_view(await form(room.requester, pending, "sb_edit"), {"epochs": "3"})
    await card(room.slack, "Revision 2", channel="CF1")
    assert "changed meanwhile" in str(await again(edited))
    assert pending.words.count("Revision 2")

    view = await form(room.approver, pending, "sb_reject")
    rejected = await room.approver.submit_view(view, {"reason": "too dear"})
    assert not view.open
    gone = await card(room.slack, "rejected by", channel="CF1")
    assert "already rejected by" in str(await again(rejected))
    replies = [one for one in room.slack.messages("CF1") if "was rejected by" in one.text]
    assert len(replies) == 1 and gone.ts == pending.ts

    value = (await room.proposal("CF1")).buttons["sb_approve"]["value"]
    newest = room.cards("CF1")[-1]
    await (await room.approver.click(newest, "sb_approve", value)).done()
    await room.slack.until(lambda: "sb_rerun" in newest.buttons, 20, "the end of the training")
    rerun = await room.requester.submit_view(await form(room.requester, newest, "sb_rerun"), {"epochs": "1"})
    assert not await again(rerun)
    await room.slack.until(lambda: len(room.cards("CF1")) == 3, 10, "the card of the rerun")
    await room.proposal("CF1", "train digits for 5 epochs")
    assert len(room.cards("CF1")) == 4, "the form that came twice made two proposals"


async def test_an_altered_form_is_refused_beside_its_field(room: Room) -> None:
    pending = await room.proposal("CF2")
    name, revision, digest = pending.buttons["sb_reject"]["value"].split(":")
    for spoilt, words in (
        (f"{name}:{revision}:{'0' * 64}", "was changed after that card"),
        (f"{name}:{revision}:", ""),
        (f"{'0' * 16}:{revision}:{digest}", "does not belong"),
        ("", "does not belong"),
    ):
        await (await room.approver.click(pending, "sb_reject")).done()
        form = await room.slack.view("U2")

        def alter(body: Json, spoilt: str = spoilt) -> None:
            body["view"]["private_metadata"] = spoilt

        await room.approver.submit_view(form, {"reason": "no"}, tamper=alter)
        assert form.open and words in form.errors["reason"], spoilt
        await room.approver.close_view(form)
    await (await room.approver.click(pending, "sb_reject")).done()
    form = await room.slack.view("U2")
    await room.approver.submit_view(form, {"reason": "\u202e\u200b  "})
    assert "Say why" in form.errors["reason"]
    assert "sb_approve" in pending.buttons


# Words ---------------------------------------------------------------------------------------------------------------

_TAG = re.compile(r"<(?!@U[12]>|!date\^|#C\w+>)[^>]{0,80}>?")


def dressed(message: Message | View) -> list[str]:
    """Where hostile words would ping, link or look like the bot's own: nothing, if all is well."""
    found: list[str] = []

    def look(node: Any, kind: str) -> None:
        if isinstance(node, list):
            for one in node:
                look(one, kind)
            return
        if not isinstance(node, dict):
            return
        kind = str(node.get("type", kind))
        text = node.get("text")
        if isinstance(text, str) and kind in ("mrkdwn", "markdown"):
            found.extend(_loud(text, kind))
        if kind in ("link", "broadcast", "usergroup") or (kind == "user" and node.get("user_id") not in ("U1", "U2")):
            found.append(f"{kind}: {node}")
        for value in node.values():
            look(value, kind)

    look(message.body["blocks"] if isinstance(message, View) else message.blocks, "")
    if isinstance(message, Message):
        found.extend(_loud(message.text, "fallback" if message.blocks else "mrkdwn"))
    return found


def _loud(text: str, kind: str) -> list[str]:
    bad = [f"{kind} with {tag!r}" for tag in _TAG.findall(text)]
    bad += [f"{kind} with {words!r}" for words in ("@everyone", "@channel", "@here", "://x.example") if words in text]
    if kind == "mrkdwn":
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        bad += [f"{kind} with {words!r}: {text}" for words in ("*bold*", "`code`", "_slant_") if words in text]
    return bad


async def test_hostile_words_ping_nobody_and_stay_words(room: Room) -> None:
    """In requests, reasons, names of data sets; on cards, in replies, private notes, direct messages, the home page."""
    pending = await room.proposal("CW1", f"train digits for 2 epochs {HOSTILE}")
    await room.proposal("CW1", "train digits for 3 epochs *bold* `code` [y](http://x.example) ![y](http://x.example)")
    for words in (
        f"fine-tune distilgpt2 on {HOSTILE} for 1 epoch",
        "finetune distilgpt2 on the dataset <http://x.example|wikitext> for 1 epoch",
        f"train {HOSTILE}",
        HOSTILE,
        f"what would {HOSTILE} cost?",
        f"how is {HOSTILE} doing?",
    ):
        asked = await room.requester.mention("CW1", words, raw=True)
        await room.slack.message("CW1", thread_ts=asked.ts, timeout=15)
    quoted = str(pending.blocks)
    assert "*bold* `code`" in quoted, "the requester's words stand on the card as they were said"
    await (await room.approver.click(pending, "sb_reject")).done()
    await room.approver.submit_view(await room.slack.view("U2"), {"reason": HOSTILE})
    reply = await room.slack.message("CW1", containing="was rejected by")
    assert "bold" in reply.words
    await card(room.slack, "rejected by", "bold", channel="CW1")
    await room.approver.open_home()
    home = await room.slack.home("U2", containing="bold")
    direct = await room.requester.dm(f"train digits for 4 epochs {HOSTILE}")
    await card(room.slack, "Approvals", channel=direct.channel)
    for argument in (f"jobs {HOSTILE}", f"spend {HOSTILE}", f"digest {HOSTILE}", HOSTILE):
        await room.refused(lambda a=argument: room.requester.slash("/signalbox", a, channel="CW1"), "U1", "")
    said = [one for where in ("CW1", direct.channel) for one in room.slack.messages(where) if one.bot_id]
    assert len(said) > 12
    for shown in (*said, *room.slack.home_team.ephemerals, home):
        assert not dressed(shown), dressed(shown)


async def test_long_and_strange_messages_are_taken_whole(room: Room) -> None:
    room.slack.add_channel("CW2")
    asked = await room.requester.mention("CW2", "train digits for 2 epochs " + "because the last was good " * 384)
    assert len(asked.text) > 10_000
    await room.slack.message("CW2", containing="more than I can read", thread_ts=asked.ts)
    long = await room.proposal("CW2", "train digits for 2 epochs " + "because the last was good " * 50)
    assert "more characters" in long.words
    strange = "train digits\x00 for\x07 2 epochs \u202eesrever\u2066 \u200bnone\ufeff \ud83d\ude80 \x1b[Kred\x7f"
    strange = strange.encode("utf-16", "surrogatepass").decode("utf-16")
    pending = await room.proposal("CW2", strange)
    shown = str([one.words for one in room.slack.messages("CW2") if one.bot_id])
    assert not [char for char in "\x00\x07\x1b\x7f\u202e\u2066\u200b\ufeff" if char in shown]
    await (await room.approver.click(pending, "sb_details")).done()
    details = await room.slack.view("U2", containing="🚀")
    assert not [char for char in "\x00\x07\x1b\x7f\u202e\u2066\u200b\ufeff" if char in details.words]


async def test_bots_talk_to_themselves(room: Room) -> None:
    room.slack.add_user("UROBOT", is_bot=True)
    room.slack.add_channel("CW3")
    robot, before = room.slack.user("UROBOT"), len(room.slack.deliveries)
    asked = await room.requester.mention("CW3", "hello")
    await room.slack.message("CW3", thread_ts=asked.ts)
    await robot.mention("CW3", "train digits for 7 epochs")
    await robot.mention("CW3", "train digits for 7 epochs", thread_ts=asked.ts)
    await robot.reply("CW3", asked.ts, "train digits for 7 epochs")
    words = f"<@{room.slack.bot.id}> train digits for 7 epochs"
    team = room.slack.home_team
    for thread in (None, asked.ts):
        own = Message(channel="CW3", team="T1", user=team.bot.id, bot_id=team.bot_id, text=words, thread_ts=thread)
        room.slack.publish(own)
    await room.requester.edit(asked, f"train digits for 7 epochs <@{room.slack.bot.id}>")
    for delivery in room.slack.deliveries[before:]:
        await delivery.done()
    await room.proposal("CW3", "train digits for 8 epochs")
    assert len(room.cards("CW3")) == 1, "a bot was listened to"


@pytest.mark.parametrize("subtype", ["file_share", "me_message", "thread_broadcast"])
async def test_words_with_a_file_or_beside_a_thread_are_words(room: Room, subtype: str) -> None:
    channel = f"CW4{subtype[0].upper()}"
    room.slack.add_channel(channel)
    words = f"<@{room.slack.bot.id}> train digits for 2 epochs"
    root = await room.requester.say(channel, "hello") if subtype == "thread_broadcast" else None
    thread = root.ts if root else None
    said = Message(channel=channel, team="T1", user="U1", text=words, subtype=subtype, thread_ts=thread)
    room.slack.publish(said)
    await room.slack.until(lambda: room.cards(channel), 20, "the card")
    assert room.cards(channel)[0].thread_ts == (thread or said.ts)


# What Slack refuses --------------------------------------------------------------------------------------------------


async def test_a_card_that_somebody_deleted_stops_nothing(room: Room) -> None:
    pending = await room.proposal("CR1")
    await room.approver.delete(pending)
    await room.approver.open_home()
    home = await room.slack.home("U2", containing="<#CR1>")
    value = pending.buttons["sb_approve"]["value"]
    await (await room.approver.click(home, "sb_approve", value)).done()
    await room.slack.message("CR1", containing="was approved by", timeout=15)
    await room.slack.message("CR1", containing="succeeded", timeout=30)


async def test_words_that_were_deleted_at_once_are_answered_in_their_channel(room: Room) -> None:
    room.slack.add_channel("CR9")
    await room.approver.delete(await room.requester.mention("CR9", "train digits for 2 epochs"))
    await room.slack.until(lambda: room.cards("CR9"), 20, "the card")
    (pending,) = room.cards("CR9")
    await room.slack.until(lambda: "sb_feedback" in str([one.blocks for one in room.slack.messages("CR9")]), 20)
    await (await room.approver.click(pending, "sb_approve")).done()
    for words in ("waits for your decision", "was approved by", "succeeded"):
        await room.slack.message("CR9", containing=words, timeout=30)
    await room.slack.until(lambda: any(one.files for one in room.slack.messages("CR9")), 20, "its log")
    assert [one.ts for one in room.cards("CR9")] == [pending.ts]
    assert not [one for one in room.slack.messages("CR9") if one.thread_ts]


async def test_an_archived_channel_gets_everything_when_it_is_back(room: Room) -> None:
    pending = await room.proposal("CR2")
    before = room.started()
    channel = room.slack.home_team.channels["CR2"]
    channel.archived = True
    await (await room.approver.click(pending, "sb_approve")).done()
    await room.slack.until(lambda: room.started() > before, 20, "the start of the training")
    refused = lambda: [one for one in room.slack.calls_to("chat.postMessage") if one.answer.get("error")]  # noqa: E731
    await room.slack.until(refused, 10, "a refusal")
    await asyncio.sleep(1)
    channel.archived = False
    await room.ends("CR2")
    await room.slack.message("CR2", containing="was approved by")


async def test_a_bot_that_was_removed_answers_clicks_directly(room: Room) -> None:
    pending = await room.proposal("CR3")
    channel = room.slack.home_team.channels["CR3"]
    channel.members.remove(room.slack.bot.id)
    await (await room.slack.user("U3").click(pending, "sb_approve")).done()
    direct = room.slack.home_team.im("U3").id
    await room.slack.message(direct, containing="not among the approvers")
    await (await room.approver.click(pending, "sb_approve")).done()
    await asyncio.sleep(1)
    channel.members.append(room.slack.bot.id)
    await room.ends("CR3")


async def test_a_command_is_answered_where_the_bot_is_no_member(room: Room) -> None:
    room.slack.add_channel("CR7").members.remove(room.slack.bot.id)
    await room.refused(lambda: room.requester.slash("/signalbox", "help", channel="CR7"), "U1", "/signalbox jobs")


async def test_a_command_whose_link_is_not_taken_is_answered_all_the_same(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(responding, "USES", 0)
    room.slack.add_channel("CR8")
    await room.refused(lambda: room.requester.slash("/signalbox", "help", channel="CR8"), "U1", "/signalbox jobs")


async def test_a_command_whose_link_leads_nowhere_is_answered_all_the_same(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.slack, "response_url", lambda _: "http://127.0.0.1:9/respond")
    room.slack.add_channel("CR9")
    await room.refused(lambda: room.requester.slash("/signalbox", "help", channel="CR9"), "U1", "/signalbox jobs")


@pytest.mark.parametrize("error", ["msg_too_long", "invalid_blocks"])
async def test_a_message_that_slack_refuses_comes_in_another_shape(room: Room, error: str) -> None:
    channel = f"CR4{error[0].upper()}"
    room.slack.add_channel(channel)
    room.slack.fail("chat.startStream", error=error, channel=channel)
    room.slack.fail("chat.postMessage", error=error, channel=channel)
    asked = await room.requester.mention(channel, "hello")
    await room.slack.message(channel, thread_ts=asked.ts)
    room.slack.fail("chat.postMessage", error=error, channel=channel)
    pending = await room.proposal(channel)
    room.slack.fail("chat.update", error=error, channel=channel)
    await (await room.approver.click(pending, "sb_approve")).done()
    await room.ends(channel)
    assert len([one for one in room.slack.messages(channel) if one.thread_ts == pending.thread_ts]) >= 4
    assert not [one for one in room.slack.api.faults if one.channel == channel and one.times]


async def test_a_reply_that_was_lost_makes_no_second_message(room: Room) -> None:
    """Slack has posted, and its answer never arrived: the card stands there once."""
    for index, how in enumerate(({"drop": True}, {"status": 500}, {"status": 503})):
        channel = f"CR5{index}"
        room.slack.add_channel(channel)
        room.slack.fail("chat.postMessage", channel=channel, after=True, times=3, **how)
        pending = await room.proposal(channel)
        await (await room.approver.click(pending, "sb_approve")).done()
        await room.ends(channel)
        assert len(room.cards(channel)) == 1, how


async def test_a_storm_of_rate_limits_delays_and_loses_nothing(room: Room) -> None:
    room.slack.add_channel("CR6")
    faults = [
        room.slack.fail(method, status=429, channel="CR6", times=times)
        for method, times in (
            ("chat.startStream", 8),  # the client itself tries each call six times
            ("chat.postMessage", 8),
            ("chat.update", 2),
            ("chat.postEphemeral", 3),
        )
    ]
    asked = await room.requester.mention("CR6", "train digits for 2 epochs")
    await room.slack.until(lambda: room.cards("CR6"), 40, "the card")
    pending = room.cards("CR6")[0]
    refused = await room.slack.user("U3").click(pending, "sb_approve")
    assert refused.acknowledged, "a storm makes Slack show a warning beside the button"
    await room.slack.ephemeral("U3", containing="not among the approvers", timeout=15)
    await (await room.approver.click(pending, "sb_approve")).done()
    await room.ends("CR6", 40)
    await room.slack.message("CR6", containing="waits for your decision", timeout=20)
    await room.slack.message("CR6", containing="was approved by", timeout=20)
    answers = [one for one in room.slack.messages("CR6") if "sb_feedback" in one.buttons]
    assert [one.thread_ts for one in answers] == [asked.ts] and len(room.cards("CR6")) == 1
    assert not [fault for fault in faults[1:] if fault.times]


# Sockets that die ----------------------------------------------------------------------------------------------------


async def after(room: Room, channel: str, break_it: Callable[[], Any]) -> None:
    """Break the sockets as somebody speaks: the words arrive once, and a click works as soon as there is a socket."""
    room.slack.add_channel(channel)
    result = break_it()
    if asyncio.iscoroutine(result):
        await result
    await room.requester.mention(channel, "train digits for 2 epochs")
    await room.slack.until(lambda: room.cards(channel), 40, "the card")
    await room.slack.until(lambda: any(one.usable and not one.silent for one in room.slack.socket.connections), 20)
    await (await room.approver.click(room.cards(channel)[0], "sb_approve")).done()
    await room.ends(channel)
    assert len(room.cards(channel)) == 1


async def test_sockets_that_are_cut_come_back(room: Room) -> None:
    await after(room, "CS1", room.slack.socket.abort)
    await after(room, "CS2", lambda: room.slack.socket.disconnect("warning"))
    await after(room, "CS3", lambda: room.slack.socket.disconnect("refresh_requested", grace_s=0))


async def test_a_spent_address_is_given_up(room: Room) -> None:
    """The WebSocket's URL answers 503 once; it is good for nothing after that, and the client asks for another."""

    def burn() -> None:
        room.slack.socket.refuse(times=2)
        room.slack.socket.abort()

    await after(room, "CS4", burn)
    await room.slack.until(lambda: len(room.slack.socket.connections) == 2, 20, "both sockets")


async def test_silent_sockets_are_noticed(room: Room) -> None:
    await after(room, "CS5", room.slack.socket.mute)


# The database goes away ----------------------------------------------------------------------------------------------


async def test_a_click_is_answered_though_the_database_is_away(postgres: str, tmp_path: Path) -> None:
    """Whom a refusal names is asked of the same database; it must not keep the refusal back. Then it is back."""
    name = f"away{abs(hash(str(tmp_path)))}"
    program, _ = install(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)
    with psycopg.connect(f"{postgres}postgres", autocommit=True) as other:
        other.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
        async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program, DATABASE_URL=f"{postgres}{name}"):
            place = Room(slack=slack, starts=tmp_path / "starts")
            pending = await place.proposal("C1")
            with psycopg.connect(f"{postgres}{name}", autocommit=True) as own:

                def recorded() -> bool:
                    """Else the card's lease would have to end first, a minute later."""
                    return own.execute("SELECT 1 FROM card WHERE message IS NOT NULL").fetchone() is not None

                await slack.until(recorded, 10, "the card's place")
            other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')  # type: ignore[arg-type]
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            for action in ("sb_approve", "sb_details"):
                await place.refused(lambda: place.approver.click(pending, action), "U2", "The database")  # noqa: B023
            assert place.started() == 0
            other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')  # type: ignore[arg-type]
            await place.approver.click(pending, "sb_approve")
            await place.ends("C1", seconds=60)
            assert place.started() == 1


# The conversations' file cannot be opened ----------------------------------------------------------------------------


async def test_an_agent_that_could_not_be_opened_answers_as_soon_as_it_can(tmp_path: Path) -> None:
    program, _ = install(tmp_path)
    (tmp_path / "policy.yaml").write_text(POLICY)
    kept = tmp_path / "home" / "conversations.db"
    kept.mkdir(parents=True)
    async with SlackServer(rates=60) as slack, bot(slack, tmp_path, program):
        asked = await slack.user("U1").mention("C1", "train digits for 2 epochs")
        await slack.message("C1", containing="I cannot answer just now", thread_ts=asked.ts, timeout=30)
        kept.rmdir()
        await card(slack, "Proposal 1", seconds=60)
