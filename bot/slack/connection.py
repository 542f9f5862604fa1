"""How the bot is connected to Slack: one client with retries, sockets with a watchdog, or signed HTTP requests.

Every address comes from SLACK_API_URL. Two sockets, so that one may be refreshed or cut while the other takes what
comes. Slack gives each payload to one of them, other servers to all: it is done once and acknowledged on each. What is
done with a payload is `bot.slack.listeners`' business.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app, send_async_response
from slack_bolt.async_app import AsyncApp
from slack_bolt.response import BoltResponse
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry import HttpRequest, HttpResponse, RetryState
from slack_sdk.http_retry.async_handler import AsyncRetryHandler
from slack_sdk.http_retry.builtin_async_handlers import (
    AsyncConnectionErrorRetryHandler,
    AsyncRateLimitErrorRetryHandler,
    AsyncServerErrorRetryHandler,
)
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.web.async_client import AsyncWebClient

from bot.core.errors import Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
SOCKETS = 2
ENVELOPES_KEPT = 1000  # with their answers, for a copy that comes late
NO_ANSWER = (aiohttp.ClientError, OSError, TimeoutError)  # what a call raises that got none
OK = 200
REQUEST_SECONDS = 15  # for one request to Slack; retries come on top
RATE_LIMIT_RETRIES = 5
PING_SECONDS = 3  # a silent connection is noticed after four of them
LOOK_SECONDS = 1.0
BURNT_AFTER = 3  # looks in a row that find a client unconnected: its URL is spent


def _posts(request: HttpRequest) -> bool:
    """Whether a second try could say the same thing twice: the first may have come through, its answer lost."""
    return request.url.rpartition("/")[2] in ("chat.postMessage", "chat.startStream", "chat.appendStream")


class _Once(AsyncRetryHandler):
    """Not for what must not be sent twice: who sent that looks first."""

    async def _can_retry_async(
        self,
        *,
        state: RetryState,
        request: HttpRequest,
        response: HttpResponse | None = None,
        error: Exception | None = None,
    ) -> bool:
        again = await super()._can_retry_async(state=state, request=request, response=response, error=error)
        return again and not _posts(request)


class _LostConnections(_Once, AsyncConnectionErrorRetryHandler):
    """Retries lost connections."""


class _ServerErrors(_Once, AsyncServerErrorRetryHandler):
    """Retries server errors."""


def web_client(token: str, api_url: str) -> AsyncWebClient:
    """A client that retries rate limits, and lost connections and server errors where that does no harm."""
    client = AsyncWebClient(token=token, base_url=api_url, timeout=REQUEST_SECONDS)
    client.retry_handlers = [
        _LostConnections(max_retry_count=2),
        AsyncRateLimitErrorRetryHandler(max_retry_count=RATE_LIMIT_RETRIES),
        _ServerErrors(max_retry_count=2),
    ]
    return client


async def into(thread: str | None, post: Callable[[str | None], Awaitable[T]]) -> T:
    """Post into a thread; into the channel itself if somebody deleted what the thread hangs from."""
    try:
        return await post(thread)
    except SlackApiError as error:
        if not thread or error.response.get("error") != "thread_not_found":
            raise
        log.info("the thread %s is gone, so its channel is told", thread)
        return await post(None)


class Envelopes:
    """What the app answered to each envelope, which it gets once, however many copies come and wherever."""

    def __init__(self, app: AsyncApp) -> None:
        self._app = app
        self._answers: dict[str, asyncio.Task[BoltResponse]] = {}

    async def answer(self, envelope: SocketModeRequest) -> BoltResponse:
        """The first copy's answer. A failure is nobody's: the next copy is handled anew."""
        name = envelope.envelope_id
        handling = self._answers.get(name)
        if handling is None:
            handling = asyncio.create_task(run_async_bolt_app(self._app, envelope))
            self._answers[name] = handling
            handling.add_done_callback(lambda done: self._keep(name, done))
        return await asyncio.shield(handling)

    def _keep(self, name: str, handling: asyncio.Task[BoltResponse]) -> None:
        if handling.cancelled() or handling.exception() or handling.result().status != OK:
            self._answers.pop(name, None)
        while len(self._answers) > ENVELOPES_KEPT:
            del self._answers[next(iter(self._answers))]


class _Socket(AsyncSocketModeHandler):
    """One connection; what it gets, another may get too."""

    def __init__(self, envelopes: Envelopes, app: AsyncApp, app_token: str, client: AsyncWebClient) -> None:
        super().__init__(app, app_token, web_client=client, ping_interval=PING_SECONDS)
        self._envelopes = envelopes

    async def handle(self, client: SocketModeClient, req: SocketModeRequest) -> None:  # type: ignore[override]
        start = time.time()
        await send_async_response(client, req, await self._envelopes.answer(req), start)


class Sockets:
    """Socket Mode connections of one app."""

    def __init__(self, app: AsyncApp, app_token: str, api_url: str) -> None:
        client = web_client(app_token, api_url)
        envelopes = Envelopes(app)
        self._handlers = [_Socket(envelopes, app, app_token, client) for _ in range(SOCKETS)]
        self._watchdog: asyncio.Task[None] | None = None

    async def connect(self, seconds: float) -> None:
        """Open them; `Unavailable` if not even one is open in time. They go on trying by themselves after that."""
        opening = [asyncio.create_task(handler.connect_async()) for handler in self._handlers]  # type: ignore[no-untyped-call]
        self._watchdog = asyncio.create_task(self._watch(), name="slack sockets")
        done, _ = await asyncio.wait(opening, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            raise Unavailable(f"Slack's socket did not open within {seconds:.0f} s. Check SLACK_APP_TOKEN.")

    async def connected(self) -> int:
        """How many are open now."""
        return sum([await handler.client.is_connected() for handler in self._handlers])

    async def _watch(self) -> None:
        """The client retries a URL that it has used up, for ever; make it ask for a new one."""
        misses = [0] * len(self._handlers)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for index, handler in enumerate(self._handlers):
                misses[index] = 0 if await handler.client.is_connected() else misses[index] + 1
                if misses[index] >= BURNT_AFTER:
                    handler.client.wss_uri = None
                    misses[index] = 0
                    log.info("socket %s asks for a new address", index + 1)

    async def close(self) -> None:
        """Stop taking payloads; what is not acknowledged comes again elsewhere."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        for handler in self._handlers:
            await handler.close_async()  # type: ignore[no-untyped-call]
