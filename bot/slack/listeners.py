"""What Slack sends, sorted: who may speak to the bot, what is recorded before it is acknowledged, who handles it.

Order matters. A middleware verifies the workspace, then does what must be durable before Slack is acknowledged and
needs nothing else: messages go into the inbox, an approval is committed. (A listener of Bolt's is looked after every
10 ms whether it has acknowledged; a middleware answers at once.) Other clicks and forms commit first and acknowledge
after, in their listeners. What nobody handles is acknowledged too, or it would come again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse

from bot.policies import Policies
from bot.slack import blocks, text
from bot.slack.conversation import Conversation
from bot.slack.hands import Hands
from bot.slack.pages import Pages
from bot.store.store import Message, Store

log = logging.getLogger(__name__)

Payload = Mapping[str, Any]
Next = Callable[[], Awaitable[BoltResponse]]
SPOKEN = frozenset({"app_mention", "message"})
PERSONS = frozenset({None, "file_share", "me_message", "thread_broadcast"})  # the subtypes of what a person says
ANYTHING = re.compile(".*")


class Listeners:
    """Registers everything on a Bolt app. `team` is the workspace of the bot's token, `bot_user` the bot itself."""

    def __init__(
        self,
        *,
        store: Store,
        policies: Policies,
        conversation: Conversation,
        hands: Hands,
        pages: Pages,
        team: str,
        bot_user: str,
    ) -> None:
        self._store = store
        self._policies = policies
        self._conversation = conversation
        self._hands = hands
        self._pages = pages
        self._team = team
        self._bot_user = bot_user

    def register(self, app: AsyncApp) -> None:
        """All listeners; the catch-alls come last."""
        app.use(self._gate)
        self._hands.register(app)
        self._pages.register(app)
        app.event("agent_session_stopped")(self._stopped)
        app.event(ANYTHING)(_taken)

    async def _gate(self, req: AsyncBoltRequest, resp: BoltResponse, next: Next) -> BoltResponse:
        body: Payload = req.body
        team = _team_of(body)
        policy = await self._policies.whole()
        allowed = policy.workspaces if policy.workspaces is not None else frozenset({self._team})
        if team is not None and (team not in allowed or team != self._team):
            log.warning("a payload of the workspace %s was ignored", team)
            return BoltResponse(status=200, body="")
        if body.get("type") == "event_callback" and body.get("event", {}).get("type") in SPOKEN:
            await self._spoken(body)
            return BoltResponse(status=200, body="")
        if body.get("type") == "block_actions" and body["actions"][0].get("action_id") == blocks.APPROVE:
            await self._hands.approve(body)
            return BoltResponse(status=200, body="")
        return await next()

    async def _spoken(self, body: Payload) -> None:
        """Record a message for the agent, unless it is not for us; then begin to answer."""
        event: Payload = body["event"]
        message = await self._message(body, event)
        if message is not None and await self._store.receive(message):
            self._conversation.begin(message)

    async def _message(self, body: Payload, event: Payload) -> Message | None:
        speaker = event.get("user")
        if not speaker or speaker == self._bot_user or event.get("bot_id") or event.get("subtype") not in PERSONS:
            return None  # bots, ourselves included; edits, joins, deletions
        channel, direct = str(event["channel"]), event.get("channel_type") == "im"
        policy = await self._policies.whole()
        if direct and not policy.direct_messages:
            return None
        if not direct and policy.channels is not None and channel not in policy.channels:
            return None
        thread = str(event.get("thread_ts") or event["ts"])
        mentioned = f"<@{self._bot_user}>" in str(event.get("text", ""))
        followed = bool(event.get("thread_ts")) and await self._store.takes_part(self._team, channel, thread)
        if not (direct or mentioned or followed):
            return None
        words = text.from_person(str(event.get("text", "")), self._bot_user)
        if not words:
            words = "help"
        return Message(
            team=self._team,
            event_id=f"{channel}:{event['ts']}",  # an app_mention and a message of the same words are one
            channel=channel,
            thread=thread,
            user=str(speaker),
            text=words,
        )

    async def _stopped(self, event: Payload) -> None:
        channel = str(event.get("channel") or event.get("channel_id") or "")
        thread = str(event.get("thread_ts") or "")
        await self._conversation.stop(channel, thread)
        await self._conversation.optional(
            "agents.sessions.setStatus", channel_id=channel, thread_ts=thread, status="closed"
        )


def _team_of(body: Payload) -> str | None:
    """The workspace a payload comes from, wherever this kind of payload says so."""
    team = body.get("team")
    if isinstance(team, Mapping):
        return str(team.get("id"))
    found = body.get("team_id") or team or (body.get("user") or {}).get("team_id")
    return str(found) if found else None


async def _taken(event: Payload) -> None:
    log.debug("an event of type %s needs nothing", event.get("type"))
