"""The fake Slack refuses what Slack refuses and breaks as Slack breaks: shown with Slack's SDK over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from tests.fakes.slack import SlackServer
from tests.fakes.slack.limits import message_complaints, view_complaints

Json = dict[str, Any]


def client(slack: SlackServer, token: str | None = None) -> AsyncWebClient:
    return AsyncWebClient(token=slack.bot_token if token is None else token, base_url=slack.api_url)


@pytest.fixture
async def slack() -> AsyncIterator[SlackServer]:
    async with SlackServer(rates=None) as server:
        yield server


@pytest.fixture
def web_client(slack: SlackServer) -> AsyncWebClient:
    return client(slack)


async def refused(call: Awaitable[Any]) -> str:
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response["error"])


def section(text: str = "hello", **more: Any) -> Json:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}, **more}


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


def button(action: str = "approve", text: str = "Approve", **more: Any) -> Json:
    return {"type": "button", "action_id": action, "text": plain(text), **more}


def actions(*elements: Json, **more: Any) -> Json:
    return {"type": "actions", "elements": list(elements), **more}


def text_input(block_id: str = "why", **more: Any) -> Json:
    element = {"type": "plain_text_input", "action_id": f"{block_id}_a", **more}
    return {"type": "input", "block_id": block_id, "label": plain("Why"), "element": element}


def modal(*blocks: Json, **more: Any) -> Json:
    shape = {"type": "modal", "callback_id": "form", "title": plain("A form"), "submit": plain("Send")}
    return {**shape, "blocks": list(blocks) or [text_input()], **more}


# Who may call what ---------------------------------------------------------------------------------------------------


async def test_tokens_and_methods(slack: SlackServer, web_client: AsyncWebClient) -> None:
    me = await web_client.auth_test()
    assert (me["team_id"], me["user_id"], me["bot_id"]) == ("T1", slack.bot.id, "BT1")
    assert await refused(client(slack, "xoxb-wrong").auth_test()) == "invalid_auth"
    assert await refused(web_client.api_call("chat.postMesage")) == "unknown_method"
    assert await refused(web_client.apps_connections_open(app_token=slack.bot_token)) == "not_allowed_token_type"
    assert await refused(client(slack, slack.app_token).chat_postMessage(channel="C1", text="x")) == (
        "not_allowed_token_type"
    )
    async with slack.session.post(slack.api_url + "auth.test") as answer:
        assert await answer.json() == {"ok": False, "error": "not_authed"}
    async with slack.session.post(slack.api_url + "auth.test", data={"token": slack.bot_token}) as answer:
        assert (await answer.json())["ok"]
    form = {"channel": "C1", "blocks": json.dumps([section()])}
    bearer = {"Authorization": f"Bearer {slack.bot_token}"}
    async with slack.session.post(slack.api_url + "chat.postMessage", data=form, headers=bearer) as answer:
        assert (await answer.json())["ok"]
    async with slack.session.post(
        slack.api_url + "conversations.info", json={"channel": "C1"}, headers=bearer
    ) as answer:
        assert (await answer.json())["error"] == "invalid_arguments"  # a reading method sees no JSON


@pytest.mark.parametrize(
    ("scope", "call"),
    [
        ("chat:write", lambda c: c.chat_postMessage(channel="C1", text="x")),
        ("users:read", lambda c: c.users_info(user="U1")),
        ("usergroups:read", lambda c: c.usergroups_users_list(usergroup="S1")),
        ("channels:history", lambda c: c.conversations_history(channel="C1")),
        ("channels:read", lambda c: c.conversations_info(channel="C1")),
        ("files:write", lambda c: c.files_getUploadURLExternal(filename="a", length=1)),
        ("reactions:write", lambda c: c.reactions_add(channel="C1", name="ok", timestamp="1")),
        ("im:write", lambda c: c.conversations_open(users="U1")),
        ("assistant:write", lambda c: c.assistant_threads_setTitle(channel_id="C1", thread_ts="1", title="t")),
    ],
)
async def test_scopes(slack: SlackServer, scope: str, call: Callable[[AsyncWebClient], Awaitable[Any]]) -> None:
    slack.home_team.scopes.remove(scope)
    with pytest.raises(SlackApiError) as caught:
        await call(client(slack))
    assert (caught.value.response["error"], caught.value.response["needed"]) == ("missing_scope", scope)


async def test_two_workspaces(slack: SlackServer) -> None:
    other = slack.add_workspace("T2")
    slack.add_user("U9", team="T2")
    slack.add_channel("C9", team="T2")
    there = client(slack, other.token)
    assert (await there.auth_test())["team_id"] == "T2"
    assert await refused(there.chat_postMessage(channel="C1", text="x")) == "channel_not_found"
    said = await slack.user("U9", "T2").mention("C9", "hello")
    assert {d.payload["team_id"] for d in slack.deliveries} == {"T2"}
    assert (await there.conversations_history(channel="C9"))["messages"][0]["ts"] == said.ts


# Messages ------------------------------------------------------------------------------------------------------------


async def test_where_a_message_may_go(slack: SlackServer, web_client: AsyncWebClient) -> None:
    slack.add_channel("C3", archived=True)
    slack.add_channel("G1", private=True, members=["U1"])
    post = web_client.chat_postMessage
    assert await refused(post(channel="C404", text="x")) == "channel_not_found"
    assert await refused(post(channel="C2", text="x")) == "not_in_channel"
    assert await refused(post(channel="G1", text="x")) == "channel_not_found"
    assert await refused(post(channel="C3", text="x")) == "is_archived"
    assert await refused(post(channel="C1", text="")) == "no_text"
    assert await refused(post(channel="C1", text="x" * 40_001)) == "msg_too_long"
    assert await refused(post(channel="C1", text="x", thread_ts="yesterday")) == "invalid_thread_ts"
    assert await refused(post(channel="C1", text="x", thread_ts="1700000000.000001")) == "thread_not_found"
    assert await refused(post(channel="C1", text="x", metadata={"event_type": "a"})) == "invalid_metadata_format"
    assert await refused(post(channel="C1", text="x", markdown_text="y")) == "markdown_text_conflict"
    root = await post(channel="#training", text="x")
    reply = await post(channel="C1", text="y", thread_ts=root["ts"])
    assert await refused(post(channel="C1", text="z", thread_ts=reply["ts"])) == "cannot_reply_to_message"
    assert (await post(channel="U1", text="private"))["channel"].startswith("D")


async def test_a_message_keeps_its_metadata_and_its_past(slack: SlackServer, web_client: AsyncWebClient) -> None:
    note = {"event_type": "card", "event_payload": {"id": "p1"}}
    sent = await web_client.chat_postMessage(channel="C1", text="one", blocks=[section()], metadata=note)
    edit = web_client.chat_update
    await edit(channel="C1", ts=sent["ts"], text="two")
    (seen,) = (await web_client.conversations_history(channel="C1"))["messages"]
    assert (seen["text"], "metadata" in seen, "edited" in seen) == ("two", False, True)
    assert seen["blocks"][0]["text"]["text"] == "hello"  # blocks not sent are blocks kept
    (seen,) = (await web_client.conversations_history(channel="C1", include_all_metadata=True))["messages"]
    assert seen["metadata"] == note
    assert [version["text"] for version in slack.messages("C1")[0].versions] == ["one"]
    other = await slack.user("U1").say("C1", "mine")
    assert await refused(edit(channel="C1", ts=other.ts, text="x")) == "cant_update_message"
    assert await refused(edit(channel="C1", ts="1700000000.000001", text="x")) == "message_not_found"
    assert await refused(web_client.chat_delete(channel="C1", ts=other.ts)) == "cant_delete_message"
    link = (await web_client.chat_getPermalink(channel="C1", message_ts=sent["ts"]))["permalink"]
    assert sent["ts"].replace(".", "") in link
    await web_client.chat_delete(channel="C1", ts=sent["ts"])
    assert await refused(edit(channel="C1", ts=sent["ts"], text="x")) == "message_not_found"
    assert await refused(web_client.conversations_replies(channel="C1", ts=sent["ts"])) == "thread_not_found"


async def test_history_and_replies_page(slack: SlackServer, web_client: AsyncWebClient) -> None:
    root = await slack.user("U1").say("C1", "root")
    for number in range(5):
        await slack.user("U2").reply("C1", root.ts, f"reply {number}")
    await slack.user("U3").say("C1", "later")
    top = (await web_client.conversations_history(channel="C1"))["messages"]
    assert [m["text"] for m in top] == ["later", "root"]
    assert top[1]["reply_count"] == 5
    texts = []
    async for page in await web_client.conversations_replies(channel="C1", ts=root.ts, limit=2):
        texts += [m["text"] for m in page["messages"]]
    assert texts == ["root", *(f"reply {n}" for n in range(5))]
    assert await refused(web_client.conversations_history(channel="C2")) == "not_in_channel"


async def test_private_notes_and_reactions(slack: SlackServer, web_client: AsyncWebClient) -> None:
    slack.add_channel("C4", members=["U1", slack.bot.id])
    note = web_client.chat_postEphemeral
    assert await refused(note(channel="C4", user="U2", text="x")) == "user_not_in_channel"
    sent = await note(channel="C4", user="U1", text="just you", blocks=[actions(button())])
    assert (await slack.ephemeral("U1", containing="just")).ts == sent["message_ts"]
    assert slack.messages("C4") == []
    assert await refused(web_client.chat_update(channel="C4", ts=sent["message_ts"], text="x")) == "message_not_found"
    said = await slack.user("U1").say("C1", "well done")
    await web_client.reactions_add(channel="C1", name="tada", timestamp=said.ts)
    again = web_client.reactions_add(channel="C1", name="tada", timestamp=said.ts)
    assert await refused(again) == "already_reacted"


async def test_people_and_groups(slack: SlackServer, web_client: AsyncWebClient) -> None:
    slack.add_group("S1", ["U1", "U2"])
    assert (await web_client.usergroups_users_list(usergroup="S1"))["users"] == ["U1", "U2"]
    assert await refused(web_client.usergroups_users_list(usergroup="S404")) == "no_such_subteam"
    assert await refused(web_client.users_info(user="U404")) == "user_not_found"
    slack.home_team.scopes.remove("users:read.email")
    assert "email" not in (await web_client.users_info(user="U1"))["user"]["profile"]
    assert len((await web_client.users_list())["members"]) == 4
    assert (await web_client.conversations_members(channel="C2"))["members"] == ["U1", "U2", "U3"]
    assert (await web_client.conversations_info(channel="C2"))["channel"]["is_member"] is False
    direct = (await web_client.conversations_open(users="U1"))["channel"]["id"]
    assert direct == slack.home_team.im("U1").id
    assert (await web_client.bots_info(bot="BT1"))["bot"]["user_id"] == slack.bot.id
    assert (await web_client.team_info())["team"]["id"] == "T1"


# Block Kit -----------------------------------------------------------------------------------------------------------


def chart(points: int = 3, series: int = 1, label: str = "p", **more: Any) -> Json:
    names = [f"{label}{n}" for n in range(points)]
    data = [{"label": name, "value": n} for n, name in enumerate(names)]
    lines = [{"name": f"s{n}", "data": data} for n in range(series)]
    return {
        "type": "data_visualization",
        "title": "loss",
        "chart": {"type": "line", "series": lines, "axis_config": {"categories": names}, **more},
    }


def rows(count: int, width: int = 2, kind: str = "table") -> Json:
    body = {"type": kind, "rows": [[{"type": "raw_text", "text": "x"}] * width] * count}
    return body | ({"caption": "spend"} if kind == "data_table" else {})


FITTING: list[list[Json]] = [
    [section("x" * 3000)] + [{"type": "divider"}] * 49,
    [{"type": "header", "text": plain("x" * 150)}],
    [actions(*(button(f"a{n}", value="x" * 2000) for n in range(25)))],
    [actions(button("same")), actions(button("same"))],  # unique within a block is enough
    [{"type": "markdown", "text": "x" * 12_000}],
    [chart(20, 6), chart()],
    [{"type": "data_visualization", "title": "t", "chart": {"type": "pie", "segments": [{"label": "a", "value": 1}]}}],
    [rows(100, 20)],
    [rows(101, kind="data_table"), rows(2, kind="data_table")],
    [section(accessory=button()), {"type": "context", "elements": [plain("x")] * 10}],
]
BAD: dict[str, list[Json]] = {
    "51 blocks": [{"type": "divider"}] * 51,
    "section 3001": [section("x" * 3001)],
    "empty text": [section("")],
    "field 2001": [{"type": "section", "fields": [plain("x" * 2001)]}],
    "11 fields": [{"type": "section", "fields": [plain("x")] * 11}],
    "header 151": [{"type": "header", "text": plain("x" * 151)}],
    "header in mrkdwn": [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}],
    "button 76": [actions(button(text="x" * 76))],
    "value 2001": [actions(button(value="x" * 2001))],
    "action_id 256": [actions(button("x" * 256))],
    "block_id 256": [section(block_id="x" * 256)],
    "block_id twice": [section(block_id="b"), section(block_id="b")],
    "action_id twice": [actions(button("a"), button("a"))],
    "26 actions": [actions(*(button(f"a{n}") for n in range(26)))],
    "11 in context": [{"type": "context", "elements": [plain("x")] * 11}],
    "no actions": [actions()],
    "markdown 12001 together": [{"type": "markdown", "text": "x" * 6001}, {"type": "markdown", "text": "x" * 6000}],
    "style": [actions(button(style="green"))],
    "unknown field": [section(color="red")],
    "unknown block": [{"type": "fancy"}],
    "alert in a message": [{"type": "alert", "text": plain("x")}],
    "101 rows": [rows(101)],
    "21 columns": [rows(2, 21)],
    "two tables": [rows(2), rows(2)],
    "102 data rows": [rows(102, kind="data_table")],
    "data table without caption": [{**rows(3, kind="data_table"), "caption": None}],
    "ragged data table": [{**rows(3, kind="data_table"), "rows": [*rows(2)["rows"], rows(1, 3)["rows"][0]]}],
    "three charts": [chart(), chart(), chart()],
    "21 points": [chart(21)],
    "7 series": [chart(3, 7)],
    "long label": [chart(3, 1, "x" * 20)],
    "labels not the categories": [chart(3, 1, axis_config={"categories": ["a", "b", "c"]})],
    "scatter": [chart(type="scatter")],
    "101 options": [
        actions(
            {
                "type": "static_select",
                "action_id": "s",
                "options": [{"text": plain("x"), "value": str(n)} for n in range(101)],
            }
        )
    ],
    "image without alt": [{"type": "image", "image_url": "https://x/y.png"}],
}


@pytest.mark.parametrize("blocks", FITTING, ids=range(len(FITTING)))
async def test_blocks_that_just_fit(web_client: AsyncWebClient, blocks: list[Json]) -> None:
    await web_client.chat_postMessage(channel="C1", text="x", blocks=blocks)


@pytest.mark.parametrize("name", BAD)
async def test_blocks_that_slack_refuses(web_client: AsyncWebClient, name: str) -> None:
    with pytest.raises(SlackApiError) as caught:
        await web_client.chat_postMessage(channel="C1", text="x", blocks=BAD[name])
    assert caught.value.response["error"] == "invalid_blocks"
    assert "json-pointer" in caught.value.response["response_metadata"]["messages"][0]


def test_nonsense_is_judged_without_falling_over() -> None:
    nothings: list[Any] = [None, 3, "x", [None], [[]], [{}], [{"type": []}], [{"type": "section", "text": []}]]
    for nonsense in nothings:
        assert message_complaints(nonsense)
        assert view_complaints({"type": "modal", "blocks": nonsense})
    for kind in ("actions", "context", "table", "data_table", "input", "header", "image", "carousel", "container"):
        for inside in (None, 3, [None], [3], [[None]], {"type": "static_select", "option_groups": [3]}):
            body = dict.fromkeys(("elements", "rows", "element", "text", "child_blocks"), inside)
            assert message_complaints([{"type": kind, **body}])


# Views ---------------------------------------------------------------------------------------------------------------


async def trigger(slack: SlackServer, user: str = "U1", *, view: str | None = None) -> str:
    """A genuine trigger id, as the app would have got it with a click."""
    return slack.user(user).trigger(view)


async def test_a_trigger_opens_one_view_once_and_soon(slack: SlackServer, web_client: AsyncWebClient) -> None:
    opened = web_client.views_open
    assert await refused(opened(trigger_id="nonsense", view=modal())) == "invalid_trigger_id"
    used = await trigger(slack)
    await opened(trigger_id=used, view=modal())
    assert await refused(opened(trigger_id=used, view=modal())) == "exchanged_trigger_id"
    slack.trigger_life_s = 0.1
    late = await trigger(slack)
    await asyncio.sleep(0.15)
    assert await refused(opened(trigger_id=late, view=modal())) == "expired_trigger_id"


@pytest.mark.parametrize(
    "bad",
    [
        modal(private_metadata="x" * 3001),
        modal(title=plain("x" * 25)),
        modal(submit=None),
        modal(callback_id="x" * 256),
        modal(*[section()] * 101),
        modal({"type": "markdown", "text": "not here"}),
        modal(text_input(max_length=3001)),
        modal(text_input(initial_value="long", max_length=3)),
        modal(surprise=1),
    ],
)
async def test_views_that_slack_refuses(slack: SlackServer, web_client: AsyncWebClient, bad: Json) -> None:
    assert await refused(web_client.views_open(trigger_id=await trigger(slack), view=bad)) == "invalid_arguments"


async def test_a_view_that_just_fits(slack: SlackServer, web_client: AsyncWebClient) -> None:
    fits = modal(*[section()] * 100, private_metadata="x" * 3000, title=plain("x" * 24), submit=None)
    del fits["submit"]
    await web_client.views_open(trigger_id=await trigger(slack), view=fits)


async def test_hashes_stacks_and_external_ids(slack: SlackServer, web_client: AsyncWebClient) -> None:
    first = (await web_client.views_open(trigger_id=await trigger(slack), view=modal(external_id="e")))["view"]
    second = (await web_client.views_update(external_id="e", view=modal(section("new"))))["view"]
    again = web_client.views_update(view_id=first["id"], hash=first["hash"], view=modal())
    assert await refused(again) == "hash_conflict"
    await web_client.views_update(view_id=first["id"], hash=second["hash"], view=modal(external_id="e"))
    twin = web_client.views_open(trigger_id=await trigger(slack, "U2"), view=modal(external_id="e"))
    assert await refused(twin) == "duplicate_external_id"
    for _ in range(2):
        inside = await trigger(slack, view=first["id"])
        pushed = (await web_client.views_push(trigger_id=inside, view=modal()))["view"]
        assert pushed["root_view_id"] == first["id"]
    full = web_client.views_push(trigger_id=await trigger(slack, view=first["id"]), view=modal())
    assert await refused(full) == "push_limit_reached"
    assert await refused(web_client.views_update(view_id="V404", view=modal())) == "not_found"


async def test_home_tab(slack: SlackServer, web_client: AsyncWebClient) -> None:
    home = {"type": "home", "blocks": [section("my jobs")]}
    first = (await web_client.views_publish(user_id="U1", view=home))["view"]
    await web_client.views_publish(user_id="U1", view=home, hash=first["hash"])
    assert await refused(web_client.views_publish(user_id="U1", view=home, hash=first["hash"])) == "hash_conflict"
    assert await refused(web_client.views_publish(user_id="U404", view=home)) == "invalid_arguments"
    assert await refused(web_client.views_publish(user_id="U1", view=modal())) == "invalid_arguments"
    assert (await slack.home("U1", containing="jobs")).words


# Streams, files, the assistant ---------------------------------------------------------------------------------------


async def test_streams(slack: SlackServer, web_client: AsyncWebClient) -> None:
    asked = await slack.user("U1").mention("C1", "why?")
    where: Json = {"channel": "C1", "thread_ts": asked.ts}
    assert await refused(web_client.chat_startStream(**where)) == "missing_recipient_team_id"
    to: Json = {"recipient_team_id": "T1", "recipient_user_id": "U1"}
    stream = await web_client.chat_stream(**where, **to, buffer_size=1)
    await stream.append(markdown_text="because ")
    assert await refused(web_client.chat_update(channel="C1", ts=stream.ts or "", text="x")) == (
        "streaming_state_conflict"
    )
    await stream.append(markdown_text="of the loss")
    await stream.stop(blocks=[actions(button())])
    said = await slack.message("C1", containing="because of the loss", thread_ts=asked.ts)
    assert list(said.buttons) == ["approve"]
    dead = web_client.chat_appendStream(channel="C1", ts=said.ts, markdown_text="x")
    assert await refused(dead) == "message_not_in_streaming_state"
    started = await web_client.chat_startStream(**where, **to, markdown_text="x" * 11_990)
    more = web_client.chat_appendStream(channel="C1", ts=started["ts"], markdown_text="x" * 11)
    assert await refused(more) == "msg_too_long"
    mixed = web_client.chat_appendStream(
        channel="C1", ts=started["ts"], chunks=[{"type": "markdown_text", "text": "x"}]
    )
    assert await refused(mixed) == "streaming_mode_mismatch"
    slack.stream_life_s = 0.05
    short = await web_client.chat_startStream(**where, **to, markdown_text="x")
    await asyncio.sleep(0.1)
    late = web_client.chat_stopStream(channel="C1", ts=short["ts"])
    assert await refused(late) == "message_not_in_streaming_state"


async def test_stop_ends_the_streams_and_tells_the_app(slack: SlackServer, web_client: AsyncWebClient) -> None:
    asked = await slack.user("U1").dm("why?")
    direct = asked.channel
    with pytest.raises(AssertionError, match="only while"):
        await slack.user("U1").stop(asked)
    await web_client.agents_sessions_setStatus(channel_id=direct, thread_ts=asked.ts, status="processing")
    started = await web_client.chat_startStream(channel=direct, thread_ts=asked.ts, markdown_text="well")
    told = await slack.user("U1").stop(asked)
    assert told is not None
    assert told.payload["event"]["streaming_message_ts"] == [started["ts"]]
    late = web_client.chat_appendStream(channel=direct, ts=started["ts"], markdown_text="x")
    assert await refused(late) == "message_not_in_streaming_state"
    wrong = web_client.agents_sessions_setStatus(channel_id=direct, thread_ts=asked.ts, status="done")
    assert await refused(wrong) == "invalid_arguments"
    await web_client.assistant_threads_setStatus(channel_id=direct, thread_ts=asked.ts, status="thinking…")
    assert slack.home_team.statuses
    await web_client.chat_postMessage(channel=direct, thread_ts=asked.ts, text="done")
    assert not slack.home_team.statuses  # an answer clears it
    prompts = [{"title": "t", "message": "m"}]
    await web_client.assistant_threads_setSuggestedPrompts(channel_id=direct, prompts=prompts)
    many = web_client.assistant_threads_setSuggestedPrompts(channel_id=direct, prompts=prompts * 5)
    assert await refused(many) == "invalid_arguments"


async def test_files(slack: SlackServer, web_client: AsyncWebClient) -> None:
    root = await web_client.chat_postMessage(channel="C1", text="card")
    curve = b"\x89PNG not really"
    await web_client.files_upload_v2(
        channel="C1", thread_ts=root["ts"], filename="curve.png", content=curve, initial_comment="the curve"
    )
    shared = await slack.message("C1", containing="the curve", thread_ts=root["ts"])
    assert slack.home_team.files[shared.files[0]["id"]].content == curve
    step = await web_client.files_getUploadURLExternal(filename="a.png", length=5)
    unsent = web_client.files_completeUploadExternal(files=[{"id": step["file_id"]}], channel_id="C1")
    assert await refused(unsent) == "file_not_found"
    async with slack.session.post(step["upload_url"], data=b"1234") as answer:
        assert answer.status == 400
    async with slack.session.post(step["upload_url"], data=b"12345") as answer:
        assert answer.status == 200
    elsewhere = web_client.files_completeUploadExternal(files=[{"id": step["file_id"]}], channel_id="C2")
    assert await refused(elsewhere) == "not_in_channel"


# Rates and failures --------------------------------------------------------------------------------------------------


async def test_posting_faster_than_one_a_second_is_refused_per_channel() -> None:
    async with SlackServer() as slack:
        slack.add_channel("C5")
        caller = client(slack)
        answers = []
        for _ in range(6):
            try:
                answers.append((await caller.chat_postMessage(channel="C1", text="x")).status_code)
            except SlackApiError as error:
                answers.append(error.response.status_code)
                assert error.response["error"] == "ratelimited"
                assert int(error.response.headers["Retry-After"]) >= 1
        assert answers == [200] * 4 + [429] * 2
        await caller.chat_postMessage(channel="C5", text="another channel, another bucket")


async def test_tiers_and_the_sdk_waits_as_told() -> None:
    async with SlackServer() as slack:
        caller = client(slack)
        sent = await caller.chat_postMessage(channel="C1", text="x")
        with pytest.raises(SlackApiError, match="ratelimited"):
            for _ in range(200):
                await caller.chat_update(channel="C1", ts=sent["ts"], text="y")
        assert len(slack.calls_to("chat.update")) > 50
        with pytest.raises(SlackApiError, match="ratelimited"):
            for _ in range(400):  # a slow machine earns some more meanwhile
                await caller.users_info(user="U1")
    async with SlackServer(rates=60) as slack:
        caller = client(slack)
        caller.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=5))
        for _ in range(9):
            await caller.chat_postMessage(channel="C1", text="x")
        assert len(slack.messages("C1")) == 9


async def test_calls_can_be_made_to_fail(slack: SlackServer, web_client: AsyncWebClient) -> None:
    post = web_client.chat_postMessage
    slack.fail("chat.postMessage", error="internal_error")
    assert await refused(post(channel="C1", text="1")) == "internal_error"
    slack.fail("chat.postMessage", status=500, after=True)
    with pytest.raises(SlackApiError):
        await post(channel="C1", text="2")
    slack.fail("chat.postMessage", status=429, retry_after=7)
    assert await refused(post(channel="C1", text="3")) == "ratelimited"
    slack.fail("chat.postMessage", drop=True, after=True)
    web_client.retry_handlers.clear()
    with pytest.raises(aiohttp.ClientError):
        await post(channel="C1", text="4")
    slack.fail("chat.postMessage", hang_s=0.2)
    await post(channel="C1", text="5")
    assert [m.text for m in slack.messages("C1")] == ["2", "4", "5"]
    assert slack.calls_to("chat.postMessage")[-1].seconds >= 0.2


# Socket Mode ---------------------------------------------------------------------------------------------------------


def bolt(slack: SlackServer) -> AsyncApp:
    quiet = logging.getLogger("fake-slack-test")
    quiet.setLevel(logging.CRITICAL)
    return AsyncApp(client=client(slack), signing_secret=slack.signing_secret, logger=quiet)


@asynccontextmanager
async def connected(slack: SlackServer, app: AsyncApp, count: int = 1) -> AsyncIterator[list[AsyncSocketModeHandler]]:
    handlers = [AsyncSocketModeHandler(app, slack.app_token, ping_interval=0.3) for _ in range(count)]
    try:
        for handler in handlers:
            await handler.connect_async()  # type: ignore[no-untyped-call]
        await slack.until(lambda: len(slack.socket.connections) == count, what="connections")
        yield handlers
    finally:
        for handler in handlers:
            await handler.close_async()  # type: ignore[no-untyped-call]


async def open_socket(slack: SlackServer) -> aiohttp.ClientWebSocketResponse:
    url = (await client(slack).apps_connections_open(app_token=slack.app_token))["url"]
    ws = await slack.session.ws_connect(url)
    assert (await ws.receive_json())["type"] == "hello"
    return ws


async def test_a_ticket_opens_one_connection(slack: SlackServer) -> None:
    url = (await client(slack).apps_connections_open(app_token=slack.app_token))["url"]
    async with slack.session.ws_connect(url) as ws:
        assert (await ws.receive_json())["num_connections"] == 1
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await slack.session.ws_connect(url)
    slack.socket.refuse()
    url = (await client(slack).apps_connections_open(app_token=slack.app_token))["url"]
    for status in (503, 403):  # refused once, and spent all the same
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await slack.session.ws_connect(url)
        assert caught.value.status == status
    sockets = [await open_socket(slack) for _ in range(10)]
    url = (await client(slack).apps_connections_open(app_token=slack.app_token))["url"]
    async with slack.session.ws_connect(url) as eleventh:
        assert await eleventh.receive_json() == {"type": "disconnect", "reason": "too_many_websockets"}
    for ws in sockets:
        await ws.close()


async def test_each_payload_goes_to_one_connection(slack: SlackServer) -> None:
    app = bolt(slack)
    seen: list[str] = []

    @app.event("message")
    async def on_message(body: Json) -> None:
        seen.append(body["event_id"])

    async with connected(slack, app, 2):
        for number in range(40):
            await slack.user("U1").say("C1", f"message {number}")
        for delivery in slack.deliveries:
            await delivery.done()
        assert len(seen) == len(set(seen)) == 40
        shares = [len(c.envelopes) for c in slack.socket.connections]
        assert sum(shares) == 40
        assert min(shares) > 3
        assert len(slack.acks) == 40
        assert max(slack.acks.values()) < 1


async def test_a_mention_is_two_events_with_one_id(slack: SlackServer) -> None:
    said = await slack.user("U1").mention("C1", "lr < 1e-3 & go")
    assert said.text == f"<@{slack.bot.id}> lr &lt; 1e-3 &amp; go"
    assert {d.payload["event"]["type"] for d in slack.deliveries} == {"app_mention", "message"}
    assert len({d.event_id for d in slack.deliveries}) == 1
    slack.shared_event_id = False
    await slack.user("U1").mention("C1", "again")
    assert len({d.event_id for d in slack.deliveries}) == 3
    await slack.user("U1").dm("just us")
    assert slack.deliveries[-1].payload["event"]["channel_type"] == "im"
    await slack.user("U1").say("C2", "the app is not here")
    assert len(slack.deliveries) == 5


async def test_unacknowledged_events_come_again_and_clicks_do_not() -> None:
    async with SlackServer(rates=None, ack_within_s=0.3, retry_after_s=(0.0, 0.1, 0.1)) as slack:
        ws = await open_socket(slack)
        await slack.user("U1").say("C1", "hello")
        first = await ws.receive_json()
        again = await ws.receive_json()
        assert (first["retry_attempt"], again["retry_attempt"], again["retry_reason"]) == (0, 1, "timeout")
        assert first["envelope_id"] != again["envelope_id"]
        assert first["payload"]["event_id"] == again["payload"]["event_id"]
        await ws.send_json({"envelope_id": first["envelope_id"]})  # too late
        third = await ws.receive_json()
        assert third["retry_attempt"] == 2
        await ws.send_json({"envelope_id": third["envelope_id"]})
        await slack.deliveries[0].done()
        assert len(slack.socket.late_acks) == 1
        await ws.send_json({"envelope_id": "never sent"})
        await slack.until(lambda: slack.socket.stray_acks, what="the stray ack")
        sent = await client(slack).chat_postMessage(channel="C1", text="card", blocks=[actions(button())])
        click = await slack.user("U1").click(sent["ts"], "approve")
        assert (click.acknowledged, click.failures, len(click.envelopes)) == (False, ["timeout"], 1)
        await ws.close()


async def test_an_event_waits_for_a_connection_or_is_lost() -> None:
    async with SlackServer(rates=None, ack_within_s=0.2, retry_after_s=(0.1, 0.1, 5.0)) as slack:
        await slack.user("U1").say("C1", "anybody?")
        await asyncio.sleep(0.35)
        ws = await open_socket(slack)
        envelope = await ws.receive_json()
        assert envelope["retry_reason"] == "connection_failed"
        await ws.send_json({"envelope_id": envelope["envelope_id"]})
        await slack.deliveries[0].done()
        await ws.close()
        slack.retry_after_s = (0.0,)
        await slack.user("U1").say("C1", "nobody?")
        with pytest.raises(AssertionError, match="given up after 2"):
            await slack.deliveries[1].done()


async def test_a_client_comes_back_from_disconnects_and_aborts() -> None:
    async with SlackServer(rates=None, ack_within_s=0.5, retry_after_s=(0.0, 0.5, 1.0, 2.0, 4.0)) as slack:
        app = bolt(slack)
        seen: set[str] = set()

        @app.event("message")
        async def on_message(body: Json) -> None:
            seen.add(body["event"]["text"])

        async with connected(slack, app):
            for number, fault in enumerate(("refresh_requested", "warning", "abort", "mute")):
                before = slack.socket.connections[0]
                if fault == "abort":
                    slack.socket.abort()
                elif fault == "mute":
                    slack.socket.mute()
                else:
                    await slack.socket.disconnect(fault, grace_s=0.2)
                await slack.user("U1").say("C1", f"after {fault}")
                await slack.until(lambda n=number: len(seen) > n, 15, fault)  # type: ignore[misc]
                alive = [c for c in slack.socket.connections if c.usable and not c.silent]
                assert alive
                assert before not in alive


async def test_the_sdk_never_forgets_a_burnt_url(slack: SlackServer) -> None:
    """The known fault that the bot's watchdog cures: the client asks the spent URL again and again."""
    async with connected(slack, bolt(slack)) as (handler,):
        slack.socket.refuse()
        slack.socket.abort()
        await slack.until(lambda: slack.socket.refused >= 3, 10, "repeated refusals")
        assert list(slack.socket.tickets.values()) == ["spent", "refused"]
        handler.client.wss_uri = None
        await slack.until(lambda: slack.socket.connections, 10, "a fresh connection")


