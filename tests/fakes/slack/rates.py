"""Slack's rate limits: a bucket of tokens per method and workspace, and one per channel for posting.

Slack publishes rates (1 message a second and channel; 20, 50, 100 calls a minute) and that short bursts pass, not how
large a burst is; a minute's worth per tier and four messages a channel are this fake's reading.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from enum import Enum


class Tier(Enum):
    """Calls a minute."""

    T1 = 20  # Slack says 1+; every connection and reconnection needs a call, and Slack lets those pass
    T2 = 20
    T3 = 50
    T4 = 100
    POST = 300  # chat.postMessage in a whole workspace, beside its rate per channel
    FREE = 0  # "special" rates that no well-meant caller reaches


POSTS_PER_SECOND = 1.0
POST_BURST = 4


@dataclass
class _Bucket:
    rate: float  # tokens a second
    size: float
    tokens: float
    at: float

    def take(self, now: float) -> float:
        """0 when a token was there, otherwise the seconds until there is one."""
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.rate


@dataclass
class Rates:
    """`scale` 1 is Slack's own pace, 10 is ten times as generous, None is no limit at all."""

    scale: float | None = 1.0
    _buckets: dict[tuple[str, ...], _Bucket] = field(default_factory=dict)

    def wait(self, method: str, tier: Tier, team: str, channel: str | None) -> int:
        """0 when the call may go on, otherwise whole seconds for Retry-After."""
        if self.scale is None or tier is Tier.FREE:
            return 0
        waits = [self._take((method, team), tier.value / 60, tier.value)]
        if tier is Tier.POST and channel and not waits[0]:
            waits.append(self._take((method, team, channel), POSTS_PER_SECOND, POST_BURST))
        return math.ceil(max(waits))

    def _take(self, key: tuple[str, ...], rate: float, size: float) -> float:
        assert self.scale is not None
        now = time.monotonic()
        bucket = self._buckets.setdefault(key, _Bucket(rate * self.scale, size, size, now))
        return bucket.take(now)
