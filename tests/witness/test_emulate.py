"""The Web API half against `emulate`: the real notifier over a real store, with the manifest's scopes and no others.

emulate has no sockets, no buttons pressed, no streams and no assistant methods, and looks at no limit of Block Kit:
what it lacks must degrade, and what it does not look at is the strict fake's business (tests/fakes/slack).
It reads arguments from the body of a POST only, where slack_sdk puts many into the URL and asks by GET, and Slack takes
both: `in_body` moves them, nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.approvals.deciding import Hand
from bot.approvals.proposing import Asked
from bot.core.policy import Policy
from bot.core.proposal import Proposal, Verdict
from bot.reconciler import Reconciler
from bot.settings import SOURCE
from bot.slack import blocks
from bot.slack.connection import web_client
from bot.slack.conversation import Conversation
from bot.slack.notifier import SlackNotifier
from bot.slack.rush import Rush
from bot.store.store import Message
from tests.witness.emulate import NotToBeHad, emulate
from tests.world import POLICY, Bot, FixedPolicy, World
from tools.progress import Progress
from tools.spec import parse_spec

BOT_TOKEN, PERSON_TOKEN = "xoxb-signalbox", "xoxp-admin"
BOT_USER, ADMIN = "U0SIGNALBOX", "U000000001"
APPROVER = "U0APPROVER"
PERSON_SCOPES = ["chat:write", "channels:read", "channels:history", "channels:manage", "users:read", "files:read"]
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360000002000001e221bc330000000049454e44ae426082"
)


def seed() -> dict[str, object]:
    manifest = yaml.safe_load((SOURCE / "infra" / "slack" / "manifest.yaml").read_text(encoding="utf-8"))
    scopes = manifest["oauth_config"]["scopes"]["bot"]
    app = {
        "app_id": "A0SIGNALBOX",
        "client_id": "1.1",
        "client_secret": "s",
        "name": "Signalbox",
        "redirect_uris": [],
        "scopes": scopes,
        "bot_id": "B0SIGNALBOX",
        "bot_user_id": BOT_USER,
        "bot_name": "signalbox",
    }
    bot = {"token": BOT_TOKEN, "type": "bot", "user": BOT_USER, "scopes": scopes, "app_id": "A0SIGNALBOX"}
    return {
        "team": {"name": "Witness", "domain": "witness"},
        "channels": [{"name": "training"}],
        "oauth_apps": [app],
        "tokens": [
            bot | {"bot_id": "B0SIGNALBOX", "bot_user_id": BOT_USER},
            {"token": PERSON_TOKEN, "type": "user", "user": ADMIN, "scopes": PERSON_SCOPES},
        ],
        "strict_scopes": True,
    }


def in_body(client: AsyncWebClient) -> AsyncWebClient:
    """The same client, with arguments in the body of a POST where slack_sdk puts them into the URL."""
    call = client.api_call

    async def api_call(method: str, *, http_verb: str = "POST", params: Any = None, **more: Any) -> Any:
        if params:
            return await call(method, data=params, **more)
        return await call(method, http_verb=http_verb, **more)

    client.api_call = api_call  # type: ignore[method-assign]
    return client


@pytest.fixture(scope="module")
def api_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with emulate(seed(), tmp_path_factory.mktemp("emulate")) as url:
            yield url
    except NotToBeHad as reason:
        pytest.skip(f"no witness: {reason}")


@dataclass
class Scene:
    """A bot whose notifier talks to emulate, and a person's message in a channel that the bot was invited to."""

    bot: Bot
    world: World
    notifier: SlackNotifier
    client: AsyncWebClient  # the bot's
    person: AsyncWebClient
    team: str
    channel: str
    thread: str

    async def propose(self) -> Proposal:
        asked = Asked(
            team=self.team,
            channel=self.channel,
            thread=self.thread,
            requester=ADMIN,
            prompt="train <digits> & <!channel>",
            event_id=f"Ev{self.thread}",
        )
        return await self.bot.proposing.propose(asked, parse_spec("digits", {"epochs": 2}))

    async def approve(self, proposal: Proposal) -> None:
        hand = Hand(team=self.team, channel=self.channel, user=APPROVER)
        await self.bot.deciding.decide(hand, proposal.number, Verdict.APPROVE)

    async def replies(self) -> list[dict[str, Any]]:
        """What stands below the person's message."""
        answer = await self.person.conversations_replies(channel=self.channel, ts=self.thread)
        messages: list[dict[str, Any]] = answer["messages"]
        assert messages[0]["ts"] == self.thread
        return messages[1:]

    async def cards(self) -> list[dict[str, Any]]:
        def is_card(message: dict[str, Any]) -> bool:
            return any(str(block.get("block_id", "")).startswith("card:") for block in message.get("blocks", []))

        return [message for message in await self.replies() if is_card(message)]


