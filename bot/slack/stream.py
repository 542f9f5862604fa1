"""An answer as it is written: streamed into the thread, whole at the end, plain where Slack has no streams.

The agent hands over all that it has so far, and may begin anew. What was streamed cannot be taken back, so only whole
words are sent, and an answer that turned out otherwise replaces the message when it is complete.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bot.slack import text

log = logging.getLogger(__name__)

APPEND_SECONDS = 1.0  # between two pieces
LONGEST = 11_000  # characters of one stream; Slack takes 12,000
SHORTEST = 40  # characters worth beginning a stream for

Optional = Callable[..., Awaitable[dict[str, Any] | None]]


class Stream:
    """One answer in one thread. `call` is a Slack method that may be lacking."""

    def __init__(self, call: Optional, *, channel: str, thread: str, user: str, team: str) -> None:
        self._call = call
        self._where = {"channel": channel, "thread_ts": thread}
        self._to = {"recipient_user_id": user, "recipient_team_id": team}
        self._ts: str | None = None
        self._sent = ""
        self._at = 0.0
        self._broken = False

    async def on_text(self, so_far: str) -> None:
        """What the agent has written up to now."""
        whole, _, _ = so_far.rpartition(" ")
        safe = text.from_model(whole)
        now = time.monotonic()
        if self._broken or now - self._at < APPEND_SECONDS or len(safe) < SHORTEST or len(safe) > LONGEST:
            return
        if not safe.startswith(self._sent):
            self._broken = True  # it began anew; the end puts it right
            return
        self._at = now
        await self._send(safe[len(self._sent) :])

    async def finish(self, said: str, blocks: list[dict[str, Any]]) -> bool:
        """Complete the message with the whole answer. False if nothing was streamed: then it is still to be posted."""
        if self._ts is None:
            return False
        whole = text.from_model(said)
        target = {"channel": self._where["channel"], "ts": self._ts}
        fits = not self._broken and whole.startswith(self._sent) and len(whole) <= LONGEST
        rest = whole[len(self._sent) :] if fits else ""
        closing = {"markdown_text": rest} if rest else {}
        stopped = await self._call("chat.stopStream", **target, **closing, blocks=blocks)
        if stopped is not None and fits:
            return True
        first, *others = text.split(whole)
        parts = [{"type": "markdown", "text": first}, *blocks]
        updated = await self._call("chat.update", **target, text=first, blocks=parts)
        for part in others:
            await self._call("chat.postMessage", **self._where, text=part, blocks=[{"type": "markdown", "text": part}])
        return updated is not None

    async def _send(self, piece: str) -> None:
        if self._ts is None:
            answer = await self._call("chat.startStream", **self._where, **self._to, markdown_text=piece)
            if answer is None:
                self._broken = True
                return
            self._ts = str(answer["ts"])
        else:
            target = {"channel": self._where["channel"], "ts": self._ts}
            if await self._call("chat.appendStream", **target, markdown_text=piece) is None:
                self._broken = True  # streams end after some minutes
                return
        self._sent += piece
