"""Socket Mode: single-use URLs, up to ten connections, each envelope to one of them, and every way a socket can die.

A silent connection stays open and takes envelopes into the void, as a real one behind a dead network does. The way back
to a healthy state is the client's business; the tests watch it from `connections` and `tickets`.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from tests.fakes.slack.delivery import Delivery
from tests.fakes.slack.state import Json

if TYPE_CHECKING:
    from tests.fakes.slack.server import SlackServer

CONNECTIONS = 10
APPROXIMATE_CONNECTION_TIME_S = 18_060


@dataclass(kw_only=True, eq=False)
class Connection:
    id: str
    ws: web.WebSocketResponse
    transport: asyncio.Transport | None
    silent: bool = False  # open, but nothing comes and nothing is heard
    leaving: bool = False  # told to go, gets nothing new
    envelopes: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not (self.leaving or self.ws.closed)

    async def write(self, body: Json) -> bool:
        if self.silent:
            return True
        try:
            await self.ws.send_str(json.dumps(body))
        except (ConnectionError, RuntimeError):
            return False
        return True


_closing: set[asyncio.Future[Any]] = set()


def _hang_up(connection: Connection) -> None:
    task = asyncio.ensure_future(connection.ws.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


class SocketMode:
    def __init__(self, server: SlackServer) -> None:
        self.server = server
        self.connections: list[Connection] = []
        self.tickets: dict[str, str] = {}  # ticket → "fresh", "spent", "refused"
        self.refused = 0  # handshakes turned away, for whatever reason
        self.stray_acks: list[Json] = []  # acknowledgements of nothing that was sent
        self.late_acks: list[Json] = []  # too late to count: the envelope has been given up or sent again
        self.refuse_next = 0
        self.refuse_status = 503
        self.withhold_hello = False
        self._waiting: dict[str, tuple[Delivery, float]] = {}

    def ticket(self) -> str:
        ticket = uuid.uuid4().hex
        self.tickets[ticket] = "fresh"
        return f"{self.server.url.replace('http', 'ws', 1)}/link/?ticket={ticket}&app_id={self.server.app_id}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if self.tickets.get(ticket) != "fresh":
            self.refused += 1
            return web.Response(status=403, text="invalid_ticket")
        self.tickets[ticket] = "spent"
        if self.refuse_next > 0:
            self.refuse_next -= 1
            self.refused += 1
            self.tickets[ticket] = "refused"
            return web.Response(status=self.refuse_status)
        ws = web.WebSocketResponse(autoping=False, timeout=1.0)
        await ws.prepare(request)
        transport = request.transport if isinstance(request.transport, asyncio.Transport) else None
        connection = Connection(id=f"s{len(self.tickets)}", ws=ws, transport=transport)
        open_now = sum(other.usable for other in self.connections)
        if open_now >= CONNECTIONS:
            await connection.write({"type": "disconnect", "reason": "too_many_websockets"})
            await ws.close()
            return ws
        if not self.withhold_hello:
            await connection.write(self._hello(open_now + 1))
        self.connections.append(connection)
        self.server.pulse()
        try:
            await self._listen(connection)
        finally:
            self.connections.remove(connection)
            self.server.pulse()
        return ws

    def _hello(self, number: int) -> Json:
        debug = {"host": "applink-fake", "approximate_connection_time": APPROXIMATE_CONNECTION_TIME_S}
        connection = {"app_id": self.server.app_id}
        return {"type": "hello", "num_connections": number, "debug_info": debug, "connection_info": connection}

    async def _listen(self, connection: Connection) -> None:
        async for frame in connection.ws:
            if connection.silent:
                continue
            if frame.type is WSMsgType.PING:
                await connection.ws.pong(frame.data)
            elif frame.type is WSMsgType.TEXT:
                self._acknowledge(frame.data)

    def _acknowledge(self, raw: str) -> None:
        try:
            body = json.loads(raw)
        except ValueError:
            body = {"raw": raw}
        envelope_id = body.get("envelope_id") if isinstance(body, dict) else None
        waiting = self._waiting.get(str(envelope_id))
        if waiting is None:
            self.stray_acks.append(body)
            return
        delivery, at = waiting
        seconds = time.monotonic() - at
        self.server.courier.acks.setdefault(str(envelope_id), seconds)
        if seconds > self.server.ack_within_s:
            self.late_acks.append(body)
            return
        payload: Any = body.get("payload")
        delivery.acknowledge(payload if isinstance(payload, dict) else None)
        self.server.pulse()

    async def send(self, envelope: Json, delivery: Delivery, patience: float) -> bool:
        """Writes to one connection chosen at random (to all in a simple Slack), waiting for one to be there."""
        deadline = time.monotonic() + patience
        while not (usable := [c for c in self.connections if c.usable]):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(0.02)
        chosen = usable if self.server.simple else [random.choice(usable)]
        envelope_id = envelope["envelope_id"]
        self._waiting[envelope_id] = (delivery, time.monotonic())
        delivery.envelopes.append(envelope_id)
        for connection in chosen:
            connection.envelopes.append(envelope_id)
            delivery.connections.append(connection.id)
            await connection.write(envelope)
        return True

    # Faults ----------------------------------------------------------------------------------------------------------

    def _these(self, connection: Connection | None) -> list[Connection]:
        return [connection] if connection else list(self.connections)

    async def disconnect(
        self, reason: str = "refresh_requested", connection: Connection | None = None, *, grace_s: float = 0.5
    ) -> None:
        """Slack's own way of moving clients: `warning` some seconds before, `refresh_requested` at once."""
        for each in self._these(connection):
            each.leaving = True
            debug = {"host": "applink-fake"}
            await each.write({"type": "disconnect", "reason": reason, "debug_info": debug})
            asyncio.get_running_loop().call_later(grace_s, _hang_up, each)

    def abort(self, connection: Connection | None = None) -> None:
        """Cuts the TCP connection without a word."""
        for each in self._these(connection):
            each.leaving = True
            if each.transport is not None:
                each.transport.abort()

    def mute(self, connection: Connection | None = None) -> None:
        """Leaves the connection open and dead: no pongs, no envelopes, no acknowledgements heard."""
        for each in self._these(connection):
            each.silent = True

    def refuse(self, times: int = 1, status: int = 503) -> None:
        """Answers the next handshakes with this status; their tickets are spent all the same."""
        self.refuse_next, self.refuse_status = times, status