async def test_a_simple_slack_broadcasts_and_knows_little() -> None:
    async with SlackServer(simple=True, rates=None) as slack:
        sockets = [await open_socket(slack) for _ in range(3)]
        await slack.user("U1").say("C1", "hello")
        envelopes = [await ws.receive_json() for ws in sockets]
        assert len({e["envelope_id"] for e in envelopes}) == 1
        await sockets[2].send_json({"envelope_id": envelopes[0]["envelope_id"]})
        await slack.deliveries[0].done()
        caller = client(slack)
        note = {"event_type": "card", "event_payload": {"id": "p1"}}
        sent = await caller.chat_postMessage(channel="C1", text="card", metadata=note)
        seen = await caller.conversations_history(channel="C1", include_all_metadata=True)
        assert "metadata" not in seen["messages"][0]
        for call in (
            caller.chat_startStream(channel="C1", thread_ts=sent["ts"]),
            caller.files_getUploadURLExternal(filename="a", length=1),
            caller.assistant_threads_setStatus(channel_id="C1", thread_ts=sent["ts"], status="x"),
            caller.agents_sessions_setStatus(channel_id="C1", thread_ts=sent["ts"], status="active"),
        ):
            assert await refused(call) == "unknown_method"
        for ws in sockets:
            await ws.close()


