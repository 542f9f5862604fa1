"""A pod's log: the lines for people, and the progress that its machine lines tell, read on from where it ended.

The API cannot be asked for "all after this line", only for the last so many seconds; lines carry the node's
timestamps, in the node's own time zone, so what was read before is passed over. Many running pods share so many
readings a second.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from tools.engines.kubernetes.connection import Connection, Problem, Unreachable
from tools.engines.local import LINE_LIMIT, for_people
from tools.progress import PREFIX, Progress, parse_lines

LOOK_SECONDS = 2.0  # between two readings of one running pod's log, while few run
READS_A_SECOND = 10.0  # of all running pods' logs together; Slack shows less than one card a second anew
READS_AT_ONCE = 8  # of these: where they hang, neither those who look nor other requests wait behind them
OVERLAP_SECONDS = 5  # read again, in case clocks and requests were slow
TRIES = 5  # for the log of a pod that has ended; a lost node never answers
LIMIT_BYTES = 32 * 2**20  # of one reading
TAIL_FACTOR = 20  # lines asked for each line wanted: most are progress lines
TAIL_LINES = 20000
KEPT = 200  # readings of pods that are over
_STAMPED = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) (.*)$", re.DOTALL)


@dataclass
class _Reading:
    """How far one pod's log was read, and what it said up to there."""

    progress: Progress = field(default_factory=Progress)
    stamp: str = ""  # of the last line that was read, as `_key` has it
    read_at: float = float("-inf")
    next_at: float = float("-inf")
    done: bool = False
    failures: int = 0


class Logs:
    """Readings by pod uid."""

    def __init__(self, connection: Connection, namespace: str, look_seconds: float = LOOK_SECONDS) -> None:
        self._connection = connection
        self._path = f"/api/v1/namespaces/{namespace}/pods/{{}}/log"
        self._look_seconds = look_seconds
        self._readings: dict[str, _Reading] = {}
        self._over: deque[str] = deque()
        self._reads, self._counted_at = READS_A_SECOND, time.monotonic()  # how many may be read now
        self._reading = 0  # running pods' logs, at this moment

    async def progress(self, name: str, uid: str, *, over: bool, gone: bool) -> Progress:
        """What the pod told up to now. Of one that has ended all of it, or `Unreachable`/`Problem` for a few tries."""
        reading = self._of(uid)
        now = time.monotonic()
        if gone and not reading.done:
            self._done(uid, reading)
        if reading.done or not (over or self._due(reading, now)):
            return reading.progress
        reading.next_at = now + max(self._look_seconds, (len(self._readings) - len(self._over)) / READS_A_SECOND)
        self._reading += not over
        try:
            read = await self._read(name, reading, now)
        except (Problem, Unreachable) as error:
            reading.failures += 1
            missing = isinstance(error, Problem) and error.code in (400, 404)  # not started yet, or not there any more
            if over and (missing or reading.failures >= TRIES):
                self._done(uid, reading)
            elif over:
                raise
            return reading.progress
        finally:
            self._reading -= not over
        _fold(reading, read)
        reading.read_at, reading.failures = now, 0
        if over:
            self._done(uid, reading)
        return reading.progress

    async def tail(self, name: str, lines: int) -> list[str]:
        """The last lines that are for people, as a terminal would leave them."""
        asked = min(TAIL_LINES, lines * TAIL_FACTOR + 100)
        read = await self._connection.text(self._path.format(name), tailLines=asked, limitBytes=LIMIT_BYTES)
        return for_people(read, cut=False)[-lines:]

    def _of(self, uid: str) -> _Reading:
        return self._readings.setdefault(uid, _Reading())

    def _done(self, uid: str, reading: _Reading) -> None:
        """Of the pods that are over, only the latest are remembered; an older one would be read again."""
        reading.done = True
        self._over.append(uid)
        if len(self._over) > KEPT:
            self._readings.pop(self._over.popleft(), None)

    def _due(self, reading: _Reading, now: float) -> bool:
        """Its time has come, and there are reads left."""
        if now < reading.next_at or self._reading >= READS_AT_ONCE:
            return False
        self._reads = min(READS_A_SECOND, self._reads + (now - self._counted_at) * READS_A_SECOND)
        self._counted_at = now
        if self._reads < 1:
            return False
        self._reads -= 1
        return True

    async def _read(self, name: str, reading: _Reading, now: float) -> bytes:
        query: dict[str, object] = {"timestamps": "true", "limitBytes": LIMIT_BYTES}
        if reading.stamp:
            query["sinceSeconds"] = math.ceil(now - reading.read_at) + OVERLAP_SECONDS
        return await self._connection.text(self._path.format(name), **query)


def _fold(reading: _Reading, read: bytes) -> None:
    """Lines after the last one seen. A server that stamps none has told all from the beginning."""
    told: list[str] = []
    last = reading.stamp
    before = reading.progress if last else Progress()
    for line in read.decode("utf-8", "replace").split("\n")[:-1]:  # what has no end yet is read again
        found = _STAMPED.match(line)
        if found is None:
            told.append(line)
        elif (stamp := _key(found[1], found[2], found[3])) > last:
            reading.stamp = max(reading.stamp, stamp)
            told.append(found[4])
    kept = [line for line in told if line.startswith(PREFIX) and len(line) <= LINE_LIMIT]
    reading.progress = parse_lines(kept, before)


def _key(whole: str, fraction: str | None, zone: str) -> str:
    """Sortable: in UTC, and fractions of a second, which are written without their trailing zeros, padded."""
    return f"{whole if zone == 'Z' else _utc(whole, zone)}{fraction or '.':0<10}"


@lru_cache(maxsize=64)
def _utc(whole: str, zone: str) -> str:
    return datetime.fromisoformat(whole + zone).astimezone(UTC).replace(tzinfo=None).isoformat()
