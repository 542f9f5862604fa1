"""The Web API's front door: which methods exist, who may call them, how often, and what goes wrong when asked to.

A method is a function registered with `@method`; it gets a `Call` and returns the body without `ok`. Everything Slack
refuses before looking at the arguments (unknown method, token, kind of token, scope, rate) is refused here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from tests.fakes.slack.rates import Tier
from tests.fakes.slack.state import Channel, Json, Refusal, Workspace

if TYPE_CHECKING:
    from tests.fakes.slack.server import SlackServer


@dataclass(kw_only=True)
class Call:
    """One request to the Web API, and, once answered, its answer."""

    server: SlackServer
    method: str
    args: Json
    token: str
    team: Workspace
    at: float  # monotonic seconds
    seconds: float = 0.0
    status: int = 0
    answer: Json = field(default_factory=dict)

    def need(self, *names: str) -> list[str]:
        missing = [name for name in names if self.args.get(name) in (None, "")]
        if missing:
            raise Refusal("invalid_arguments", [f"missing required field: {name}" for name in missing])
        return [str(self.args[name]) for name in names]

    def text(self, name: str) -> str | None:
        value = self.args.get(name)
        return None if value is None else str(value)

    def flag(self, name: str) -> bool:
        return str(self.args.get(name, "")).lower() in ("1", "true")

    def data(self, name: str, error: str = "invalid_arguments") -> Any:
        """An argument that is JSON, sent as such or as a string of it; None when it was not sent."""
        value = self.args.get(name)
        if isinstance(value, str) and value:
            try:
                return json.loads(value)
            except ValueError:
                raise Refusal(error) from None
        return value if value != "" else None

    def scope(self, *names: str) -> None:
        """Refuses unless the token has every scope named."""
        provided = self.team.scopes
        if not provided.issuperset(names):
            lacking = ",".join(name for name in names if name not in provided)
            raise Refusal("missing_scope", needed=lacking, provided=",".join(sorted(provided)))

    def channel(self, name: str = "channel", *, member: bool = False, history: bool = False) -> Channel:
        """The channel named by an argument, as far as the app can see it."""
        (wanted,) = self.need(name)
        found = self.team.channels.get(wanted)
        if found is None or (found.kind != "channel" and self.team.bot.id not in found.members):
            raise Refusal("channel_not_found")
        if history:
            self.scope({"channel": "channels", "group": "groups", "im": "im"}[found.kind] + ":history")
        if member and self.team.bot.id not in found.members:
            raise Refusal("not_in_channel")
        return found

    def page(self, items: list[Any], most: int) -> tuple[list[Any], str]:
        """The items asked for by `cursor` and `limit`, and the next cursor (empty at the end)."""
        try:
            start = int(self.args.get("cursor") or 0)
            size = int(self.args.get("limit") or 100)
        except ValueError:
            raise Refusal("invalid_cursor") from None
        if not 0 < size <= most:
            raise Refusal("invalid_limit")
        stop = start + size
        return items[start:stop], str(stop) if stop < len(items) else ""


Handler = Callable[[Call], Json]


@dataclass(frozen=True, kw_only=True)
class Method:
    name: str
    handler: Handler
    scopes: tuple[str, ...] = ()  # all of them
    any_scope: tuple[str, ...] = ()  # or one of these
    tier: Tier = Tier.T3
    token: str = "xoxb"
    takes_json: bool = True  # Slack's reading methods take forms only, and see no argument in a JSON body
    simple: bool = True  # known to a simple Slack


METHODS: dict[str, Method] = {}


def method(name: str, **more: Any) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        METHODS[name] = Method(name=name, handler=handler, **more)
        return handler

    return register


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with the next `times` calls of a method ("*" for any)."""

    method: str
    times: int = 1
    channel: str | None = None  # only calls about this channel
    error: str | None = None  # ok: false with this error
    status: int | None = None  # this HTTP status, before anything is done
    retry_after: int = 1  # with status 429
    after: bool = False  # the work is done first, then the fault happens
    hang_s: float = 0.0
    drop: bool = False  # the connection is cut instead of an answer
    body: bytes | None = None  # an answer that is not what Slack would send


