"""What the fake Slack remembers: workspaces, people, channels, messages, views, files, and the clock of their names.

Plain records with the few questions everybody asks of them. Who may do what is decided in the method modules (chat,
views, …), so that this one stays the single place where a test can look at the truth and trust it.
"""

from __future__ import annotations

import itertools
import random
import string
import time
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

# fmt: off
DEFAULT_SCOPES = frozenset(
    {
        "app_mentions:read", "assistant:write", "channels:history", "groups:history", "im:history",
        "im:write", "chat:write", "commands", "files:write", "reactions:write", "users:read",
        "users:read.email", "usergroups:read", "channels:read", "groups:read", "im:read", "team:read",
    }
)
# fmt: on
DEFAULT_EVENTS = frozenset(
    {
        "app_mention",
        "message.im",
        "message.channels",
        "message.groups",
        "app_home_opened",
        "agent_session_stopped",
    }
)


class Refusal(Exception):
    """Slack's `ok: false`: the error's name, and whatever else its body carries."""

    def __init__(self, error: str, messages: list[str] | None = None, **more: Any) -> None:
        super().__init__(error if not messages else f"{error}: {'; '.join(messages)}")
        self.error = error
        self.body: Json = {"ok": False, "error": error, **more}
        if messages:
            self.body["response_metadata"] = {"messages": [f"[ERROR] {message}" for message in messages]}


_counter = itertools.count(1)


def new_id(prefix: str) -> str:
    """An id as Slack writes them: a letter for the kind, then capitals and digits."""
    tail = "".join(random.choices(string.ascii_uppercase + string.digits, k=7))
    return f"{prefix}{next(_counter):03d}{tail}"


_last_ts = 0


def new_ts() -> str:
    """Now as a message's name: seconds with six decimals, never the same twice."""
    global _last_ts
    _last_ts = max(time.time_ns() // 1000, _last_ts + 1)
    return f"{_last_ts // 1_000_000}.{_last_ts % 1_000_000:06d}"


@dataclass(kw_only=True)
class User:
    id: str
    team: str
    name: str
    is_bot: bool = False
    deleted: bool = False
    tz: str = "Europe/Berlin"

    def as_json(self, *, email: bool) -> Json:
        profile = {"real_name": self.name.title(), "display_name": self.name, "team": self.team}
        if email:
            profile["email"] = f"{self.name}@example.com"
        return {
            "id": self.id,
            "team_id": self.team,
            "name": self.name,
            "real_name": self.name.title(),
            "deleted": self.deleted,
            "is_bot": self.is_bot,
            "is_app_user": False,
            "tz": self.tz,
            "tz_label": self.tz,
            "tz_offset": 3600,
            "profile": profile,
            "updated": 1,
        }


@dataclass(kw_only=True)
class Channel:
    id: str
    team: str
    name: str
    kind: str  # "channel" (public), "group" (private), "im"
    members: list[str] = field(default_factory=list)
    archived: bool = False
    messages: dict[str, Message] = field(default_factory=dict)  # by ts, oldest first

    def as_json(self) -> Json:
        body: Json = {
            "id": self.id,
            "created": 1,
            "is_archived": self.archived,
            "is_im": self.kind == "im",
            "is_channel": self.kind == "channel",
            "is_group": self.kind == "group",
            "is_private": self.kind != "channel",
            "is_mpim": False,
            "context_team_id": self.team,
        }
        if self.kind == "im":
            body["user"] = next(iter(self.members))
        else:
            body |= {"name": self.name, "name_normalized": self.name, "num_members": len(self.members)}
        return body

    def thread(self, ts: str) -> list[Message]:
        """The replies below a message, oldest first, without those deleted."""
        return [m for m in self.messages.values() if m.thread_ts == ts and m.ts != ts and not m.deleted]


@dataclass(kw_only=True)
class Stream:
    """A message being written: alive until stopped, or until its time is over."""

    ends_at: float  # monotonic seconds
    text: str = ""
    chunked: bool | None = None
    stopped: bool = False

    def alive(self, now: float) -> bool:
        return not self.stopped and now < self.ends_at


@dataclass(kw_only=True, eq=False)
class Message:
    channel: str
    team: str
    user: str
    ts: str = field(default_factory=new_ts)
    text: str = ""
    thread_ts: str | None = None
    blocks: list[Json] = field(default_factory=list)
    metadata: Json | None = None
    bot_id: str | None = None
    app_id: str | None = None
    client_msg_id: str | None = None
    subtype: str | None = None
    broadcast: bool = False
    ephemeral_to: str | None = None
    edited: Json | None = None
    deleted: bool = False
    files: list[Json] = field(default_factory=list)
    reactions: dict[str, list[str]] = field(default_factory=dict)
    stream: Stream | None = None
    versions: list[Json] = field(default_factory=list)  # what it looked like before each edit, oldest first

    def as_json(self, *, metadata: bool = False) -> Json:
        body: Json = {"type": "message", "user": self.user, "text": self.text, "ts": self.ts, "team": self.team}
        optional = {
            "bot_id": self.bot_id,
            "app_id": self.app_id,
            "client_msg_id": self.client_msg_id,
            "subtype": self.subtype,
            "thread_ts": self.thread_ts,
            "edited": self.edited,
            "blocks": self.blocks,
            "files": self.files,
        }
        body |= {key: value for key, value in optional.items() if value}
        if self.reactions:
            body["reactions"] = [{"name": n, "users": u, "count": len(u)} for n, u in self.reactions.items()]
        if metadata and self.metadata:
            body["metadata"] = self.metadata
        return body

    @property
    def words(self) -> str:
        """All that a reader sees, as one text: the fallback, then every text found in the blocks."""
        return "\n".join([self.text, *texts(self.blocks)])

    @property
    def buttons(self) -> dict[str, Json]:
        """The elements a person can press now, by action_id (the last one where several share it)."""
        return {element["action_id"]: element for _, element in elements(self.blocks)}


@dataclass(kw_only=True, eq=False)
class View:
    user: str
    team: str
    body: Json  # as the app sent it, block ids filled in
    id: str = field(default_factory=lambda: new_id("V"))
    root: str = ""
    previous: str | None = None
    hash: str = ""
    open: bool = True
    errors: dict[str, str] = field(default_factory=dict)  # shown under the inputs after a refused submission
    state: dict[str, Json] = field(default_factory=dict)  # block_id → action_id → value, as typed so far

    @property
    def words(self) -> str:
        return "\n".join(texts([self.body.get("title"), self.body["blocks"], self.body.get("submit")]))

    @property
    def buttons(self) -> dict[str, Json]:
        return {element["action_id"]: element for _, element in elements(self.body["blocks"])}


@dataclass(kw_only=True)
class File:
    id: str
    name: str
    length: int
    team: str
    token: str
    content: bytes | None = None
    shared: Json | None = None


@dataclass(kw_only=True)
class Workspace:
    """One team with the app installed in it."""

    id: str
    domain: str
    token: str
    scopes: set[str]
    bot: User
    bot_id: str
    users: dict[str, User] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)
    groups: dict[str, list[str]] = field(default_factory=dict)  # user group id → members
    files: dict[str, File] = field(default_factory=dict)
    ephemerals: list[Message] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    homes: dict[str, View] = field(default_factory=dict)  # by user
    statuses: dict[tuple[str, str], Json] = field(default_factory=dict)  # (channel, thread) → assistant status
    prompts: dict[tuple[str, str], Json] = field(default_factory=dict)
    sessions: dict[tuple[str, str], Json] = field(default_factory=dict)  # (channel, thread) → agent session

    def im(self, user: str) -> Channel:
        """The direct channel between a person and the app, made when first asked for."""
        for channel in self.channels.values():
            if channel.kind == "im" and channel.members[0] == user:
                return channel
        channel = Channel(id=new_id("D"), team=self.id, name="", kind="im", members=[user, self.bot.id])
        self.channels[channel.id] = channel
        return channel

    def find(self, channel: str, ts: str) -> Message | None:
        found = self.channels[channel].messages.get(ts) if channel in self.channels else None
        return None if found is None or found.deleted else found