# People --------------------------------------------------------------------------------------------------------------


async def test_a_person_clicks_fills_in_and_is_answered(slack: SlackServer) -> None:
    app = bolt(slack)

    @app.action("reject")
    async def on_reject(ack: Any, body: Json, client: AsyncWebClient, respond: Any) -> None:
        await ack()
        assert body["message"]["ts"] == body["container"]["message_ts"]
        await client.views_open(trigger_id=body["trigger_id"], view=modal(private_metadata=body["actions"][0]["value"]))
        await respond("one moment")

    @app.view("form")
    async def on_form(ack: Any, body: Json, client: AsyncWebClient) -> None:
        reason = body["view"]["state"]["values"]["why"]["why_a"]["value"]
        if len(reason) < 5:
            await ack(response_action="errors", errors={"why": "say more"})
            return
        await ack()
        card = slack.messages("C1")[0]
        await client.chat_update(channel="C1", ts=card.ts, text=f"rejected: {reason}", blocks=[section(reason)])

    @app.command("/signalbox")
    async def on_command(ack: Any, command: Json) -> None:
        await ack(f"help for {command['text']}")

    @app.event("app_home_opened")
    async def on_home(event: Json, client: AsyncWebClient) -> None:
        await client.views_publish(user_id=event["user"], view={"type": "home", "blocks": [section("my jobs")]})

    @app.action("thumbs")
    async def on_feedback(ack: Any, action: Json, respond: Any) -> None:
        await ack()
        await respond(f"you said {action['value']}")

    async with connected(slack, app, 2):
        person = slack.user("U2")
        thumbs: Json = {"type": "feedback_buttons", "action_id": "thumbs"}
        thumbs |= {f"{k}_button": {"text": plain(k), "value": k} for k in ("positive", "negative")}
        row = {"type": "context_actions", "elements": [thumbs]}
        blocks = [actions(button("reject", "Reject", value="p1"), block_id="row"), row]
        sent = await client(slack).chat_postMessage(channel="C1", text="card", blocks=blocks)
        await person.click(sent["ts"], "reject")
        form = await slack.view("U2")
        assert form.body["private_metadata"] == "p1"
        assert await slack.ephemeral("U2", containing="one moment")
        with pytest.raises(AssertionError, match="must be filled in"):
            await person.submit_view(form)
        await person.submit_view(form, {"why": "no"})
        assert (form.errors, form.open) == ({"why": "say more"}, True)
        await person.feedback(sent["ts"], positive=False)
        assert await slack.ephemeral("U2", containing="you said negative")
        await person.submit_view(form.id, {"why": "too dear"})
        assert not form.open
        card = await slack.message("C1", containing="rejected: too dear")
        with pytest.raises(AssertionError, match="no 'reject' here"):
            await person.click(card, "reject")
        with pytest.raises(AssertionError, match="U3 is not in C1"):
            slack.home_team.channels["C1"].members.remove("U3")
            await slack.user("U3").say("C1", "hi")
        await person.slash("/signalbox", "jobs", channel="C1")
        assert await slack.ephemeral("U2", containing="help for jobs")
        await person.open_home()
        assert await slack.home("U2", containing="my jobs")
        await person.delete(card)
        assert slack.deliveries[-1].payload["event"]["subtype"] == "message_deleted"
        assert max(slack.acks.values()) < 1


