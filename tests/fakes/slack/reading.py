"""What an app may read and mark: auth, conversations, people, groups, reactions, and the assistant's small signs."""

from __future__ import annotations

import time
from typing import Any

from tests.fakes.slack.api import Call, method
from tests.fakes.slack.chat import thread
from tests.fakes.slack.rates import Tier
from tests.fakes.slack.state import Channel, Json, Message, Refusal

STATUS_LIFE_S = 120.0
PROMPTS = 4
SESSION_TITLE = 200
SESSION_STATES = ("processing", "active", "suspended", "closed")
_READ = {"channel": "channels:read", "group": "groups:read", "im": "im:read"}
_ANY_READ = tuple(_READ.values())
_ANY_HISTORY = ("channels:history", "groups:history", "im:history")


@method("api.test", tier=Tier.FREE)
def api_test(call: Call) -> Json:
    return {"args": call.args}


@method("auth.test", tier=Tier.FREE)
def auth_test(call: Call) -> Json:
    team = call.team
    return {
        "url": f"https://{team.domain}.slack.com/",
        "team": team.domain,
        "user": team.bot.name,
        "team_id": team.id,
        "user_id": team.bot.id,
        "bot_id": team.bot_id,
        "is_enterprise_install": False,
    }


@method("apps.connections.open", token="xapp", tier=Tier.T1)
def connections_open(call: Call) -> Json:
    return {"url": call.server.socket.ticket()}


@method("team.info", scopes=("team:read",), takes_json=False)
def team_info(call: Call) -> Json:
    return {"team": {"id": call.team.id, "name": call.team.domain, "domain": call.team.domain}}


@method("bots.info", scopes=("users:read",), takes_json=False)
def bots_info(call: Call) -> Json:
    if call.text("bot") != call.team.bot_id:
        raise Refusal("bot_not_found")
    bot = call.team.bot
    return {"bot": {"id": call.team.bot_id, "app_id": call.server.app_id, "user_id": bot.id, "name": bot.name}}


# Conversations -------------------------------------------------------------------------------------------------------


def _readable(call: Call) -> Channel:
    channel = call.channel()
    call.scope(_READ[channel.kind])
    return channel


@method("conversations.info", any_scope=_ANY_READ, takes_json=False)
def conversations_info(call: Call) -> Json:
    channel = _readable(call)
    return {"channel": {**channel.as_json(), "is_member": call.team.bot.id in channel.members}}


@method("conversations.list", any_scope=_ANY_READ, tier=Tier.T2, takes_json=False)
def conversations_list(call: Call) -> Json:
    seen = [c for c in call.team.channels.values() if c.kind == "channel" or call.team.bot.id in c.members]
    items, cursor = call.page([c for c in seen if _READ[c.kind] in call.team.scopes], 1000)
    return {"channels": [c.as_json() for c in items], "response_metadata": {"next_cursor": cursor}}


@method("conversations.members", any_scope=_ANY_READ, tier=Tier.T4, takes_json=False)
def conversations_members(call: Call) -> Json:
    items, cursor = call.page(_readable(call).members, 1000)
    return {"members": items, "response_metadata": {"next_cursor": cursor}}


@method("conversations.open", scopes=("im:write",))
def conversations_open(call: Call) -> Json:
    users = call.data("users") if isinstance(call.args.get("users"), list) else (call.text("users") or "").split(",")
    if not users or not all(user in call.team.users for user in users):
        raise Refusal("user_not_found")
    if len(users) > 1:
        call.scope("mpim:write")
        raise Refusal("method_not_supported_for_channel_type")
    return {"channel": {"id": call.team.im(users[0]).id}}


def _window(call: Call, messages: list[Message]) -> list[Message]:
    oldest, latest = call.text("oldest") or "0", call.text("latest") or "9" * 10
    inclusive = call.flag("inclusive")

    def inside(message: Message) -> bool:
        strictly = float(oldest) < float(message.ts) < float(latest)
        return strictly or (inclusive and message.ts in (oldest, latest))

    return [message for message in messages if inside(message)]


def _listed(call: Call, messages: list[Message], channel: Channel) -> Json:
    items, cursor = call.page(_window(call, messages), 999)
    bodies = []
    for message in items:
        body = message.as_json(metadata=call.flag("include_all_metadata"))
        if replies := channel.thread(message.ts):
            body |= {"thread_ts": message.ts, "reply_count": len(replies), "latest_reply": replies[-1].ts}
        bodies.append(body)
    return {"messages": bodies, "has_more": bool(cursor), "response_metadata": {"next_cursor": cursor}}


@method("conversations.history", any_scope=_ANY_HISTORY, takes_json=False)
def conversations_history(call: Call) -> Json:
    channel = call.channel(member=True, history=True)
    top = [m for m in channel.messages.values() if not m.deleted and (m.broadcast or m.thread_ts in (None, m.ts))]
    return _listed(call, top[::-1], channel)


