"""Clicks come first: while many people press at once, cards follow at the pace that Slack allows in the long run."""

from __future__ import annotations

import asyncio
import time
from collections import deque

MANY, WITHIN_SECONDS = 10, 0.5  # so many clicks in so short a time are a rush
PACE_SECONDS = 1.0  # between two cards in a rush: chat.update takes some 50 a minute
LOOKS = 10  # in that time, whether it is over


class Rush:
    """Told of each approval as it comes; asked before what can wait a moment."""

    def __init__(self) -> None:
        self._clicks: deque[float] = deque(maxlen=MANY)

    def click(self) -> None:
        self._clicks.append(time.monotonic())

    @property
    def on(self) -> bool:
        return len(self._clicks) == MANY and time.monotonic() - self._clicks[0] < WITHIN_SECONDS

    async def over(self) -> None:
        """Once it is over, or the pace allows one more card."""
        for _ in range(LOOKS):
            if not self.on:
                return
            await asyncio.sleep(PACE_SECONDS / LOOKS)
