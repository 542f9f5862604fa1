"""What people say to the bot in Slack, and its answers: recorded first, then answered in a task of its own.

A message is in the inbox before Slack is acknowledged, so a restart, or another replica, answers what a crash cut off.
Turns of one thread follow each other (the assistant sees to that), turns of many threads run at once. A turn that fails
goes on later where it was. What Slack cannot do (streams, status) is done without, with one line in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.core.errors import SignalboxError
from bot.inbox import Inbox, Lost
from bot.slack import text
from bot.slack.connection import NO_ANSWER, into
from bot.slack.stream import Stream
from bot.store.store import Message, Store
from tools.desk import Caller

log = logging.getLogger(__name__)
T = TypeVar("T")

THINKING = "is thinking…"
FEEDBACK = "sb_feedback"
AGAIN_SECONDS = (1.0, 5.0, 20.0, 60.0)  # between tries to say an answer
GO_ON_SECONDS = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, *[300.0] * 6)  # between tries of a turn that failed
SORRY = "I cannot answer just now: something that I need does not open. I shall answer here once it does; buttons work."
PLAIN = 3000  # characters of a message without blocks, for a Slack that refuses them
REFUSED = frozenset({"invalid_blocks", "msg_too_long", "msg_blocks_too_long"})
# Nobody can be answered there any more.
GONE = frozenset({"channel_not_found", "thread_not_found", "is_archived", "not_in_channel"})
# What this Slack, or this token, does not have; asking again would not help.
LACKING = frozenset({"unknown_method", "not_allowed_token_type", "missing_scope", "feature_not_enabled"})


class Answers(Protocol):
    """The agent."""

    async def answer(
        self, text: str, caller: Caller, on_text: Callable[[str], Awaitable[None]] | None = None
    ) -> str: ...


class Conversation:
    """`answers` is awaited, so that clicks are taken before the agent is warm."""

    def __init__(self, store: Store, client: AsyncWebClient, answers: asyncio.Future[Answers], told: Told) -> None:
        self._store = store
        self._inbox = Inbox(store)
        self._client = client
        self._answers = answers
        self._told = told
        self._lacking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns: dict[tuple[str, str], dict[asyncio.Task[None], Message]] = {}
        self._idling: set[asyncio.Task[Any] | None] = set()
        self._without: set[str] = set()
        self._closing = False

    def begin(self, message: Message) -> None:
        """Answer it, in a task that `stop` and `close` know."""
        if self._closing:
            return  # it is released with what is cut off
        key = (message.channel, message.thread)
        task = asyncio.create_task(self._turn(message), name=f"turn {message.event_id}")
        self._turns.setdefault(key, {})[task] = message
        task.add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        turns = self._turns.get(key, {})
        turns.pop(task, None)
        if not turns:
            self._turns.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a turn failed for good; it is left to another replica or the next start", exc_info=error)

    def without_agent(self) -> None:
        """The agent could not be opened: who waits for it is told so."""
        self._lacking.set_result(None)

    async def watch(self, team: str) -> None:
        """Begin what was recorded before a crash and is answered by nobody, here or in another replica."""
        await self._inbox.watch(team, self.begin)

    async def stop(self, channel: str, thread: str) -> bool:
        """The person pressed Stop: end the turns of this thread. What they had proposed already stays proposed."""
        turns = dict(self._turns.get((channel, thread), {}))
        self._inbox.forgo(turns.values())  # whether or not it can be recorded now
        for task in turns:
            task.cancel()
        try:  # queued before anybody could take up what is stopped, and before the turns let go of it
            await asyncio.gather(*(self._store.answered(one.team, one.event_id) for one in turns.values()))
        finally:
            await asyncio.gather(*turns, return_exceptions=True)
        return bool(turns)

    async def close(self, seconds: float) -> None:
        """Let running turns end; what does not, or only waits, is left to another replica or the next start."""
        self._closing = True
        for task in self._idling:
            if task is not None:
                task.cancel()
        tasks = [task for tasks in self._turns.values() for task in tasks]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._inbox.release()

    async def _turn(self, message: Message) -> None:
        try:
            async with self._inbox.held(message) as answered:
                await self._answer(message)
                answered()
                await self._until_done(lambda: self._store.answered(message.team, message.event_id))
        except Lost:
            log.warning("%s is left to another process", message.event_id)
        else:
            self._told()

    async def _answer(self, message: Message) -> None:
        await self.optional(
            "assistant.threads.setStatus", channel_id=message.channel, thread_ts=message.thread, status=THINKING
        )
        stream = Stream(
            self.optional, channel=message.channel, thread=message.thread, user=message.user, team=message.team
        )
        try:
            answers = await self._until_done(lambda: self._agent(message))
            said = await self._until_done(lambda: self._said(message, answers, stream))
            await self._until_done(lambda: self._show(message, said, stream))
        except SlackApiError as error:
            if error.response.get("error") not in GONE:
                raise
            log.warning("%s could not be answered (%s)", message.event_id, error.response.get("error"))

    async def _until_done(self, part: Callable[[], Awaitable[T]]) -> T:
        """A part of a turn; again if it fails, later each time, unless nothing can come of it."""
        for pause in GO_ON_SECONDS:
            try:
                return await part()
            except Exception as error:
                if isinstance(error, SlackApiError) and error.response.get("error") in GONE:
                    raise
                log.warning("a turn failed and goes on in %.0f s", pause, exc_info=error)
            with self._idle():
                await asyncio.sleep(pause)
        return await part()

    @contextmanager
    def _idle(self) -> Iterator[None]:
        """This turn only waits: `close` does not wait for it."""
        task = asyncio.current_task()
        self._idling.add(task)
        try:
            yield
        finally:
            self._idling.discard(task)

    async def _agent(self, message: Message) -> Answers:
        await asyncio.wait((self._answers, self._lacking), return_when=asyncio.FIRST_COMPLETED)
        if self._answers.done():
            return self._answers.result()
        await self._say(message, text=SORRY)
        with self._idle():
            return await asyncio.shield(self._answers)

    async def _said(self, message: Message, answers: Answers, stream: Stream) -> str:
        try:
            return await answers.answer(message.text, message.caller(), stream.on_text)
        except SignalboxError as error:
            return str(error)

    async def _show(self, message: Message, said: str, stream: Stream) -> None:
        if not await stream.finish(said, [feedback_block()]):
            await self._post(message, said)

    async def _post(self, message: Message, said: str) -> None:
        for part in text.split(text.from_model(said)):
            blocks = [{"type": "markdown", "text": part}, feedback_block()]
            try:
                await self._say(message, text=part, blocks=blocks)
            except SlackApiError as error:
                if error.response.get("error") not in REFUSED:
                    raise
                log.warning("an answer was refused (%s), so it is said without blocks", error.response.get("error"))
                for piece in text.split(part, PLAIN):
                    await self._say(message, text=piece)

    async def _say(self, message: Message, **what: Any) -> None:
        """One message into the thread; again after a while where Slack does not answer or has no room."""
        for pause in (*AGAIN_SECONDS, None):
            try:
                await into(
                    message.thread,
                    lambda thread: self._client.chat_postMessage(channel=message.channel, thread_ts=thread, **what),
                )
                return
            except SlackApiError as error:
                if pause is None or (error.response.status_code < 500 and error.response.get("error") != "ratelimited"):
                    raise
            except NO_ANSWER:
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def optional(self, method: str, **arguments: Any) -> dict[str, Any] | None:
        """A call that the loop can do without; None where this Slack does not have it, or does not answer."""
        if method in self._without:
            return None
        try:
            return dict((await self._client.api_call(method, json=arguments)).data)  # type: ignore[arg-type]
        except SlackApiError as error:
            # A server that answers an unknown method with a bare 404 gives no reason.
            reason = str(error.response.get("error") or f"HTTP {error.response.status_code}")
            if reason in LACKING or error.response.status_code == 404:
                self._without.add(method)
            log.info("%s is not to be had here (%s)", method, reason)
        except NO_ANSWER as error:
            log.info("%s was not answered (%s)", method, type(error).__name__)
        return None


Told = Callable[[], None]


def feedback_block() -> dict[str, Any]:
    """The two feedback buttons below an answer."""
    return {
        "type": "context_actions",
        "elements": [
            {
                "type": "feedback_buttons",
                "action_id": FEEDBACK,
                "positive_button": {"text": {"type": "plain_text", "text": "Helpful"}, "value": "good"},
                "negative_button": {"text": {"type": "plain_text", "text": "Not helpful"}, "value": "bad"},
            }
        ],
    }
