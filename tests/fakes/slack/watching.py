"""What tests look at and wait for: calls, acknowledgements, messages, private notes, views, Home tabs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from tests.fakes.slack import views
from tests.fakes.slack.api import Api, Call
from tests.fakes.slack.delivery import Courier, Delivery
from tests.fakes.slack.state import Message, View, Workspace

T = TypeVar("T")


class Watching:
    """The looking half of `SlackServer`. Whoever changes the world calls `pulse`, and the waiting look again."""

    api: Api
    courier: Courier
    teams: dict[str, Workspace]

    def __init__(self) -> None:
        self._pulse = asyncio.Event()

    @property
    def calls(self) -> list[Call]:
        return self.api.calls

    @property
    def acks(self) -> dict[str, float]:
        """Envelope id → seconds until it was acknowledged."""
        return self.courier.acks

    @property
    def deliveries(self) -> list[Delivery]:
        return self.courier.deliveries

    def calls_to(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    def messages(self, channel: str, *, team: str = "T1") -> list[Message]:
        """What stands in a channel, threads included, oldest first."""
        return [m for m in self.teams[team].channels[channel].messages.values() if not m.deleted]

    def pulse(self) -> None:
        """Wakes whoever waits: something has changed."""
        self._pulse.set()
        self._pulse = asyncio.Event()

    async def until(self, find: Callable[[], T], timeout: float = 20.0, what: str = "it") -> T:
        """Waits until `find` gives something true, and gives that."""
        deadline = time.monotonic() + timeout
        while not (found := find()):
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"waited {timeout} s in vain for {what}")
            try:
                await asyncio.wait_for(self._pulse.wait(), min(left, 0.25))
            except TimeoutError:
                continue
        return found

    async def message(
        self,
        channel: str,
        *,
        containing: str = "",
        thread_ts: str | None = None,
        author: str | None = "app",
        timeout: float = 20.0,
        team: str = "T1",
    ) -> Message:
        """The newest message with these words, by the app unless told otherwise (a user's id, or None for any)."""
        wanted = self.teams[team].bot.id if author == "app" else author

        def find() -> Message | None:
            for message in reversed(self.messages(channel, team=team)):
                fits = wanted in (None, message.user) and thread_ts in (None, message.thread_ts)
                if fits and containing in message.words:
                    return message
            return None

        try:
            found = await self.until(find, timeout, f"a message with {containing!r} in {channel}")
        except AssertionError as late:
            there = "\n".join(f"  {m.user}: {m.words[:200]!r}" for m in self.messages(channel, team=team)[-8:])
            raise AssertionError(f"{late}; there was:\n{there}") from None
        assert found is not None
        return found

    async def ephemeral(self, user: str, *, containing: str = "", timeout: float = 20.0, team: str = "T1") -> Message:
        """The newest private note to a person with these words."""

        def find() -> Message | None:
            mine = [m for m in self.teams[team].ephemerals if m.ephemeral_to == user and not m.deleted]
            return next((m for m in reversed(mine) if containing in m.words), None)

        found = await self.until(find, timeout, f"a private note with {containing!r} to {user}")
        assert found is not None
        return found

    async def view(self, user: str, *, containing: str = "", timeout: float = 20.0, team: str = "T1") -> View:
        """The view on top for a person, once it has these words."""

        def find() -> View | None:
            open_now = views.stack(self.teams[team], user)
            return open_now[-1] if open_now and containing in open_now[-1].words else None

        found = await self.until(find, timeout, f"a view with {containing!r} for {user}")
        assert found is not None
        return found

    async def home(self, user: str, *, containing: str = "", timeout: float = 20.0, team: str = "T1") -> View:
        """A person's Home tab, once it has these words."""

        def find() -> View | None:
            home = self.teams[team].homes.get(user)
            return home if home and containing in home.words else None

        found = await self.until(find, timeout, f"a Home tab with {containing!r} for {user}")
        assert found is not None
        return found
