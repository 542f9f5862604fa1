"""views.*: modals on a stack of three, the Home tab, trigger ids that live three seconds and open one thing once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.fakes.slack.api import Call, method
from tests.fakes.slack.limits import view_complaints
from tests.fakes.slack.rates import Tier
from tests.fakes.slack.state import Json, Refusal, View, Workspace, new_id, with_ids

STACK = 3


@dataclass(kw_only=True)
class Trigger:
    user: str
    team: str
    view: str | None = None  # the view the click was in
    used: bool = False
    at: float = field(default_factory=time.monotonic)


def judged(body: object) -> Json:
    if complaints := view_complaints(body):
        error = "view_too_large" if any("view_too_large" in c for c in complaints) else "invalid_arguments"
        raise Refusal(error, complaints)
    assert isinstance(body, dict)
    return {**body, "blocks": with_ids(body["blocks"])}


def as_json(view: View, team: Workspace, app_id: str) -> Json:
    """A view as Slack shows it to the app, here and in every payload."""
    body = view.body
    shown = {
        "id": view.id,
        "team_id": view.team,
        "app_id": app_id,
        "app_installed_team_id": team.id,
        "bot_id": team.bot_id,
        "callback_id": "",
        "private_metadata": "",
        "external_id": "",
        "title": {"type": "plain_text", "text": "View Title", "emoji": True},
        "submit": None,
        "close": None,
        "clear_on_close": False,
        "notify_on_close": False,
        **body,
        "hash": view.hash,
        "root_view_id": view.root or view.id,
        "previous_view_id": view.previous,
        "state": {"values": view.state},
    }
    return shown


def shown(call: Call, view: View) -> Json:
    view.hash = f"{time.time():.6f}.{new_id('h')[-6:]}"
    call.server.pulse()
    return {"view": as_json(view, call.team, call.server.app_id)}


def _triggered(call: Call) -> Trigger:
    (name,) = call.need("trigger_id")
    trigger = call.server.triggers.get(name)
    if trigger is None or trigger.team != call.team.id:
        raise Refusal("invalid_trigger_id")
    if trigger.used:
        raise Refusal("exchanged_trigger_id")
    if time.monotonic() - trigger.at > call.server.trigger_life_s:
        raise Refusal("expired_trigger_id")
    return trigger


def _modal(call: Call) -> Json:
    body = judged(call.data("view"))
    if body["type"] != "modal":
        raise Refusal("invalid_arguments", ["type must be modal [json-pointer:/view/type]"])
    named = body.get("external_id")
    if named and any(v.open and v.body.get("external_id") == named for v in call.team.views.values()):
        raise Refusal("duplicate_external_id")
    return body


def stack(team: Workspace, user: str) -> list[View]:
    return [view for view in team.views.values() if view.user == user and view.open]


def add_view(team: Workspace, user: str, body: Json, below: View | None) -> View:
    view = View(user=user, team=team.id, body=body)
    view.root, view.previous = (below.root, below.id) if below else (view.id, None)
    team.views[view.id] = view
    return view


@method("views.open", tier=Tier.T4)
def views_open(call: Call) -> Json:
    trigger = _triggered(call)
    body = _modal(call)
    trigger.used = True
    for old in stack(call.team, trigger.user):
        old.open = False
    return shown(call, add_view(call.team, trigger.user, body, None))


@method("views.push", tier=Tier.T4)
def views_push(call: Call) -> Json:
    trigger = _triggered(call)
    body = _modal(call)
    below = stack(call.team, trigger.user)
    if trigger.view is None or not below:
        raise Refusal("not_found")
    if len(below) >= STACK:
        raise Refusal("push_limit_reached")
    trigger.used = True
    return shown(call, add_view(call.team, trigger.user, body, below[-1]))


@method("views.update", tier=Tier.T4)
def views_update(call: Call) -> Json:
    named, external = call.text("view_id"), call.text("external_id")
    if bool(named) == bool(external):
        raise Refusal("invalid_arguments", ["exactly one of view_id and external_id is required"])
    body = judged(call.data("view"))
    candidates = [v for v in call.team.views.values() if v.open and v.body.get("external_id") == external]
    view = call.team.views.get(named) if named else next(iter(candidates), None)
    if view is None or not view.open:
        raise Refusal("not_found")
    if call.text("hash") and call.text("hash") != view.hash:
        raise Refusal("hash_conflict")
    view.body, view.errors = body, {}
    return shown(call, view)


@method("views.publish", tier=Tier.T4)
def views_publish(call: Call) -> Json:
    (user,) = call.need("user_id")
    if user not in call.team.users:
        raise Refusal("invalid_arguments", ["invalid user_id"])
    body = judged(call.data("view"))
    if body["type"] != "home":
        raise Refusal("invalid_arguments", ["type must be home [json-pointer:/view/type]"])
    view = call.team.homes.get(user)
    if view is not None and call.text("hash") and call.text("hash") != view.hash:
        raise Refusal("hash_conflict")
    if view is None:
        view = call.team.homes[user] = View(user=user, team=call.team.id, body=body)
    view.body = body
    return shown(call, view)