@method("conversations.replies", any_scope=_ANY_HISTORY, takes_json=False)
def conversations_replies(call: Call) -> Json:
    channel = call.channel(member=True, history=True)
    (ts,) = call.need("ts")
    root = channel.messages.get(ts)
    if root is None or (root.deleted and not channel.thread(ts)):
        raise Refusal("thread_not_found")
    return _listed(call, [root, *channel.thread(ts)], channel)


# People --------------------------------------------------------------------------------------------------------------


@method("users.info", scopes=("users:read",), tier=Tier.T4, takes_json=False)
def users_info(call: Call) -> Json:
    user = call.team.users.get(call.text("user") or "")
    if user is None:
        raise Refusal("user_not_found")
    return {"user": user.as_json(email="users:read.email" in call.team.scopes)}


@method("users.list", scopes=("users:read",), tier=Tier.T2, takes_json=False)
def users_list(call: Call) -> Json:
    items, cursor = call.page(list(call.team.users.values()), 1000)
    members = [user.as_json(email="users:read.email" in call.team.scopes) for user in items]
    return {"members": members, "response_metadata": {"next_cursor": cursor}}


@method("usergroups.users.list", scopes=("usergroups:read",), tier=Tier.T2, takes_json=False)
def usergroups_users_list(call: Call) -> Json:
    (group,) = call.need("usergroup")
    if group not in call.team.groups:
        raise Refusal("no_such_subteam")
    return {"users": call.team.groups[group]}


@method("reactions.add", scopes=("reactions:write",))
def reactions_add(call: Call) -> Json:
    name, ts = call.need("name", "timestamp")
    message = call.team.find(call.channel(member=True).id, ts)
    if message is None:
        raise Refusal("message_not_found")
    if not name.strip(":").replace("_", "").replace("-", "").replace("+", "").isalnum():
        raise Refusal("invalid_name")
    users = message.reactions.setdefault(name, [])
    if call.team.bot.id in users:
        raise Refusal("already_reacted")
    users.append(call.team.bot.id)
    return {}


# The assistant's signs and sessions ----------------------------------------------------------------------------------


def _thread(call: Call, *, required: bool = True) -> tuple[str, str]:
    channel = call.channel("channel_id", member=True)
    ts = call.text("thread_ts")
    if not ts and required:
        raise Refusal("invalid_arguments", ["missing required field: thread_ts"])
    return channel.id, thread(channel, ts) or ""


@method("assistant.threads.setStatus", scopes=("chat:write",), tier=Tier.FREE, simple=False)
def set_status(call: Call) -> Json:
    where = _thread(call)
    status = call.text("status")
    if status is None:
        raise Refusal("invalid_arguments", ["missing required field: status"])
    call.team.statuses.pop(where, None)
    if status:
        call.team.statuses[where] = {"status": status, "until": time.monotonic() + STATUS_LIFE_S}
    call.server.pulse()
    return {}


@method("assistant.threads.setTitle", scopes=("assistant:write",), tier=Tier.FREE, simple=False)
def set_title(call: Call) -> Json:
    call.need("title")
    _thread(call)
    return {}


@method("assistant.threads.setSuggestedPrompts", scopes=("assistant:write",), tier=Tier.FREE, simple=False)
def set_prompts(call: Call) -> Json:
    where = _thread(call, required=False)
    prompts = call.data("prompts")
    good = isinstance(prompts, list) and 1 <= len(prompts) <= PROMPTS
    if not good or not all(isinstance(p, dict) and p.get("title") and p.get("message") for p in prompts):
        raise Refusal("invalid_arguments", ["prompts: between 1 and 4, each with a title and a message"])
    call.team.prompts[where] = {"title": call.text("title"), "prompts": prompts}
    call.server.pulse()
    return {}


@method("agents.sessions.setStatus", scopes=("chat:write",), simple=False)
def session_status(call: Call) -> Json:
    (status,) = call.need("status")
    channel, ts = _thread(call)
    if status not in SESSION_STATES or len(call.text("title") or "") > SESSION_TITLE:
        raise Refusal("invalid_arguments", [f"status must be one of: {', '.join(SESSION_STATES)}"])
    session: dict[str, Any] = call.server.set_session(call.team, channel, ts, status, call.text("title"))
    body: Json = {"status": status, "agent_status": status, "title": session["title"]}
    if "agent_session_stopped" not in call.server.events:
        body["warning"] = "missing_agent_session_stopped_event_subscription"
    return body


@method("agents.sessions.rename", scopes=("chat:write",), simple=False)
def session_rename(call: Call) -> Json:
    (title,) = call.need("title")
    where = _thread(call)
    if where not in call.team.sessions:
        raise Refusal("session_not_found")
    call.team.sessions[where]["title"] = title
    return {"title": title}