async def test_answers_to_a_submission_move_the_views(slack: SlackServer) -> None:
    app = bolt(slack)
    answers: list[Json] = [
        {"response_action": "update", "view": modal(text_input("second"), notify_on_close=True)},
        {"response_action": "push", "view": modal(text_input("third"))},
        {"response_action": "clear"},
    ]
    closed: list[bool] = []

    @app.view_submission("form")
    async def on_form(ack: Any) -> None:
        await ack(**answers.pop(0))

    @app.view_closed("form")
    async def on_closed(ack: Any, body: Json) -> None:
        await ack()
        closed.append(body["is_cleared"])

    async with connected(slack, app):
        person = slack.user("U1")
        opened = await client(slack).views_open(trigger_id=person.trigger(), view=modal())
        form = slack.home_team.views[opened["view"]["id"]]
        await person.submit_view(form, {"why": "first"})
        assert form.body["blocks"][0]["block_id"] == "second"
        await person.submit_view(form, {"second": "x"})
        above = await slack.view("U1")
        assert (above.body["blocks"][0]["block_id"], above.previous) == ("third", form.id)
        with pytest.raises(AssertionError, match="another view lies above"):
            await person.submit_view(form, {"second": "x"})
        await person.submit_view(above, {"third": "x"})
        assert not form.open
        again = modal(notify_on_close=True)
        opened = await client(slack).views_open(trigger_id=person.trigger(), view=again)
        await person.close_view(opened["view"]["id"])
        assert closed == [False]


