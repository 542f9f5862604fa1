"""chat.*: posting, editing, deleting, private notes and streams, with what Slack refuses about each.

A message is judged before it is kept: where it goes, which thread it claims, how long it is, whether its blocks hold.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from tests.fakes.slack.api import Call, method
from tests.fakes.slack.limits import message_complaints
from tests.fakes.slack.rates import Tier
from tests.fakes.slack.state import Channel, Json, Message, Refusal, Stream, new_ts, with_ids

TEXT = 40_000
MARKDOWN = 12_000
METADATA_BYTES = 16_000
TS = re.compile(r"\d{9,11}\.\d{6}")


def judged_blocks(value: Any) -> list[Json]:
    if not isinstance(value, list):
        raise Refusal("invalid_blocks_format")
    if complaints := message_complaints(value):
        raise Refusal("invalid_blocks", complaints, errors=complaints)
    return with_ids(value)


def content(call: Call) -> tuple[str, list[Json]]:
    """The text and the blocks of a message about to be posted or edited."""
    blocks = call.data("blocks", "invalid_blocks_format")
    text, markdown = call.text("text") or "", call.text("markdown_text")
    if markdown is not None:
        if text or blocks:
            raise Refusal("markdown_text_conflict")
        if len(markdown) > MARKDOWN:
            raise Refusal("msg_too_long")
        return markdown, with_ids([{"type": "markdown", "text": markdown}])
    if not text.strip() and not blocks and not call.data("attachments"):
        raise Refusal("no_text")
    if len(text) > TEXT:
        raise Refusal("msg_too_long")
    return text, judged_blocks(blocks) if blocks is not None else []


def metadata(call: Call) -> Json | None:
    sent = call.data("metadata", "invalid_metadata_format")
    if sent is None or call.server.simple:
        return None
    if sent == {}:
        return {}
    if not isinstance(sent, dict) or not isinstance(sent.get("event_type"), str):
        raise Refusal("invalid_metadata_format")
    if not isinstance(sent.get("event_payload"), dict):
        raise Refusal("invalid_metadata_format")
    if len(json.dumps(sent)) > METADATA_BYTES:
        raise Refusal("metadata_too_large")
    return {"event_type": sent["event_type"], "event_payload": sent["event_payload"]}


def thread(channel: Channel, ts: str | None) -> str | None:
    """The thread a message may go to: its root exists, or existed and has replies."""
    if not ts:
        return None
    if not TS.fullmatch(ts):
        raise Refusal("invalid_thread_ts")
    root = channel.messages.get(ts)
    if root is None or (root.deleted and not channel.thread(ts)):
        raise Refusal("thread_not_found")
    if root.thread_ts and root.thread_ts != ts:
        raise Refusal("cannot_reply_to_message")
    return ts


def destination(call: Call) -> Channel:
    """Where to post: a channel's id or #name, or a person's id for the direct channel."""
    (wanted,) = call.need("channel")
    if wanted in call.team.users:
        return call.team.im(wanted)
    for channel in call.team.channels.values():
        if channel.name and wanted.removeprefix("#") == channel.name:
            call.args["channel"] = channel.id
    channel = call.channel()
    if channel.archived:
        raise Refusal("is_archived")
    if call.team.bot.id not in channel.members and "chat:write.public" not in call.team.scopes:
        raise Refusal("not_in_channel")
    return channel


def mine(call: Call, error: str) -> Message:
    """The app's own message that an edit or a deletion names."""
    channel = call.channel()
    (ts,) = call.need("ts")
    found = call.team.find(channel.id, ts)
    if found is None:
        raise Refusal("message_not_found")
    if found.bot_id != call.team.bot_id:
        raise Refusal(error)
    if channel.archived:
        raise Refusal("is_archived")
    return found


def written(call: Call, channel: str, **more: Any) -> Message:
    team = call.team
    app = call.server.app_id
    return Message(channel=channel, team=team.id, user=team.bot.id, bot_id=team.bot_id, app_id=app, **more)


@method("chat.postMessage", scopes=("chat:write",), tier=Tier.POST)
def post(call: Call) -> Json:
    channel = destination(call)
    root = thread(channel, call.text("thread_ts"))
    text, blocks = content(call)
    note = metadata(call) or None
    message = written(call, channel.id, text=text, blocks=blocks, metadata=note, thread_ts=root)
    message.broadcast = call.flag("reply_broadcast")
    call.server.publish(message)
    return {"channel": channel.id, "ts": message.ts, "message": message.as_json(metadata=True)}


@method("chat.update", scopes=("chat:write",))
def update(call: Call) -> Json:
    message = mine(call, "cant_update_message")
    if message.stream and message.stream.alive(time.monotonic()):
        raise Refusal("streaming_state_conflict")
    sent = call.data("blocks", "invalid_blocks_format")
    text, blocks = content(call)
    note = metadata(call)
    call.server.rewrite(message, text=text, blocks=message.blocks if sent is None and not blocks else blocks)
    if note is not None:
        message.metadata = note or None
    return {"channel": message.channel, "ts": message.ts, "text": text, "message": message.as_json(metadata=True)}


@method("chat.delete", scopes=("chat:write",))
def delete(call: Call) -> Json:
    message = mine(call, "cant_delete_message")
    call.server.erase(message)
    return {"channel": message.channel, "ts": message.ts}