@pytest.fixture
async def scene(api_url: str, tmp_path: Path) -> AsyncIterator[Scene]:
    client, person = in_body(web_client(BOT_TOKEN, api_url)), in_body(web_client(PERSON_TOKEN, api_url))
    team = str((await client.auth_test())["team_id"])
    channels = (await person.conversations_list())["channels"]
    channel = next(one["id"] for one in channels if one["name"] == "training")
    members = (await person.conversations_members(channel=channel))["members"]
    if BOT_USER not in members:
        await person.conversations_invite(channel=channel, users=[BOT_USER])
    thread = str((await person.chat_postMessage(channel=channel, text="train digits"))["ts"])
    curve = tmp_path / "digits-1.png"
    curve.write_bytes(PNG)

    async def curve_of(name: str, progress: Progress) -> Path:
        return curve

    async def digest(channel: str, of: date) -> dict[str, Any]:
        return {"text": f"Digest of {of:%d %B}", "blocks": [blocks.section(f"*Digest* of {of:%d %B}")]}

    policy = Policy.parse(POLICY | {"approvers": [APPROVER]})
    world = World(f"sqlite:///{tmp_path / 'signalbox.db'}", policy=policy)
    async with world.bot() as bot:
        policies = FixedPolicy(policy)
        notifier = SlackNotifier(
            rush=Rush(),
            store=bot.store,
            cards=bot.cards,
            policies=policies,
            client=client,
            team=team,
            curve=curve_of,
            log_lines=world.engine.logs,
            digest=digest,
        )
        bot.reconciler = Reconciler(bot.store, world.engine, world.runs, bot.pricing, policies, notifier)
        yield Scene(bot, world, notifier, client, person, team, channel, thread)


def texts(message: dict[str, Any]) -> str:
    return str(message["blocks"]) + message["text"]


async def test_a_card_lives_in_its_thread_from_proposal_to_curve(scene: Scene) -> None:
    """Posted below the person's message, edited by the approval and by the end, with the picture beside it."""
    proposal = await scene.propose()
    await scene.bot.settle(2)
    (pending,) = await scene.cards()
    assert pending["thread_ts"] == scene.thread
    assert pending["user"] == BOT_USER
    assert blocks.APPROVE in texts(pending)
    assert "<!channel>" not in texts(pending)
    assert pending["metadata"]["event_payload"]["proposal"] == proposal.id
    assert any(f"<@{APPROVER}>" in message["text"] for message in await scene.replies()), "the approver is told"

    await scene.approve(proposal)
    await scene.bot.settle(4)
    (running,) = await scene.cards()
    assert running["ts"] == pending["ts"] and running["edited"]["user"] == BOT_USER
    assert "running" in texts(running) and blocks.APPROVE not in texts(running)

    scene.world.engine.finish()
    await scene.bot.settle(4)
    (done,) = await scene.cards()
    assert done["ts"] == pending["ts"]
    assert "succeeded" in texts(done) and "97.00%" in texts(done)
    replies = await scene.replies()
    assert any("succeeded" in one["text"] and one["ts"] != done["ts"] for one in replies), "the requester is told"
    pictures = [one for one in replies if one.get("files")]
    assert [one["files"][0]["name"] for one in pictures] == ["digits-1.png"], "one picture, in the thread"
    assert await _bytes(scene, pictures[0]["files"][0]["url_private_download"]) == PNG