async def test_response_urls_are_spent_after_five_answers(slack: SlackServer) -> None:
    ws = await open_socket(slack)
    sent = await client(slack).chat_postMessage(channel="C1", text="card", blocks=[actions(button(value="p1"))])
    await ws.receive_json()  # the message itself
    click = await slack.user("U1").click(sent["ts"], "approve", tamper={"value": "p2"}, wait=False)
    payload = (await ws.receive_json())["payload"]
    assert payload["actions"][0]["value"] == "p2"
    assert click.payload == payload
    for status in [200] * 5 + [404]:
        async with slack.session.post(payload["response_url"], json={"text": "hello"}) as answer:
            assert answer.status == status
    await ws.close()


# HTTP ----------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(app: AsyncApp) -> AsyncIterator[str]:
    """Bolt behind its own HTTP server on a spare port."""
    server = web.AppRunner(app.web_app(path="/slack/events"))
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{server.addresses[0][1]}/slack/events"
    finally:
        await server.cleanup()


async def test_http_deliveries_are_signed_and_forgeries_are_not_taken(slack: SlackServer) -> None:
    app = bolt(slack)
    seen: list[str] = []

    @app.event("app_mention")
    @app.event("message")
    async def on_event(event: Json) -> None:
        seen.append(event["type"])

    @app.action("approve")
    async def on_approve(ack: Any, action: Json) -> None:
        seen.append(action["value"])
        await ack()

    @app.command("/signalbox")
    async def on_command(ack: Any) -> None:
        await ack("at your service")

    async with listening(app) as url:
        post = slack.deliver_over_http(url)
        assert await post.verify_url()
        await slack.user("U1").mention("C1", "train")
        for delivery in slack.deliveries:
            await delivery.done()
        assert set(seen) == {"app_mention", "message"}
        sent = await client(slack).chat_postMessage(channel="C1", text="card", blocks=[actions(button(value="p1"))])
        click = await slack.user("U2").click(sent["ts"], "approve")
        assert click.acknowledged
        assert seen[-1] == "p1"
        await slack.user("U2").slash("/signalbox", "help")
        assert await slack.ephemeral("U2", containing="at your service")
        forgeries: list[Json] = [{"signed": False}, {"secret": "guessed"}, {"age_s": 301}, {"age_s": -301}]
        for how in forgeries:
            answer = await post.send("interactive", click.payload, **how)
            assert answer.status == 401
        assert seen.count("p1") == 1
        genuine = next(s for s in post.sent if b"block_actions" in s.body)
        assert (await post.replay(genuine)).status == 200  # a signature alone does not stop a replay: the app must
        assert seen.count("p1") == 2


