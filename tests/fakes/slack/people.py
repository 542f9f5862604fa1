"""People, driven from tests: what a person with Slack open could do, and nothing that they could not.

A click on a button that is no longer there, text longer than an input takes, a reply in a channel one cannot see: these
fail in the test, because no app could ever receive them. `tamper=` is the one way around, for payloads nobody honest
would send.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.fakes.slack import payloads
from tests.fakes.slack.delivery import Delivery
from tests.fakes.slack.responding import Responder, respond
from tests.fakes.slack.state import Channel, Json, Message, User, View, Workspace, elements, new_id, new_ts
from tests.fakes.slack.views import STACK, Trigger, add_view, as_json, judged, stack

if TYPE_CHECKING:
    from tests.fakes.slack.server import SlackServer

TYPED = 40_000  # characters Slack's own composer takes


def escaped(text: str) -> str:
    """What Slack makes of typed text: its three control characters become entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Person:
    def __init__(self, server: SlackServer, team: Workspace, user: User) -> None:
        self.server, self.team, self.user = server, team, user
        self.id = user.id

    # Writing ---------------------------------------------------------------------------------------------------------

    async def say(self, channel: str, text: str, *, thread_ts: str | None = None, raw: bool = False) -> Message:
        """A message as typed; `raw` leaves `<`, `>` and `&` alone, for mentions and links made by the composer."""
        where = self._channel(channel)
        assert len(text) <= TYPED, "no composer takes that much"
        assert not where.archived, f"{channel} is archived"
        sent = text if raw else escaped(text)
        words = [{"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}]
        message = Message(
            channel=channel,
            team=self.user.team,
            user=self.id,
            text=sent,
            thread_ts=thread_ts,
            blocks=[{"type": "rich_text", "block_id": new_id("b"), "elements": words}],
            client_msg_id=str(uuid.uuid4()),
            bot_id=new_id("B") if self.user.is_bot else None,
        )
        self.server.publish(message)
        return message

    async def mention(self, channel: str, text: str, *, thread_ts: str | None = None, raw: bool = False) -> Message:
        said = text if raw else escaped(text)
        return await self.say(channel, f"<@{self.team.bot.id}> {said}", thread_ts=thread_ts, raw=True)

    async def dm(self, text: str, *, thread_ts: str | None = None) -> Message:
        return await self.say(self.team.im(self.id).id, text, thread_ts=thread_ts)

    async def reply(self, channel: str, thread_ts: str, text: str) -> Message:
        return await self.say(channel, text, thread_ts=thread_ts)

    async def edit(self, message: Message, text: str) -> None:
        assert message.user == self.id, "only one's own message can be edited"
        self.server.rewrite(message, text=escaped(text), blocks=message.blocks)

    async def delete(self, message: Message) -> None:
        """Deletes a message; also somebody else's, as a workspace's owner may."""
        self.server.erase(message)

    # Pressing and filling in -----------------------------------------------------------------------------------------

    async def click(
        self,
        target: str | Message | View,
        action_id: str,
        value: Any = None,
        *,
        tamper: Json | None = None,
        wait: bool = True,
    ) -> Delivery:
        """Presses an element of a message, a view or the Home tab as it is now, and waits for the acknowledgement.

        `value` tells elements of one action_id apart, or is what is picked in a menu. `tamper` replaces fields of the
        action on its way. Without an acknowledgement in time the delivery comes back with `acknowledged` False.
        """
        thing = self._seen(target) if isinstance(target, str) else target
        blocks = thing.body["blocks"] if isinstance(thing, View) else thing.blocks
        if isinstance(thing, View):
            assert thing.open, "the view is closed"
        else:
            assert not thing.deleted, "the message is gone"
            assert self.id in self.team.channels[thing.channel].members, f"{self.id} does not see {thing.channel}"
        block, element = _element(blocks, action_id, value)
        done = payloads.action(block, element, value) | (tamper or {})
        app = self.server.app_id
        if isinstance(thing, View):
            if element["type"] not in ("button", "feedback_buttons", "icon_button", "overflow"):
                kept = payloads.entered(element, value)
                thing.state.setdefault(block["block_id"], {})[element["action_id"]] = kept
            trigger = self.trigger(thing.id)
            body = payloads.view_action(self.team, app, self.user, thing, trigger, done)
        else:
            responder = Responder(team=self.team, channel=thing.channel, user=self.id, original=thing)
            link = self.server.response_url(responder)
            body = payloads.message_action(self.team, app, self.user, thing, self.trigger(), done, link)
        return await self._send("interactive", body, wait)

    async def feedback(self, target: str | Message, *, positive: bool = True, wait: bool = True) -> Delivery:
        """Presses a thumb of the message's feedback buttons."""
        message = self._seen(target) if isinstance(target, str) else target
        assert isinstance(message, Message)
        found = [element for _, element in elements(message.blocks) if element["type"] == "feedback_buttons"]
        assert found, "the message has no feedback buttons"
        chosen = found[0]["positive_button" if positive else "negative_button"]
        return await self.click(message, found[0]["action_id"], chosen["value"], wait=wait)

    async def submit_view(
        self, view: str | View, values: Json | None = None, *, tamper: Callable[[Json], None] | None = None
    ) -> Delivery:
        """Fills in the inputs (by block_id or action_id) and submits; the app's answer acts on the views.

        Inputs not named keep their initial value. What Slack's client would not let through fails here. `tamper` may
        change the payload in place.
        """
        form = self.team.views[view] if isinstance(view, str) else view
        assert form.open, "the view is closed"
        assert stack(self.team, self.id)[-1] is form, "another view lies above"
        form.state = _filled(form, values or {})
        body = payloads.view_submission(self.team, self.server.app_id, self.user, form, self.trigger(form.id))
        if tamper:
            tamper(body)
        delivery = await self._send("interactive", body, True)
        if delivery.acknowledged:
            self._answered(form, delivery.response or {})
            self.server.pulse()
        return delivery

    async def close_view(self, view: str | View, *, everything: bool = False) -> Delivery | None:
        """Cancel (one view) or the cross (all). The app hears of it only if it asked to."""
        form = self.team.views[view] if isinstance(view, str) else view
        assert form.open, "the view is closed"
        closing = stack(self.team, self.id) if everything else [form]
        for each in closing:
            each.open = False
        self.server.pulse()
        if not form.body.get("notify_on_close"):
            return None
        body = payloads.view_closed(self.team, self.server.app_id, self.user, form, cleared=everything)
        return await self._send("interactive", body, True)

    def _answered(self, form: View, response: Json) -> None:
        """What the app's answer to a submission does, as Slack does it."""
        form.errors = {}
        action = response.get("response_action")
        if action == "errors":
            inputs = {block["block_id"] for block in form.body["blocks"] if block["type"] == "input"}
            strange = set(response.get("errors", {})) - inputs
            assert response.get("errors") and not strange, f"errors for blocks that are no inputs: {strange}"
            form.errors = dict(response["errors"])
        elif action == "clear":
            for each in stack(self.team, self.id):
                each.open = False
        elif action == "update":
            form.body, form.state = judged(response.get("view")), {}
        elif action == "push":
            assert len(stack(self.team, self.id)) < STACK, "push_limit_reached"
            add_view(self.team, self.id, judged(response.get("view")), form)
        else:
            assert not response, f"Slack does not know this answer to a submission: {response}"
            form.open = False

    # The rest of the app's face --------------------------------------------------------------------------------------

    async def open_home(self, tab: str = "home") -> Delivery | None:
        """Opens the Home tab, or the direct channel (`messages`)."""
        event: Json = {"type": "app_home_opened", "user": self.id, "channel": self.team.im(self.id).id, "tab": tab}
        home = self.team.homes.get(self.id)
        if home is not None and tab == "home":
            event["view"] = as_json(home, self.team, self.server.app_id)
        return self.server.tell(self.team, event | {"event_ts": new_ts()})

    async def slash(self, command: str, text: str = "", *, channel: str | None = None) -> Delivery:
        """Types a slash command, in the direct channel unless told where; the answer in the ack is shown."""
        assert command in self.server.commands, f"{command} is not a command of the app"
        where = self._channel(channel) if channel else self.team.im(self.id)
        responder = Responder(team=self.team, channel=where.id, user=self.id)
        link = self.server.response_url(responder)
        app = self.server.app_id
        body = payloads.command(self.team, app, self.user, where, command, text, self.trigger(), link)
        delivery = await self._send("slash_commands", body, True)
        if delivery.response and delivery.response.get("text", delivery.response.get("blocks")):
            respond(self.server, responder, delivery.response)
            self.server.pulse()
        return delivery

    async def stop(self, thread: Message | str, channel: str | None = None) -> Delivery | None:
        """Presses Stop in a thread where the agent is at work: its streams end at once, and the app is told."""
        message = self._seen(thread) if isinstance(thread, str) and channel is None else thread
        if isinstance(message, Message):
            where, ts = message.channel, message.thread_ts or message.ts
        else:
            assert channel is not None and isinstance(message, str)
            where, ts = channel, message
        ended = self.server.end_streams(self.team, where, ts)
        working = self.team.sessions.get((where, ts), {}).get("status") == "processing"
        assert ended or working, "Slack shows Stop only while the agent streams or its session is processing"
        event = {"type": "agent_session_stopped", "user": self.id, "channel": where, "thread_ts": ts}
        return self.server.tell(self.team, event | {"streaming_message_ts": ended, "event_ts": new_ts()})

    # -----------------------------------------------------------------------------------------------------------------

    def _channel(self, channel: str) -> Channel:
        found = self.team.channels[channel]
        assert self.id in found.members, f"{self.id} is not in {channel}"
        return found

    def _seen(self, name: str) -> Message | View:
        for message in self.team.ephemerals:
            if message.ts == name and message.ephemeral_to == self.id:
                return message
        for channel in self.team.channels.values():
            if name in channel.messages:
                return channel.messages[name]
        homes = {home.id: home for home in self.team.homes.values()}
        found = self.team.views.get(name) or homes.get(name)
        assert found is not None, f"nobody sees {name}"
        return found

    def trigger(self, view: str | None = None) -> str:
        """A trigger id as it goes out with whatever a person does."""
        name = f"{new_id('t')}.{uuid.uuid4().hex}"
        self.server.triggers[name] = Trigger(user=self.id, team=self.team.id, view=view)
        return name

    async def _send(self, kind: str, body: Json, wait: bool) -> Delivery:
        delivery = self.server.courier.send(kind, body)
        if wait:
            await asyncio.wait_for(delivery.over.wait(), 2 * self.server.ack_within_s + 5)
        return delivery


def _element(blocks: list[Json], action_id: str, value: Any) -> tuple[Json, Json]:
    found = [(block, element) for block, element in elements(blocks) if element["action_id"] == action_id]
    assert found, f"no {action_id!r} here, only {[e['action_id'] for _, e in elements(blocks)]}"
    if value is not None and found[0][1]["type"] in ("button", "icon_button"):
        found = [(block, element) for block, element in found if element.get("value") == value]
        assert found, f"no {action_id!r} with the value {value!r}"
    return found[0]


def _filled(form: View, values: Json) -> dict[str, Json]:
    """The state of all inputs, checked as Slack's client checks it before it lets a submission go."""
    state: dict[str, Json] = {}
    known: set[str] = set()
    for block, element in elements(form.body["blocks"]):
        typed = form.state.get(block["block_id"], {}).get(element["action_id"])
        if block["type"] != "input":
            if typed:
                state.setdefault(block["block_id"], {})[element["action_id"]] = typed
            continue
        known |= {block["block_id"], element["action_id"]}
        value = values.get(block["block_id"], values.get(element["action_id"], payloads.initial(element)))
        empty = value in (None, "", [])
        assert not empty or block.get("optional"), f"{block['block_id']} must be filled in"
        if not empty and element["type"] == "plain_text_input":
            assert element.get("min_length", 0) <= len(value) <= element.get("max_length", 3000), "length refused"
        if not empty and element["type"] == "number_input":
            number = float(value)
            assert element["is_decimal_allowed"] or number.is_integer(), f"{value} is not a whole number"
            assert float(element.get("min_value", "-inf")) <= number <= float(element.get("max_value", "inf")), value
        state.setdefault(block["block_id"], {})[element["action_id"]] = payloads.entered(
            element, None if empty else value
        )
    assert set(values) <= known, f"no such inputs: {set(values) - known}"
    return state
