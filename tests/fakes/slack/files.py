"""Files in three steps, as Slack has them now: ask for a URL, send the bytes there, complete and share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from tests.fakes.slack.api import Call, method
from tests.fakes.slack.chat import thread, written
from tests.fakes.slack.rates import Tier
from tests.fakes.slack.state import File, Json, Refusal, new_id

if TYPE_CHECKING:
    from tests.fakes.slack.server import SlackServer

FILE_BYTES = 1_000_000_000


@method("files.getUploadURLExternal", scopes=("files:write",), tier=Tier.T4, takes_json=False, simple=False)
def get_upload_url(call: Call) -> Json:
    name, length = call.need("filename", "length")
    if not length.isdigit() or not 0 < int(length) <= FILE_BYTES:
        raise Refusal("invalid_arguments", ["length must be a positive number of bytes"])
    file = File(id=new_id("F"), name=name, length=int(length), team=call.team.id, token=new_id("up"))
    call.team.files[file.id] = file
    return {"upload_url": f"{call.server.url}/upload/v1/{file.token}", "file_id": file.id}


async def receive(server: SlackServer, request: web.Request) -> web.Response:
    """The upload URL: raw bytes or a form, exactly as many as were announced, once."""
    files = [f for team in server.teams.values() for f in team.files.values() if f.token == request.match_info["token"]]
    if not files or files[0].content is not None:
        return web.Response(status=404, text="not found")
    if request.content_type.startswith("multipart/"):
        parts = [part.file.read() for part in (await request.post()).values() if isinstance(part, web.FileField)]
        content = b"".join(parts)
    else:
        content = await request.read()
    if len(content) != files[0].length:
        return web.Response(status=400, text="length mismatch")
    files[0].content = content
    return web.Response(text=f"OK - {len(content)}")


@method("files.completeUploadExternal", scopes=("files:write",), tier=Tier.T4, simple=False)
def complete_upload(call: Call) -> Json:
    sent = call.data("files")
    if not isinstance(sent, list) or not sent:
        raise Refusal("invalid_arguments", ["missing required field: files"])
    files = []
    for item in sent:
        file = call.team.files.get(str(item.get("id")) if isinstance(item, dict) else "")
        if file is None or file.content is None or file.shared is not None:
            raise Refusal("file_not_found")
        body = {"id": file.id, "name": file.name, "title": item.get("title") or file.name, "size": file.length}
        files.append((file, body | {"url_private": f"{call.server.url}/files/{file.id}", "mode": "hosted"}))
    if call.args.get("channel_id"):
        channel = call.channel("channel_id", member=True)
        if channel.archived:
            raise Refusal("is_archived")
        root = thread(channel, call.text("thread_ts"))
        message = written(call, channel.id, text=call.text("initial_comment") or "", thread_ts=root)
        message.files, message.subtype = [body for _, body in files], "file_share"
        call.server.publish(message)
    for file, body in files:
        file.shared = body
    return {"files": [body for _, body in files]}
