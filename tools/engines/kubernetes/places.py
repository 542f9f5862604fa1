"""How many stand before a training that waits: by Kueue, which alone knows its order, else by the age of our own pods.

Asked only for what waits, for a whole queue at once, and seldom. Kueue's visibility API may be switched off or
forbidden: then nothing is said, and it is tried again much later.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.engines.kubernetes.connection import Connection, Problem, Unreachable
from tools.engines.kubernetes.reflector import Kind
from tools.engines.kubernetes.waiting import queue_of, unscheduled

LOOK_SECONDS = 10.0  # between two looks at one queue
FAILED_SECONDS = 30.0  # after it did not answer
AGAIN_SECONDS = 300.0  # after it may not be asked, or knows of no places
VERSIONS = ("v1beta2", "v1beta1")  # of the visibility API, the newer first

Raw = Mapping[str, Any]


@dataclass
class _Queue:
    """Who waits in a LocalQueue, by the Workload's name and the uid of its owner, and when to ask anew."""

    places: dict[str, int] = field(default_factory=dict)
    length: int = 0
    look_at: float = float("-inf")
    asking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Places:
    """`pods`: ours, as the reflector has them."""

    def __init__(self, connection: Connection, namespace: str, pods: Kind) -> None:
        self._connection = connection
        self._path = f"/apis/visibility.kueue.x-k8s.io/{{}}/namespaces/{namespace}/localqueues/{{}}/pendingworkloads"
        self._pods = pods
        self._queues: dict[str, _Queue] = {}
        self._born: list[tuple[str, str]] = []
        self._born_at = float("-inf")

    async def of(self, job: Raw, pods: Sequence[Raw]) -> str:
        """Its place as a part of a sentence; nothing where it does not wait or nobody knows."""
        if label := queue_of(job):
            return await self._in_queue(label, job)
        pod = unscheduled(pods)
        return self._among_pods(pod) if pod is not None else ""

    async def _in_queue(self, label: str, job: Raw) -> str:
        queue = self._queues.setdefault(label, _Queue())
        async with queue.asking:
            if time.monotonic() >= queue.look_at:
                await self._look(label, queue)
        place = queue.places.get(str(job["metadata"].get("uid")))
        return f"number {place} of {queue.length}" if place else ""

    async def _look(self, label: str, queue: _Queue) -> None:
        queue.places, queue.length, queue.look_at = {}, 0, time.monotonic() + AGAIN_SECONDS
        for version in VERSIONS:
            try:
                told = await self._connection.get(self._path.format(version, label))
            except (Problem, Unreachable) as error:
                if isinstance(error, Problem) and error.code == 404:
                    continue  # an older Kueue, or none
                if not isinstance(error, Problem) or error.code != 403:
                    queue.look_at = time.monotonic() + FAILED_SECONDS
                return
            waiting = told.get("items") or ()
            queue.length, queue.look_at = len(waiting), time.monotonic() + LOOK_SECONDS
            for one in waiting:
                for owner in one["metadata"].get("ownerReferences") or ():
                    queue.places[str(owner.get("uid"))] = int(one.get("positionInLocalQueue") or 0) + 1
            return

    def _among_pods(self, pod: Raw) -> str:
        """By the time of their creation: a scheduler without Kueue tries the older first, if all else is equal."""
        now = time.monotonic()
        if now - self._born_at >= LOOK_SECONDS:
            waiting = [one for one in self._pods.objects.values() if unscheduled([one]) is not None]
            self._born, self._born_at = sorted(map(_birth, waiting)), now
        ahead = bisect_left(self._born, _birth(pod))
        return f"{ahead} other {'training waits' if ahead == 1 else 'trainings wait'} longer" if ahead else ""


def _birth(pod: Raw) -> tuple[str, str]:
    return str(pod["metadata"].get("creationTimestamp") or ""), str(pod["metadata"]["name"])
