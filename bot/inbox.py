"""The inbox: what people said, recorded before it is acknowledged, and held by the one process that answers it.

A message is recorded together with a lease on it, which is renewed while its turn runs. A turn that can no longer be
sure of its lease ends before another process may take the message up. What a killed process left behind is taken up by
compare-and-set, by whoever looks first when its lease is over. A SQLite file has one bot alone: nothing to renew there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

from bot.core.errors import SignalboxError, Unavailable
from bot.store.store import Message, Store
from bot.store.writing import LEASE

log = logging.getLogger(__name__)

RENEW_SECONDS = 4.0
LOOK_SECONDS = 5.0  # between two looks for what nobody answers; longer, so that whoever lives has renewed
SPARE_SECONDS = 4.0  # so long before its lease a turn ends: what it is just sending must not meet another's answer
SURE_SECONDS = LEASE.total_seconds() - SPARE_SECONDS


class Lost(SignalboxError):
    """A message is answered by another process, or may be by now."""

    def __init__(self) -> None:
        super().__init__("Another process of Signalbox answers that.")


class Inbox:
    """What this process answers. A turn that failed here is not begun here once more: others may, or the next start."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._alone = store.database.sqlite
        self._ours: set[Message] = set()  # what is being answered here
        self._left: set[Message] = set()  # what failed or was stopped here

    async def watch(self, team: str, begin: Callable[[Message], object]) -> None:
        """Begin what nobody answers, now and whenever there is something, until cancelled."""
        away = False
        while True:
            try:
                await self._store.now()
                if not away:  # else leases ran out that nobody could renew: whoever lives does so first
                    for message in await self.take_up(team):
                        begin(message)
                away = False
            except Unavailable as error:
                log.warning("the inbox could not be looked at: %s", error)
                away = True
            except Exception:
                log.exception("the inbox could not be looked at")
            await asyncio.sleep(LOOK_SECONDS)

    async def take_up(self, team: str) -> list[Message]:
        """What nobody answers, oldest first; it is ours to answer now."""
        return await self._store.take_up(team, apart_from=self._ours | self._left)

    @asynccontextmanager
    async def held(self, message: Message) -> AsyncIterator[Callable[[], None]]:
        """While the block runs no other process answers the message: it is ended with `Lost` if that gets uncertain.

        It is given what to call once the person has the answer: from then on it may take its time to record that.
        """
        self._ours.add(message)
        begun = False
        try:
            async with asyncio.timeout(None if self._alone else SURE_SECONDS) as fence:
                keeper = await self._kept(message, fence)
                try:
                    begun = True
                    yield partial(fence.reschedule, None)
                finally:
                    keeper.cancel()
                    await asyncio.wait({keeper})
        except Exception as error:
            if isinstance(error, Lost) or fence.expired():
                raise Lost from None
            if begun:
                self._left.add(message)
            raise
        finally:
            self._ours.discard(message)

    def forgo(self, messages: Iterable[Message]) -> None:
        """They are not begun here any more."""
        self._left.update(messages)

    async def release(self) -> None:
        """No turn runs here any more: others may answer at once what is not answered."""
        try:
            await self._store.release_messages()
        except Unavailable as error:
            log.warning("messages wait for their leases to end: %s", error)

    async def _kept(self, message: Message, fence: asyncio.Timeout) -> asyncio.Task[None]:
        """Renews the lease once, then from time to time."""
        if not await self._renew(message, fence):
            raise Lost
        return asyncio.create_task(self._keep(message, fence), name=f"keep {message.event_id}")

    async def _keep(self, message: Message, fence: asyncio.Timeout) -> None:
        while not self._alone:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._renew(message, fence)
            except Exception as error:
                log.warning("the lease on %s was not renewed: %s", message.event_id, error)

    async def _renew(self, message: Message, fence: asyncio.Timeout) -> bool:
        if self._alone:
            return True
        asked = asyncio.get_running_loop().time()  # the lease begins no sooner
        ours = await self._store.renew(message)
        if fence.when() is not None and not fence.expired():
            fence.reschedule(asked + SURE_SECONDS if ours else asked)
        return ours
