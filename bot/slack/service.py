"""`python -m bot serve`: Signalbox in Slack, from the first connection to an orderly end.

Slack is connected before the agent is warm: clicks need no agent. On SIGTERM the order is: take nothing new, let turns
and deliveries end, close. What is cut off is in the inbox or the outbox, and the next start goes on.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date
from typing import Any

from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot import digests
from bot.bootstrap import App, alone, opened
from bot.core.errors import Misconfigured, Unavailable
from bot.policies import PolicyFile
from bot.settings import Settings
from bot.slack import digest_blocks
from bot.slack.connection import Sockets, web_client
from bot.slack.conversation import Answers, Conversation
from bot.slack.groups import SlackGroups
from bot.slack.hands import Hands
from bot.slack.http import Front
from bot.slack.listeners import Listeners
from bot.slack.notifier import SlackNotifier
from bot.slack.pages import Pages
from bot.slack.rush import Rush

log = logging.getLogger(__name__)

CONNECT_SECONDS = 30.0
SWITCH_SECONDS = 0.0005  # a click's thread waits so long for one that computes; ten times that is Python's own
AGENT_SECONDS, AGENT_MOST_SECONDS = 5.0, 300.0  # between two tries to open the agent, at first and at most
GOODBYE_SECONDS = 20.0  # for turns that are under way, within a cluster's usual grace of 30


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C. Answers the exit status."""
    sys.setswitchinterval(SWITCH_SECONDS)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with serving(settings):
        print("Signalbox is connected to Slack.", flush=True)
        await stopped.wait()
        print("Leaving; what is under way is finished or kept.", flush=True)
    return 0


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[App]:
    """The bot in Slack, while the block runs."""
    if settings.slack_bot_token is None:
        raise Misconfigured(
            "SLACK_BOT_TOKEN is not set. Make an app from infra/slack/manifest.yaml, then copy its bot token."
        )
    async with AsyncExitStack() as stack:
        if settings.sqlite:
            stack.enter_context(alone(settings))
        policies = PolicyFile(settings.policy_file)
        app = await stack.enter_async_context(opened(settings, policies=policies))
        if settings.sqlite:
            await app.store.write(lambda writing: writing.end_leases())
        client = web_client(settings.slack_bot_token.get_secret_value(), settings.slack_api_url)
        team, bot_user = await _who(client)
        answers: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        room = _Room(app, client, team, bot_user, answers)
        policies.groups = SlackGroups(client)
        warming = asyncio.create_task(_warm(app, stack, answers, room.conversation), name="warm the agent")
        stack.push_async_callback(_ended, warming)
        stack.push_async_callback(room.hands.close)  # after the connections: a last click is answered too
        stack.push_async_callback(room.conversation.close, 0.0)  # what came after the other close is left to others
        await _connected(settings, room, stack)
        reconciler = asyncio.create_task(app.reconciler(room.notifier).run(), name="reconciler")
        stack.push_async_callback(_ended, reconciler)
        if settings.digest_channel:
            clock = digests.DigestClock(app.store, team, settings.digest_channel, settings.zone, settings.digest_hour)
            clock.start()
            stack.callback(clock.stop)
        watching = asyncio.create_task(room.conversation.watch(team), name="inbox")
        try:
            yield app
        finally:
            await _ended(watching)
            await room.conversation.close(GOODBYE_SECONDS)


class _Room:
    """Everything of Slack's side, wired."""

    def __init__(
        self, app: App, client: AsyncWebClient, team: str, bot_user: str, answers: asyncio.Future[Answers]
    ) -> None:
        self.app = app
        self.team = team
        self.client = client
        shared: Any = {"store": app.store, "cards": app.cards, "client": client, "team": team}
        self.conversation = Conversation(app.store, client, answers, app.wake)
        rush = Rush()
        self.notifier = SlackNotifier(
            **shared,
            policies=app.policies,
            curve=app.curves.of_job,
            log_lines=app.engine.logs,
            digest=self._digest_message,
            rush=rush,
        )
        pages = Pages(
            **shared,
            policies=app.policies,
            desk=app.desk,
            conversation=self.conversation,
            digest=self._digest_text,
        )
        self.hands = Hands(
            **shared,
            policies=app.policies,
            deciding=app.deciding,
            proposing=app.proposing,
            desk=app.desk,
            home=pages.publish,
            rush=rush,
        )
        self.listeners = Listeners(
            store=app.store,
            policies=app.policies,
            conversation=self.conversation,
            hands=self.hands,
            pages=pages,
            team=team,
            bot_user=bot_user,
        )

    async def _digest(self, channel: str, of: date | None) -> digests.Digest:
        today = (await self.app.store.now()).astimezone(self.app.settings.zone).date()
        built = of or today
        return await digests.build(self.app.store, self.app.pricing, self.app.policies, self.team, channel, built)

    async def _digest_message(self, channel: str, of: date) -> dict[str, Any]:
        return digest_blocks.message(await self._digest(channel, of), self.app.settings.zone)

    async def _digest_text(self, channel: str, of: date | None) -> str:
        return "\n".join(digests.lines(await self._digest(channel, of), self.app.settings.zone))