async def _bytes(scene: Scene, url: str) -> bytes:
    headers = {"Authorization": f"Bearer {PERSON_TOKEN}"}
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        assert response.status == 200
        return await response.read()


async def test_a_card_that_was_posted_before_a_crash_is_found_again(scene: Scene) -> None:
    """The process died between the post and its record: the next life edits that card and posts no second one."""
    proposal = await scene.propose()
    message = blocks.card(await scene.bot.cards.card(proposal.id))
    posted = await scene.client.chat_postMessage(channel=scene.channel, thread_ts=scene.thread, **message)
    await scene.bot.settle(2)
    (card,) = await scene.cards()
    assert card["ts"] == posted["ts"]
    assert await scene.bot.store.card_message(proposal.id) == posted["ts"]


async def test_a_deleted_card_does_not_keep_the_loop_back(scene: Scene) -> None:
    proposal = await scene.propose()
    await scene.bot.settle(2)
    (card,) = await scene.cards()
    await scene.client.chat_delete(channel=scene.channel, ts=card["ts"])
    await scene.approve(proposal)
    await scene.bot.settle(4)
    assert await scene.cards() == []
    assert any("was approved" in message["text"] for message in await scene.replies())


async def test_an_answer_is_a_reply_and_what_emulate_lacks_is_done_without(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """assistant.threads.setStatus is unknown to emulate: one line in the log, and the person has their answer."""

    class Agent:
        async def answer(self, text: str, caller: object, on_text: object = None) -> str:
            return f"You said: {text}"

    agent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    agent.set_result(Agent())
    conversation = Conversation(scene.bot.store, scene.client, agent, lambda: None)
    message = Message(
        team=scene.team, event_id="Ev9", channel=scene.channel, thread=scene.thread, user=ADMIN, text="what is running?"
    )
    assert await scene.bot.store.receive(message)
    with caplog.at_level(logging.INFO, logger="bot.slack.conversation"):
        conversation.begin(message)
        await conversation.close(30)
        await conversation.optional("assistant.threads.setStatus", channel_id=scene.channel, status="")
    (answer,) = await scene.replies()
    assert "You said: what is running?" in answer["text"] and answer["thread_ts"] == scene.thread
    assert await scene.bot.store.unanswered(scene.team) == []
    assert caplog.text.count("assistant.threads.setStatus is not to be had here") == 1, "asked once, never again"


@pytest.mark.parametrize(
    ("token", "why", "tries"),
    [(PERSON_TOKEN, "missing_scope", 1), (BOT_TOKEN, "HTTP 404", 1), (BOT_TOKEN, "invalid_arguments", 2)],
    ids=["no files:write", "no such method", "arguments in the URL"],
)
async def test_an_upload_that_is_refused_loses_the_picture_only(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, token: str, why: str, tries: int
) -> None:
    """The end is shown and told all the same; no upload is tried again where none can succeed."""
    base = scene.client.base_url
    refusing = web_client(token, f"{base}elsewhere/" if why == "HTTP 404" else base)
    if why == "missing_scope":
        in_body(refusing)
    tried = 0

    async def upload(**arguments: Any) -> Any:
        nonlocal tried
        tried += 1
        return await refusing.files_upload_v2(**arguments)

    monkeypatch.setattr(scene.client, "files_upload_v2", upload)
    for _ in range(2):
        scene.thread = str((await scene.person.chat_postMessage(channel=scene.channel, text="train digits"))["ts"])
        await scene.approve(await scene.propose())
        await scene.bot.settle(4)
        scene.world.engine.finish()
        await scene.bot.settle(4)
        (done,) = await scene.cards()
        assert "succeeded" in texts(done)
        replies = await scene.replies()
        assert any("succeeded" in one["text"] and one["ts"] != done["ts"] for one in replies)
        assert not any(one.get("files") for one in replies)
    assert tried == tries
    assert "“Learning curve of" in caplog.text and f"was not uploaded: {why}" in caplog.text


async def test_a_strange_channel_is_refused_in_words(scene: Scene) -> None:
    with pytest.raises(SlackApiError, match="channel_not_found"):
        await scene.client.chat_postMessage(channel="C0NOWHERE", text="hello")