@method("chat.postEphemeral", scopes=("chat:write",), tier=Tier.T4)
def post_ephemeral(call: Call) -> Json:
    (user,) = call.need("user")
    channel = destination(call)
    if user not in channel.members:
        raise Refusal("user_not_in_channel")
    root = thread(channel, call.text("thread_ts"))
    text, blocks = content(call)
    message = written(call, channel.id, text=text, blocks=blocks, thread_ts=root, ephemeral_to=user)
    call.team.ephemerals.append(message)
    call.server.pulse()
    return {"message_ts": message.ts}


@method("chat.getPermalink", tier=Tier.FREE, takes_json=False)
def permalink(call: Call) -> Json:
    channel = call.channel()
    (ts,) = call.need("message_ts")
    if call.team.find(channel.id, ts) is None:
        raise Refusal("message_not_found")
    link = f"https://{call.team.domain}.slack.com/archives/{channel.id}/p{ts.replace('.', '')}"
    return {"channel": channel.id, "permalink": link}


# Streams -------------------------------------------------------------------------------------------------------------


def _chunks(call: Call) -> tuple[str, list[Json]]:
    """The text that chunks add, and the blocks among them."""
    text, blocks = "", []
    sent = call.data("chunks", "invalid_chunks")
    if sent is not None and not isinstance(sent, list):
        raise Refusal("invalid_chunks")
    for chunk in sent or []:
        kind = chunk.get("type") if isinstance(chunk, dict) else None
        if kind == "markdown_text" and isinstance(chunk.get("text"), str):
            text += chunk["text"]
        elif kind == "blocks":
            blocks += judged_blocks(chunk.get("blocks"))
        elif kind == "task_update" and chunk.get("id") and chunk.get("title"):
            if chunk.get("status") not in ("pending", "in_progress", "complete", "error"):
                raise Refusal("invalid_chunks")
        elif not (kind == "plan_update" and isinstance(chunk.get("title"), str)):
            raise Refusal("invalid_chunks")
    return text, blocks


def _extend(call: Call, message: Message, *, required: bool) -> None:
    assert message.stream is not None
    plain = call.text("markdown_text")
    chunked = call.data("chunks", "invalid_chunks") is not None
    if plain is None and not chunked:
        if required:
            raise Refusal("no_text")
        return
    if plain is not None and chunked:
        raise Refusal("streaming_mode_mismatch")
    if message.stream.chunked not in (None, chunked) and (plain or call.data("chunks")):
        raise Refusal("streaming_mode_mismatch")
    text, blocks = _chunks(call)
    text = (plain or "") + text
    if len(message.stream.text) + len(text) > MARKDOWN:
        raise Refusal("msg_too_long")
    message.stream.chunked = chunked
    message.stream.text += text
    message.text = message.stream.text
    message.blocks += blocks
    call.server.pulse()


@method("chat.startStream", scopes=("chat:write",), tier=Tier.T2, simple=False)
def start_stream(call: Call) -> Json:
    channel = destination(call)
    root = thread(channel, call.text("thread_ts"))
    if root is None and channel.kind == "im":
        raise Refusal("invalid_arguments", ["missing required field: thread_ts"])
    if channel.kind != "im":
        for name in ("recipient_team_id", "recipient_user_id"):
            if not call.args.get(name):
                raise Refusal(f"missing_{name}")
    stream = Stream(ends_at=time.monotonic() + call.server.stream_life_s)
    message = written(call, channel.id, thread_ts=root, stream=stream)
    _extend(call, message, required=False)
    call.server.publish(message)
    return {"channel": channel.id, "ts": message.ts}


def _streaming(call: Call) -> Message:
    channel = call.channel()
    (ts,) = call.need("ts")
    message = call.team.find(channel.id, ts)
    if message is None:
        raise Refusal("message_not_found")
    if message.bot_id != call.team.bot_id:
        raise Refusal("message_not_owned_by_app")
    if message.stream is None or not message.stream.alive(time.monotonic()):
        raise Refusal("message_not_in_streaming_state")
    return message


@method("chat.appendStream", scopes=("chat:write",), tier=Tier.T4, simple=False)
def append_stream(call: Call) -> Json:
    message = _streaming(call)
    _extend(call, message, required=True)
    return {"channel": message.channel, "ts": message.ts}


@method("chat.stopStream", scopes=("chat:write",), tier=Tier.T2, simple=False)
def stop_stream(call: Call) -> Json:
    message = _streaming(call)
    blocks = call.data("blocks", "invalid_blocks_format")
    kept = judged_blocks(blocks) if blocks is not None else []
    note = metadata(call)
    _extend(call, message, required=False)
    assert message.stream is not None
    message.stream.stopped = True
    if note:
        message.metadata = note
    body = [{"type": "markdown", "text": message.stream.text}] if message.stream.text else []
    call.server.rewrite(message, text=message.text, blocks=with_ids(body) + message.blocks + kept)
    if status := call.text("session_status"):
        call.server.set_session(call.team, message.channel, message.thread_ts or message.ts, status)
    return {"channel": message.channel, "ts": message.ts, "message": message.as_json(metadata=True)}


def edited_by(user: str) -> Json:
    return {"user": user, "ts": new_ts()}