def texts(node: Any) -> list[str]:
    """Every text a reader would see inside Block Kit JSON, in order."""
    if isinstance(node, str):
        return []
    if isinstance(node, list):
        return [text for item in node for text in texts(item)]
    if not isinstance(node, dict):
        return []
    found: list[str] = []
    for key, value in node.items():
        if key in ("text", "title", "alt_text", "caption", "label", "name", "initial_value") and isinstance(value, str):
            found.append(value)
        elif key not in ("value", "metadata"):
            found.extend(texts(value))
    return found


def elements(blocks: list[Json]) -> list[tuple[Json, Json]]:
    """(block, element) for every interactive element of the blocks, containers entered."""
    found: list[tuple[Json, Json]] = []
    for block in blocks:
        inside = [*block.get("elements", []), block.get("accessory"), block.get("element"), *block.get("actions", [])]
        for element in inside:
            if isinstance(element, dict) and element.get("action_id"):
                found.append((block, element))
        found.extend(elements([b for b in block.get("child_blocks", []) if isinstance(b, dict)]))
    return found


# fmt: off
INTERACTIVE = frozenset(
    {
        "button", "checkboxes", "datepicker", "datetimepicker", "email_text_input", "feedback_buttons",
        "file_input", "icon_button", "multi_channels_select", "multi_conversations_select",
        "multi_external_select", "multi_static_select", "multi_users_select", "number_input", "overflow",
        "plain_text_input", "radio_buttons", "rich_text_input", "channels_select", "conversations_select",
        "external_select", "static_select", "users_select", "timepicker", "url_text_input", "workflow_button",
    }
)
# fmt: on


def with_ids(blocks: list[Json]) -> list[Json]:
    """The blocks as Slack keeps them: a block_id and an action_id wherever the app gave none."""

    def fill(node: Any) -> Any:
        if isinstance(node, list):
            return [fill(item) for item in node]
        if not isinstance(node, dict):
            return node
        kept = {key: fill(value) for key, value in node.items()}
        if kept.get("type") in INTERACTIVE:
            kept.setdefault("action_id", new_id("a"))
        return kept

    return [{"block_id": new_id("b"), **fill(block)} for block in blocks]