async def test_http_events_are_retried_with_reasons() -> None:
    async with SlackServer(rates=None, ack_within_s=0.3, retry_after_s=(0.0, 0.0, 0.0)) as slack:
        got: list[tuple[str | None, str | None]] = []

        async def answer(request: web.Request) -> web.Response:
            got.append((request.headers.get("X-Slack-Retry-Num"), request.headers.get("X-Slack-Retry-Reason")))
            if len(got) == 1:
                await asyncio.sleep(0.5)
            return web.Response(status=500 if len(got) == 2 else 200)

        app = web.Application()
        app.router.add_post("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        slack.deliver_over_http(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        await slack.user("U1").say("C1", "hello")
        await slack.deliveries[0].done()
        assert got == [(None, None), ("1", "http_timeout"), ("2", "http_error")]
        await runner.cleanup()
        await slack.user("U1").say("C1", "nobody listens")
        with pytest.raises(AssertionError, match="connection_failed"):
            await slack.deliveries[1].done()


async def test_slack_can_go_away_and_come_back(slack: SlackServer) -> None:
    await client(slack).chat_postMessage(channel="C1", text="before")
    port = slack.port
    await slack.stop()
    with pytest.raises(aiohttp.ClientError):
        await client(slack).auth_test()
    await slack.start()
    assert slack.port == port
    started = time.monotonic()
    assert await slack.message("C1", containing="before")
    with pytest.raises(AssertionError, match=r"in vain(.|\n)*'before'"):
        await slack.message("C1", containing="after", timeout=0.2)
    assert time.monotonic() - started < 5
