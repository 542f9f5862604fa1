"""The payloads Slack sends: events, block actions, view submissions, slash commands, in their documented shapes.

Pure: state in, JSON out. Who sends them when is in `people.py` and `server.py`.
"""

from __future__ import annotations

import time
from typing import Any

from tests.fakes.slack.state import Channel, Json, Message, User, View, Workspace, new_id, new_ts
from tests.fakes.slack.views import as_json

KINDS = {"channel": "message.channels", "group": "message.groups", "im": "message.im"}


def event_id() -> str:
    return new_id("Ev")


def callback(team: Workspace, app_id: str, event: Json, name: str) -> Json:
    authorization = {"team_id": team.id, "user_id": team.bot.id, "is_bot": True}
    return {
        "token": "legacy-token",
        "team_id": team.id,
        "context_team_id": team.id,
        "context_enterprise_id": None,
        "api_app_id": app_id,
        "event": event,
        "type": "event_callback",
        "event_id": name,
        "event_time": int(time.time()),
        "authorizations": [{"enterprise_id": None, "is_enterprise_install": False, **authorization}],
        "is_ext_shared_channel": False,
        "event_context": f"4-{name}",
    }


def posted(channel: Channel, message: Message) -> Json:
    kind = {"channel_type": channel.kind, "channel": channel.id, "event_ts": message.ts}
    event = {**message.as_json(metadata=True), **kind}
    root = channel.messages.get(message.thread_ts or "")
    if root is not None and root is not message:
        event["parent_user_id"] = root.user
    return event


def changed(channel: Channel, message: Message, before: Json) -> Json:
    now = message.as_json(metadata=True)
    return {**_hidden(channel, "message_changed"), "message": now, "previous_message": before}


def deleted(channel: Channel, message: Message) -> Json:
    extra = {"deleted_ts": message.ts, "previous_message": message.as_json(metadata=True)}
    return {**_hidden(channel, "message_deleted"), **extra}


def _hidden(channel: Channel, subtype: str) -> Json:
    ts = new_ts()
    shared = {"hidden": True, "channel": channel.id, "channel_type": channel.kind, "ts": ts, "event_ts": ts}
    return {"type": "message", "subtype": subtype, **shared}


def mentioned(event: Json) -> Json:
    kept = {key: value for key, value in event.items() if key not in ("channel_type", "parent_user_id")}
    return {**kept, "type": "app_mention"}


def _person(team: Workspace, user: User) -> Json:
    return {"id": user.id, "username": user.name, "name": user.name, "team_id": user.team}


def _shared(team: Workspace, app_id: str, user: User, trigger: str) -> Json:
    return {
        "user": _person(team, user),
        "api_app_id": app_id,
        "token": "legacy-token",
        "trigger_id": trigger,
        "team": {"id": team.id, "domain": team.domain},
        "enterprise": None,
        "is_enterprise_install": False,
    }


def action(block: Json, element: Json, value: str | None) -> Json:
    """What a person did to one element, as it stands in `actions` and, for inputs, in `state.values`."""
    kind = element["type"]
    body: Json = {"type": kind, "action_id": element["action_id"], "block_id": block["block_id"]}
    body["action_ts"] = new_ts()
    if kind == "button":
        body["text"] = element["text"]
        if "value" in element:
            body["value"] = element["value"]
        return body
    if kind == "feedback_buttons":
        choices = [element[key] for key in ("positive_button", "negative_button")]
        chosen = next(choice for choice in choices if choice["value"] == value)
        return body | {"value": chosen["value"], "text": chosen["text"]}
    if kind == "icon_button":
        return body | ({"value": element["value"]} if "value" in element else {})
    return body | entered(element, value)


def options(element: Json) -> list[Json]:
    groups = [option for group in element.get("option_groups", []) for option in group["options"]]
    return [*element.get("options", []), *groups]


def entered(element: Json, value: Any) -> Json:
    """An input's state. `value` is what a person sees or picks: text, an option's value, a list of values, an id."""
    kind = element["type"]
    if kind in ("static_select", "radio_buttons", "overflow", "external_select"):
        chosen = next((option for option in options(element) if option["value"] == value), None)
        assert value is None or chosen, f"{value!r} is not among {[o['value'] for o in options(element)]}"
        return {"type": kind, "selected_option": chosen}
    if kind in ("checkboxes", "multi_static_select"):
        chosen_ones = [option for option in options(element) if option["value"] in (value or [])]
        assert len(chosen_ones) == len(value or []), f"{value!r}: not all among the options"
        return {"type": kind, "selected_options": chosen_ones}
    keys = {
        "users_select": "selected_user",
        "conversations_select": "selected_conversation",
        "channels_select": "selected_channel",
        "multi_users_select": "selected_users",
        "multi_conversations_select": "selected_conversations",
        "multi_channels_select": "selected_channels",
        "datepicker": "selected_date",
        "timepicker": "selected_time",
        "datetimepicker": "selected_date_time",
        "rich_text_input": "rich_text_value",
    }
    return {"type": kind, keys.get(kind, "value"): value}


def initial(element: Json) -> Any:
    """What an input holds before anybody touches it, in the form `entered` takes."""
    if element.get("initial_option"):
        return element["initial_option"]["value"]
    if element.get("initial_options"):
        return [option["value"] for option in element["initial_options"]]
    for key, value in element.items():
        if key.startswith("initial_"):
            return value
    return None


def message_action(
    team: Workspace, app_id: str, user: User, message: Message, trigger: str, done: Json, response_url: str
) -> Json:
    channel = team.channels[message.channel]
    container: Json = {"type": "message", "message_ts": message.ts, "channel_id": channel.id}
    container["is_ephemeral"] = message.ephemeral_to is not None
    if message.thread_ts:
        container["thread_ts"] = message.thread_ts
    body = {
        "type": "block_actions",
        **_shared(team, app_id, user, trigger),
        "container": container,
        "channel": {"id": channel.id, "name": channel.name or "directmessage"},
        "state": {"values": {}},
        "response_url": response_url,
        "actions": [done],
    }
    if message.ephemeral_to is None:
        body["message"] = message.as_json(metadata=True)
    return body


def view_action(team: Workspace, app_id: str, user: User, view: View, trigger: str, done: Json) -> Json:
    return {
        "type": "block_actions",
        **_shared(team, app_id, user, trigger),
        "container": {"type": "view", "view_id": view.id},
        "view": as_json(view, team, app_id),
        "actions": [done],
    }


def view_submission(team: Workspace, app_id: str, user: User, view: View, trigger: str) -> Json:
    body = {"type": "view_submission", **_shared(team, app_id, user, trigger)}
    return body | {"view": as_json(view, team, app_id), "response_urls": []}


def view_closed(team: Workspace, app_id: str, user: User, view: View, *, cleared: bool) -> Json:
    body = {"type": "view_closed", **_shared(team, app_id, user, "")}
    del body["trigger_id"]
    return body | {"view": as_json(view, team, app_id), "is_cleared": cleared}


def command(
    team: Workspace, app_id: str, user: User, channel: Channel, name: str, text: str, trigger: str, response_url: str
) -> Json:
    return {
        "token": "legacy-token",
        "team_id": team.id,
        "team_domain": team.domain,
        "channel_id": channel.id,
        "channel_name": channel.name or "directmessage",
        "user_id": user.id,
        "user_name": user.name,
        "command": name,
        "text": text,
        "api_app_id": app_id,
        "is_enterprise_install": "false",
        "response_url": response_url,
        "trigger_id": trigger,
    }
