"""response_url: the link in a click or a command with which the app may answer five times within half an hour."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from tests.fakes.slack.chat import TEXT, judged_blocks, thread
from tests.fakes.slack.state import Json, Message, Refusal, Workspace

if TYPE_CHECKING:
    from tests.fakes.slack.server import SlackServer

USES = 5
LIFE_S = 1800.0


@dataclass(kw_only=True)
class Responder:
    team: Workspace
    channel: str
    user: str
    original: Message | None = None
    uses: int = 0
    at: float = field(default_factory=time.monotonic)


async def receive(server: SlackServer, request: web.Request) -> web.Response:
    responder = server.responders.get(request.match_info["token"])
    if responder is None:
        return web.Response(status=404, text="no_team")
    if responder.uses >= USES:
        return web.Response(status=404, text="used_url")
    if time.monotonic() - responder.at > LIFE_S:
        return web.Response(status=404, text="expired_url")
    try:
        body = json.loads(await request.text())
    except ValueError:
        return web.Response(status=400, text="invalid_payload")
    try:
        respond(server, responder, body)
    except Refusal as refusal:
        return web.Response(status=400, text=refusal.error)
    responder.uses += 1
    server.pulse()
    return web.Response(text="ok")


def respond(server: SlackServer, responder: Responder, body: Json) -> None:
    """What an answer does: replaces or deletes the original, or posts, privately unless told otherwise."""
    original, team = responder.original, responder.team
    if body.get("delete_original") and original is not None:
        if original.ephemeral_to:
            original.deleted = True
        else:
            server.erase(original)
        return
    text, blocks = str(body.get("text") or ""), body.get("blocks")
    if not text and not blocks and not body.get("attachments"):
        raise Refusal("no_text")
    if len(text) > TEXT:
        raise Refusal("msg_too_long")
    kept = judged_blocks(blocks) if blocks else []
    if body.get("replace_original") and original is not None:
        if original.ephemeral_to:
            original.text, original.blocks = text, kept
        else:
            server.rewrite(original, text=text, blocks=kept)
        return
    private = body.get("response_type", "ephemeral") == "ephemeral"
    message = Message(
        channel=responder.channel,
        team=team.id,
        user=team.bot.id,
        bot_id=team.bot_id,
        app_id=server.app_id,
        text=text,
        blocks=kept,
        thread_ts=thread(team.channels[responder.channel], body.get("thread_ts")),
        ephemeral_to=responder.user if private else None,
    )
    if private:
        team.ephemerals.append(message)
    else:
        server.publish(message)
