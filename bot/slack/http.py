"""The bot's own HTTP: signed requests from Slack where that is the mode, and what a platform asks of a service.

`/healthz` the process lives, `/readyz` it can do its work, `/metrics` a few numbers in Prometheus' text format.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp

from bot.core.errors import Misconfigured

EVENTS = "/slack/events"
BODY_LIMIT = 2**20  # bytes; Slack's payloads are far smaller


class Front:
    """`app` is None over sockets; `ready` answers what is missing, or nothing; `numbers` are the metrics."""

    def __init__(
        self,
        app: AsyncApp | None,
        *,
        host: str,
        port: int,
        ready: Callable[[], Awaitable[str]],
        numbers: Callable[[], Awaitable[dict[str, float]]],
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._ready = ready
        self._numbers = numbers
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen; `Misconfigured` if the port is taken."""
        served = web.Application(client_max_size=BODY_LIMIT)
        served.router.add_get("/healthz", self._healthz)
        served.router.add_get("/readyz", self._readyz)
        served.router.add_get("/metrics", self._metrics)
        if self._app is not None:
            served.router.add_post(EVENTS, self._events)
        self._runner = web.AppRunner(served, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            raise Misconfigured(
                f"SIGNALBOX_HTTP_PORT: {self._host}:{self._port} cannot be listened on ({error.strerror})."
            ) from error

    async def close(self) -> None:
        """Stop listening; requests under way are answered."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _events(self, request: web.Request) -> web.Response:
        assert self._app is not None
        return await to_aiohttp_response(await self._app.async_dispatch(await to_bolt_request(request)))

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        missing = await self._ready()
        return web.Response(status=503 if missing else 200, text=f"{missing or 'ready'}\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        numbers = await self._numbers()
        return web.Response(text="".join(f"signalbox_{name} {value:g}\n" for name, value in numbers.items()))