class Api:
    def __init__(self, server: SlackServer) -> None:
        self.server = server
        self.calls: list[Call] = []
        self.faults: list[Fault] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["method"]
        args, as_json = await _arguments(request)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip() or str(args.pop("token", ""))
        team = self.server.team_of(token) or self.server.home_team
        call = Call(server=self.server, method=name, args=args, token=token, team=team, at=time.monotonic())
        self.calls.append(call)
        fault = self._fault(call)
        if fault and fault.hang_s:
            await asyncio.sleep(fault.hang_s)
        if fault and not fault.after and (early := _spoiled(request, fault)) is not None:
            return self._log(call, early)
        headers: dict[str, str] = {"x-oauth-scopes": ",".join(sorted(team.scopes))}
        status = 200
        try:
            body: Json = {"ok": True, **self._answer(call, as_json)}
        except Refusal as refusal:
            body = refusal.body
            if refusal.error == "ratelimited":
                status, headers["Retry-After"] = 429, str(body.pop("retry_after"))
        call.answer = body
        self.server.pulse()
        if fault and fault.after and (late := _spoiled(request, fault)) is not None:
            return self._log(call, late)
        return self._log(call, web.json_response(body, status=status, headers=headers))

    def _answer(self, call: Call, as_json: bool) -> Json:
        server = self.server
        known = METHODS.get(call.method)
        if known is None or (server.simple and not known.simple):
            raise Refusal("unknown_method", req_method=call.method)
        self._authorise(call, known)
        channel = call.args.get("channel")
        wait = server.rates.wait(known.name, known.tier, call.team.id, channel if isinstance(channel, str) else None)
        if wait:
            raise Refusal("ratelimited", retry_after=wait)
        if as_json and not known.takes_json:
            call.args.clear()
        return known.handler(call)

    def _authorise(self, call: Call, known: Method) -> None:
        if not call.token:
            raise Refusal("not_authed")
        if call.token == self.server.app_token:
            if known.token != "xapp":
                raise Refusal("not_allowed_token_type")
            if "connections:write" not in self.server.app_scopes:
                raise Refusal("missing_scope", needed="connections:write", provided="")
            return
        if self.server.team_of(call.token) is None:
            raise Refusal("invalid_auth")
        if known.token != "xoxb":
            raise Refusal("not_allowed_token_type")
        call.scope(*known.scopes)
        if known.any_scope and not call.team.scopes.intersection(known.any_scope):
            provided = ",".join(sorted(call.team.scopes))
            raise Refusal("missing_scope", needed=",".join(known.any_scope), provided=provided)

    def _fault(self, call: Call) -> Fault | None:
        for fault in self.faults:
            here = fault.channel in (None, call.args.get("channel"))
            if fault.method in (call.method, "*") and here and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def _log(self, call: Call, response: web.StreamResponse) -> web.StreamResponse:
        call.seconds, call.status = time.monotonic() - call.at, response.status
        return response


def _spoiled(request: web.Request, fault: Fault) -> web.StreamResponse | None:
    if fault.drop:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)  # never arrives
    if fault.status is not None:
        headers = {"Retry-After": str(fault.retry_after)} if fault.status == 429 else {}
        body = {"ok": False, "error": "ratelimited"} if fault.status == 429 else {"ok": False}
        return web.json_response(body, status=fault.status, headers=headers)
    if fault.error is not None:
        return web.json_response({"ok": False, "error": fault.error})
    if fault.body is not None:
        return web.Response(body=fault.body, content_type="application/json")
    return None


async def _arguments(request: web.Request) -> tuple[Json, bool]:
    """The arguments from the query, then the form or the JSON body, and whether there was a JSON body."""
    args: Json = dict(request.query)
    if request.content_type == "application/json":
        raw = await request.text()
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise web.HTTPOk(text='{"ok": false, "error": "json_not_object"}', content_type="application/json")
        return args | body, bool(body)
    form: Iterable[tuple[str, Any]] = (await request.post()).items()
    return args | dict(form), False
