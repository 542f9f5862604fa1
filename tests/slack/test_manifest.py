"""The app manifest asks for every scope and event that the code uses, and for nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bot.slack.checks import NEEDED
from bot.slack.pages import PROMPTS

ROOT = Path(__file__).parents[2]
MANIFEST: dict[str, Any] = yaml.safe_load((ROOT / "infra" / "slack" / "manifest.yaml").read_text())
SOURCES = {path.name: path.read_text() for path in sorted((ROOT / "bot" / "slack").glob("*.py"))}

# Web API method → the scopes of which one is enough (docs.slack.dev); the empty set: any token.
SCOPES: dict[str, set[str]] = {
    "api_call": set(),
    "auth_test": set(),
    "apps_connections_open": set(),  # the app token's connections:write
    "agents_sessions_setStatus": {"chat:write"},
    "assistant_threads_setStatus": {"chat:write"},
    "assistant_threads_setSuggestedPrompts": {"assistant:write"},
    "chat_postMessage": {"chat:write"},
    "chat_postEphemeral": {"chat:write"},
    "chat_update": {"chat:write"},
    "chat_delete": {"chat:write"},
    "chat_startStream": {"chat:write"},
    "chat_appendStream": {"chat:write"},
    "chat_stopStream": {"chat:write"},
    "chat_stream": {"chat:write"},
    "conversations_history": {"channels:history"},
    "conversations_replies": {"channels:history"},
    "conversations_info": {"channels:read"},
    "conversations_open": {"im:write"},
    "files_upload_v2": {"files:write"},
    "files_getUploadURLExternal": {"files:write"},
    "files_completeUploadExternal": {"files:write"},
    "reactions_add": {"reactions:write"},
    "usergroups_users_list": {"usergroups:read"},
    "users_info": {"users:read"},
    "views_open": set(),
    "views_update": set(),
    "views_publish": set(),
    "is_connected": set(),
}
EVENT_SCOPES = {
    "app_mention": {"app_mentions:read"},
    "message.im": {"im:history"},
    "message.channels": {"channels:history"},
    "message.groups": {"groups:history"},
    "app_home_opened": set(),
    "agent_session_stopped": set(),
}


def _asked() -> set[str]:
    scopes = MANIFEST["oauth_config"]["scopes"]
    return {*scopes["bot"], *scopes["bot_optional"]}


def _events() -> set[str]:
    return set(MANIFEST["settings"]["event_subscriptions"]["bot_events"])


def _methods() -> set[str]:
    """Every Web API method that a source file calls, by attribute or by name."""
    every = "\n".join(SOURCES.values())
    called = set(re.findall(r"client(?:\([^()]*(?:\([^()]*\))?[^()]*\))?\.([a-z]+_[A-Za-z_0-9]+)\(", every))
    named = re.findall(
        r'"((?:agents|assistant|chat|views|files|reactions|users|conversations)(?:\.[A-Za-z]+)+)"', every
    )
    return called | {name.replace(".", "_") for name in named}


def test_exactly_the_scopes_of_the_design() -> None:
    scopes = MANIFEST["oauth_config"]["scopes"]
    asked = (
        "app_mentions:read assistant:write channels:history groups:history im:history im:write chat:write commands "
        "files:write reactions:write users:read"
    )
    assert " ".join(scopes["bot"]) == asked
    assert set(scopes["bot_optional"]) == {"users:read.email", "usergroups:read", "channels:read", "groups:read"}


def test_each_method_of_the_code_has_its_scope() -> None:
    methods = _methods()
    assert {"chat_postMessage", "views_open", "assistant_threads_setStatus"} <= methods, "the pattern finds the calls"
    assert methods <= set(SCOPES), f"say here which scope it takes: {methods - set(SCOPES)}"
    for method in methods:
        assert not SCOPES[method] or SCOPES[method] & _asked(), method


def test_each_event_of_the_code_is_subscribed() -> None:
    every = "\n".join(SOURCES.values())
    heard = set(re.findall(r'app\.event\("([a-z_]+)"\)', every))
    assert {"app_home_opened", "agent_session_stopped"} <= heard
    assert heard | {"app_mention"} <= _events()
    assert _events() == set(EVENT_SCOPES)
    assert set().union(*EVENT_SCOPES.values()) <= _asked()


def test_the_command_and_every_switch_is_there() -> None:
    commands = set(re.findall(r'app\.command\("(/[a-z]+)"\)', "\n".join(SOURCES.values())))
    assert commands == {one["command"] for one in MANIFEST["features"]["slash_commands"]}
    settings, features = MANIFEST["settings"], MANIFEST["features"]
    assert settings["socket_mode_enabled"] and settings["interactivity"]["is_enabled"]
    assert features["app_home"]["home_tab_enabled"] and features["app_home"]["messages_tab_enabled"]
    assert "assistant_view" not in features, "the legacy way; agent_view replaces it"
    assert len(MANIFEST["display_information"]["description"]) <= 140
    assert len(MANIFEST["display_information"]["name"]) <= 35


def test_the_suggested_prompts_are_those_of_the_code() -> None:
    prompts = MANIFEST["features"]["agent_view"]["suggested_prompts"]
    assert tuple(one["message"] for one in prompts) == PROMPTS


def test_doctor_asks_for_no_scope_that_the_manifest_lacks() -> None:
    assert set(NEEDED) <= _asked()
