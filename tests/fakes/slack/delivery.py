"""How what people do reaches the app: one `Delivery` per event or interaction, by socket or by signed HTTP request.

Events are retried when nobody acknowledges them in time; clicks, views and commands are not: the person sees a warning
and the payload is gone, as at Slack. Over HTTP, the tests may also send what Slack never would: forged and old ones.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import aiohttp

from tests.fakes.slack.state import Json

if TYPE_CHECKING:
    from tests.fakes.slack.server import SlackServer

AGENT = "Slackbot 1.0 (+https://api.slack.com/robots)"


@dataclass(kw_only=True, eq=False)
class Delivery:
    """One payload on its way to the app."""

    kind: str  # "events_api", "interactive", "slash_commands"
    payload: Json
    envelopes: list[str] = field(default_factory=list)  # one per attempt
    connections: list[str] = field(default_factory=list)  # who got each envelope
    seconds: float | None = None  # from the last attempt to its acknowledgement
    response: Json | None = None  # what came with the acknowledgement
    failures: list[str] = field(default_factory=list)  # why attempts failed
    started: float = 0.0  # of the last attempt, monotonic
    over: asyncio.Event = field(default_factory=asyncio.Event)  # acknowledged, or given up

    @property
    def acknowledged(self) -> bool:
        return self.seconds is not None

    @property
    def event_id(self) -> str | None:
        return self.payload.get("event_id")

    def acknowledge(self, response: Json | None) -> None:
        if not self.over.is_set():
            self.seconds, self.response = time.monotonic() - self.started, response
            self.over.set()

    async def done(self, timeout: float = 10.0) -> Delivery:
        """Waits until it was acknowledged; fails if it was not in time."""
        try:
            await asyncio.wait_for(self.over.wait(), timeout)
        except TimeoutError:
            raise AssertionError(f"not acknowledged in {timeout} s: {self.kind} {self.failures}") from None
        assert self.acknowledged, f"given up after {len(self.failures)} attempts: {self.failures}"
        return self


@dataclass(frozen=True, kw_only=True)
class Signed:
    """A request as it went out, to be replayed byte for byte."""

    url: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


class Post:
    """Slack's outgoing requests: signed as documented, three seconds to answer."""

    def __init__(self, server: SlackServer) -> None:
        self.server = server
        self.sent: list[Signed] = []

    def sign(self, body: bytes, *, secret: str | None = None, age_s: float = 0.0) -> dict[str, str]:
        """The two headers; another secret forges them, an age makes them stale."""
        stamp = str(int(time.time() - age_s))
        base = b"v0:" + stamp.encode() + b":" + body
        key = (secret or self.server.signing_secret).encode()
        mark = "v0=" + hmac.new(key, base, hashlib.sha256).hexdigest()
        return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": mark}

    def encode(self, kind: str, payload: Json) -> tuple[bytes, str]:
        if kind == "events_api":
            return json.dumps(payload).encode(), "application/json"
        fields = {"payload": json.dumps(payload)} if kind == "interactive" else payload
        return urlencode(fields).encode(), "application/x-www-form-urlencoded"

    async def send(
        self,
        kind: str,
        payload: Json,
        *,
        secret: str | None = None,
        age_s: float = 0.0,
        signed: bool = True,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request, genuine by default. Raises what aiohttp raises, TimeoutError after three seconds."""
        body, content_type = self.encode(kind, payload)
        marks = self.sign(body, secret=secret, age_s=age_s) if signed else {}
        all_headers = {"Content-Type": content_type, "User-Agent": AGENT, **marks, **(headers or {})}
        request = Signed(url=self.server.request_urls[kind], body=body, headers=all_headers)
        self.sent.append(request)
        return await self.replay(request)

    async def replay(self, request: Signed) -> Answer:
        """The same bytes again, signature and all."""
        timeout = aiohttp.ClientTimeout(total=self.server.ack_within_s)
        async with self.server.session.post(
            request.url, data=request.body, headers=request.headers, timeout=timeout, allow_redirects=False
        ) as response:
            return Answer(status=response.status, body=await response.text(), headers=dict(response.headers))

    async def verify_url(self) -> bool:
        """Whether the app answers Slack's challenge as it must."""
        challenge = uuid.uuid4().hex
        answer = await self.send("events_api", {"type": "url_verification", "token": "t", "challenge": challenge})
        return answer.status == 200 and challenge in answer.body


class Courier:
    """Carries deliveries to the app, again if need be."""

    def __init__(self, server: SlackServer) -> None:
        self.server = server
        self.post = Post(server)
        self.deliveries: list[Delivery] = []
        self.acks: dict[str, float] = {}  # envelope id → seconds from sending to its acknowledgement
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, kind: str, payload: Json) -> Delivery:
        delivery = Delivery(kind=kind, payload=payload)
        self.deliveries.append(delivery)
        task = asyncio.create_task(self._carry(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return delivery

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _carry(self, delivery: Delivery) -> None:
        retries = self.server.retry_after_s if delivery.kind == "events_api" else ()
        attempt = self._by_http if self.server.request_urls else self._by_socket
        reason = ""
        for number, pause in enumerate((0.0, *retries)):
            await asyncio.sleep(pause)
            reason = await attempt(delivery, number, reason)
            if delivery.acknowledged or not reason:
                break
            delivery.failures.append(reason)
            if reason == "no_retry":
                break
        delivery.over.set()
        self.server.pulse()

    async def _by_socket(self, delivery: Delivery, number: int, reason: str) -> str:
        """One attempt; the reason of its failure, empty when it was acknowledged."""
        patience = self.server.ack_within_s
        envelope: Json = {
            "envelope_id": str(uuid.uuid4()),
            "type": delivery.kind,
            "payload": delivery.payload,
            "accepts_response_payload": delivery.kind != "events_api",
        }
        if delivery.kind == "events_api":
            envelope |= {"retry_attempt": number, "retry_reason": reason}
        delivery.started = time.monotonic()
        if not await self.server.socket.send(envelope, delivery, patience):
            return "connection_failed"
        left = patience - (time.monotonic() - delivery.started)
        try:
            await asyncio.wait_for(delivery.over.wait(), max(left, 0.01))
        except TimeoutError:
            return "timeout"
        return ""

    async def _by_http(self, delivery: Delivery, number: int, reason: str) -> str:
        headers = {"X-Slack-Retry-Num": str(number), "X-Slack-Retry-Reason": reason} if number else {}
        delivery.started = time.monotonic()
        envelope_id = f"http-{uuid.uuid4()}"
        delivery.envelopes.append(envelope_id)
        delivery.connections.append("http")
        try:
            answer = await self.post.send(delivery.kind, delivery.payload, headers=headers)
        except TimeoutError:
            return "http_timeout"
        except aiohttp.ClientError:
            return "connection_failed"
        if answer.status != 200:
            return "no_retry" if answer.headers.get("X-Slack-No-Retry") == "1" else "http_error"
        try:
            body = json.loads(answer.body) if answer.body.strip().startswith("{") else None
        except ValueError:
            body = None
        if body is None and answer.body.strip():
            body = {"text": answer.body}
        delivery.acknowledge(body)
        self.acks[envelope_id] = delivery.seconds or 0.0
        return ""
