"""The fake Slack itself: one loopback port with Web API, sockets and upload URLs, and the world behind them.

Strict unless told otherwise: Slack's own limits, rates and life times. Tests shorten the times and lift the rates.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from tests.fakes.slack import chat, files, payloads, reading, responding, views
from tests.fakes.slack.api import Api, Fault
from tests.fakes.slack.delivery import Courier, Delivery, Post
from tests.fakes.slack.people import Person
from tests.fakes.slack.rates import Rates
from tests.fakes.slack.responding import Responder
from tests.fakes.slack.socket_mode import SocketMode
from tests.fakes.slack.state import (
    DEFAULT_EVENTS,
    DEFAULT_SCOPES,
    Channel,
    Json,
    Message,
    User,
    Workspace,
    new_id,
)
from tests.fakes.slack.watching import Watching

METHOD_MODULES = (chat, reading, views, files)  # importing them registers their methods


class SlackServer(Watching):
    """`async with SlackServer() as slack`: people U1, U2, U3; channels C1 (everybody and the app) and C2 (no app)."""

    def __init__(
        self,
        *,
        simple: bool = False,
        rates: float | None = 1.0,
        scopes: Iterable[str] = DEFAULT_SCOPES,
        events: Iterable[str] = DEFAULT_EVENTS,
        commands: Iterable[str] = ("/signalbox",),
        ack_within_s: float = 3.0,
        retry_after_s: tuple[float, ...] = (0.0, 60.0, 300.0),
        trigger_life_s: float = 3.0,
        stream_life_s: float = 300.0,
        shared_event_id: bool = True,
        port: int = 0,
    ) -> None:
        """`rates` scales Slack's rates (None: none); `shared_event_id` gives the two events of a mention one id."""
        self.simple, self.events, self.commands = simple, set(events), set(commands)
        self.ack_within_s, self.retry_after_s = ack_within_s, retry_after_s
        self.trigger_life_s, self.stream_life_s = trigger_life_s, stream_life_s
        self.shared_event_id = shared_event_id
        self.app_id, self.app_token, self.signing_secret = "A1", "xapp-1-A1-fake", "the-signing-secret-of-the-tests"
        self.app_scopes = {"connections:write"}
        self.rates = Rates(rates)
        self.teams: dict[str, Workspace] = {}
        self.triggers: dict[str, views.Trigger] = {}
        self.responders: dict[str, Responder] = {}
        self.request_urls: dict[str, str] = {}
        self.api, self.socket, self.courier = Api(self), SocketMode(self), Courier(self)
        self.port = port
        super().__init__()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.home_team = self.add_workspace("T1", scopes=scopes)
        for user in ("U1", "U2", "U3"):
            self.add_user(user)
        self.add_channel("C1", "training")
        self.add_channel("C2", "random", members=("U1", "U2", "U3"))

    # The world -------------------------------------------------------------------------------------------------------

    def add_workspace(self, team: str, *, scopes: Iterable[str] = DEFAULT_SCOPES) -> Workspace:
        """Another team with the app installed; its token is `.token`."""
        bot = User(id=f"UBOT{team}", team=team, name="signalbox", is_bot=True)
        token, bot_id = f"xoxb-{team}-fake", f"B{team}"
        self.teams[team] = Workspace(
            id=team, domain=f"team-{team.lower()}", token=token, scopes=set(scopes), bot=bot, bot_id=bot_id
        )
        self.teams[team].users[bot.id] = bot
        return self.teams[team]

    def add_user(self, user: str, *, team: str = "T1", name: str = "", is_bot: bool = False) -> Person:
        who = User(id=user, team=team, name=name or f"person-{user.lower()}", is_bot=is_bot)
        self.teams[team].users[user] = who
        return self.user(user, team)

    def add_channel(
        self,
        channel: str,
        name: str = "",
        *,
        members: Iterable[str] | None = None,
        private: bool = False,
        archived: bool = False,
        team: str = "T1",
    ) -> Channel:
        """A channel; by default everybody known so far is in it, and the app."""
        inside = list(members) if members is not None else list(self.teams[team].users)
        made = Channel(id=channel, team=team, name=name or channel.lower(), kind="group" if private else "channel")
        made.members, made.archived = inside, archived
        self.teams[team].channels[channel] = made
        return made

    def add_group(self, group: str, members: Iterable[str], *, team: str = "T1") -> None:
        self.teams[team].groups[group] = list(members)

    def user(self, user: str, team: str = "T1") -> Person:
        return Person(self, self.teams[team], self.teams[team].users[user])

    def team_of(self, token: str) -> Workspace | None:
        return next((team for team in self.teams.values() if team.token == token), None)

    # Life ------------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api_url(self) -> str:
        """What SLACK_API_URL is set to."""
        return f"{self.url}/api/"

    @property
    def bot_token(self) -> str:
        return self.home_team.token

    @property
    def bot(self) -> User:
        return self.home_team.bot

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "not started"
        return self._session

    async def start(self) -> None:
        """Listens; after `stop`, on the same port and with all that was there."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/api/{method}", self.api.handle)
        app.router.add_get("/link/", self.socket.handle)
        app.router.add_post("/upload/v1/{token}", self._upload)
        app.router.add_post("/respond/{token}", self._respond)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._session = aiohttp.ClientSession()

    async def stop(self) -> None:
        self.socket.abort()
        await self.courier.close()
        if self._session:
            await self._session.close()
        if self._runner:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        await self.stop()

    async def _upload(self, request: web.Request) -> web.Response:
        return await files.receive(self, request)

    async def _respond(self, request: web.Request) -> web.Response:
        return await responding.receive(self, request)

    def deliver_over_http(self, url: str, *, interactivity: str | None = None, commands: str | None = None) -> Post:
        """From now on everything goes to this request URL, signed, and nothing to sockets."""
        self.request_urls = {
            "events_api": url,
            "interactive": interactivity or url,
            "slash_commands": commands or url,
        }
        return self.courier.post

    def response_url(self, responder: Responder) -> str:
        token = new_id("r")
        self.responders[token] = responder
        return f"{self.url}/respond/{token}"

    def fail(self, method: str = "*", **how: object) -> Fault:
        """Spoils the next calls of a method: see `Fault` for the ways."""
        fault = Fault(method=method, **how)  # type: ignore[arg-type]
        self.api.faults.append(fault)
        return fault

    # What happens ----------------------------------------------------------------------------------------------------

    def publish(self, message: Message) -> None:
        """A message comes into its channel, and the app is told as far as it may know."""
        team = (
            self.teams[message.team]
            if message.channel in self.teams[message.team].channels
            else self._team_with(message)
        )
        channel = team.channels[message.channel]
        channel.messages[message.ts] = message
        if message.bot_id == team.bot_id and message.thread_ts:
            team.statuses.pop((message.channel, message.thread_ts), None)
        self._tell_channel(team, channel, payloads.posted(channel, message))
        self.pulse()

    def _team_with(self, message: Message) -> Workspace:
        """The workspace that owns the channel, for somebody from another one in a shared channel."""
        found = next(team for team in self.teams.values() if message.channel in team.channels)
        return self.teams[message.team] if message.channel in self.teams[message.team].channels else found

    def rewrite(self, message: Message, *, text: str, blocks: list[Json]) -> None:
        team = self._team_with(message)
        before = message.as_json(metadata=True)
        message.versions.append(before)
        message.text, message.blocks, message.edited = text, blocks, chat.edited_by(message.user)
        channel = team.channels[message.channel]
        self._tell_channel(team, channel, payloads.changed(channel, message, before))
        self.pulse()

    def erase(self, message: Message) -> None:
        team = self._team_with(message)
        message.deleted = True
        channel = team.channels[message.channel]
        self._tell_channel(team, channel, payloads.deleted(channel, message))
        self.pulse()

    def _tell_channel(self, team: Workspace, channel: Channel, event: Json) -> None:
        if team.bot.id not in channel.members:
            return
        name = payloads.event_id()
        telling: list[tuple[Json, str]] = []
        if payloads.KINDS[channel.kind] in self.events:
            telling.append((event, name))
        by_app = event.get("bot_id") == team.bot_id
        mentions = f"<@{team.bot.id}>" in event.get("text", "") and "subtype" not in event and not by_app
        if mentions and channel.kind != "im" and "app_mention" in self.events:
            telling.append((payloads.mentioned(event), name if self.shared_event_id else payloads.event_id()))
        random.shuffle(telling)  # Slack promises no order
        for body, event_id in telling:
            self.courier.send("events_api", payloads.callback(team, self.app_id, body, event_id))

    def tell(self, team: Workspace, event: Json) -> Delivery | None:
        """Sends one event if the app subscribes to its type."""
        if event["type"] not in self.events:
            return None
        return self.courier.send("events_api", payloads.callback(team, self.app_id, event, payloads.event_id()))

    def set_session(self, team: Workspace, channel: str, ts: str, status: str, title: str | None = None) -> Json:
        session = team.sessions.setdefault((channel, ts), {"title": title or ""})
        session["status"] = status
        self.pulse()
        return session

    def end_streams(self, team: Workspace, channel: str, thread_ts: str) -> list[str]:
        """Stops the streams of a thread, as the Stop button does; their names."""
        now = time.monotonic()
        thread = team.channels[channel].thread(thread_ts)
        live = [m for m in thread if m.stream and m.stream.alive(now)]
        for message in live:
            assert message.stream is not None
            message.stream.stopped = True
        return [message.ts for message in live]