async def _who(client: AsyncWebClient) -> tuple[str, str]:
    """The workspace and the bot's own user."""
    try:
        answer = await client.auth_test()
    except SlackApiError as error:
        raise Misconfigured(f"SLACK_BOT_TOKEN is refused by Slack ({error.response.get('error')}).") from error
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"Slack at {client.base_url} does not answer ({type(error).__name__}).") from error
    return str(answer["team_id"]), str(answer["user_id"])


async def _warm(app: App, stack: AsyncExitStack, answers: asyncio.Future[Answers], conversation: Conversation) -> None:
    """Import and open the agent, beside everything else; again and again where it does not open."""
    await _open_agent(app, stack, answers)
    if not answers.done():
        conversation.without_agent()
    try:
        log.info("trainings run on %s", await app.engine.offers())
    except Exception as error:
        log.warning("trainings cannot run yet: %s", error)
    try:  # MLflow's import takes seconds of this process; at the first approval it would hold clicks up
        await app.tracking.ping()
    except Exception as error:
        log.warning("MLflow is not to be had yet: %s", error)
    gc.collect()
    gc.freeze()  # what was imported stays: looked through by no collection, so that none holds clicks up
    pause = AGENT_SECONDS
    while not answers.done():
        await asyncio.sleep(pause)
        pause = min(2 * pause, AGENT_MOST_SECONDS)
        await _open_agent(app, stack, answers)


async def _open_agent(app: App, stack: AsyncExitStack, answers: asyncio.Future[Answers]) -> None:
    try:
        answers.set_result(await stack.enter_async_context(app.assistant()))
    except Exception:
        log.exception("the agent could not be opened; clicks are taken all the same")


async def _connected(settings: Settings, room: _Room, stack: AsyncExitStack) -> None:
    secret = settings.slack_signing_secret
    over_http = settings.slack_mode == "http"
    bolt = AsyncApp(
        client=room.client,
        signing_secret=secret.get_secret_value() if secret else "",
        request_verification_enabled=over_http,
        ignoring_self_events_enabled=True,
    )
    room.listeners.register(bolt)
    sockets = None
    if over_http:
        if secret is None:
            raise Misconfigured("SLACK_SIGNING_SECRET is not set; requests over HTTP cannot be trusted without it.")
    elif settings.slack_app_token is None:
        raise Misconfigured("SLACK_APP_TOKEN is not set; sockets need it (or set SIGNALBOX_SLACK_MODE=http).")
    else:
        sockets = Sockets(bolt, settings.slack_app_token.get_secret_value(), settings.slack_api_url)
        stack.push_async_callback(sockets.close)
        await sockets.connect(CONNECT_SECONDS)
    front = Front(
        bolt if over_http else None,
        host=settings.http_host,
        port=settings.http_port,
        ready=lambda: _missing(room.app, sockets),
        numbers=lambda: _numbers(room.app, room.team, sockets),
    )
    await front.start()
    stack.push_async_callback(front.close)


async def _missing(app: App, sockets: Sockets | None) -> str:
    """What keeps the bot from working, in a word; nothing if all is well."""
    if sockets is not None and not await sockets.connected():
        return "no socket to Slack is open"
    try:
        await app.store.now()
    except Unavailable as error:
        return str(error)
    return ""


async def _numbers(app: App, team: str, sockets: Sockets | None) -> dict[str, float]:
    jobs = await app.store.open_jobs()
    return {
        "pending_proposals": await app.store.count_pending(team),
        "open_jobs": len(jobs),
        "troubled_jobs": sum(bool(one.trouble) for one in jobs),
        "sockets": await sockets.connected() if sockets is not None else 0,
    }


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
